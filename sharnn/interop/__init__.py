"""Conversion to and from other formats: ONNX, the author's checkpoints. Imports only the heart."""
