"""ONNX files: checked, read in parts, written whole or not at all."""
