"""Sparse storage inside the ONNX file: nodes of domain `onnxprune` that decode themselves."""
