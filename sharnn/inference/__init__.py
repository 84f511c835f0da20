"""The same model, one byte at a time, fast. Imports only core modules."""
