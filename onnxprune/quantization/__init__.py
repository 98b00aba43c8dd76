"""Models in int8: ranges of activations, and the quantized forms of nodes and weights."""
