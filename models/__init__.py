"""The networks and the data that onnxprune is tried on, and the scripts that make them; not installed."""
