"""Models run in onnxruntime: sessions, metrics, and two models compared."""
