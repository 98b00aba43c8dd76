"""Examples: each trains a small network, exports it, prunes it with onnxprune and evaluates it in onnxruntime."""
