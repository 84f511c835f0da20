"""Lossless compression by prediction. Imports core modules, `exact` and `inference`."""
