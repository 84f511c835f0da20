"""Conversion of models from and to other programs. Imports only core modules."""
