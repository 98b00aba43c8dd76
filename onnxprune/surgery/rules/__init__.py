"""How each operator family passes channels and constants on: importing this package fills the rule tables."""

from onnxprune.surgery.rules import (
    convolution,
    elementwise,
    matmul,
    normalization,
    pooling,
    reductions,
    reshaping,
)

__all__ = [
    "convolution",
    "elementwise",
    "matmul",
    "normalization",
    "pooling",
    "reductions",
    "reshaping",
]
