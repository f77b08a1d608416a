"""ONNX files: read, written, edited, and what they take and give."""
