"""Running models in onnxruntime: sessions, metrics, and the comparison of two models."""
