"""Lossless compression by prediction. Imports core modules and `sharnn.inference`."""
