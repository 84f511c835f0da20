"""Models to and from other programs: ONNX, the author's names. Imports the heart only."""
