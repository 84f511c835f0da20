"""Lossless compression with a model's predictions. Imports the heart and `sharnn.inference`."""
