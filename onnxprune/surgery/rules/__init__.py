"""The rules of each operator family for channels and constants; importing this package fills the rule tables."""

from onnxprune.surgery.rules import (
    attention,
    control,
    convolution,
    einsum,
    elementwise,
    joining,
    matmul,
    normalization,
    picking,
    pooling,
    quantization,
    recurrent,
    reductions,
    reshaping,
    resizing,
)

__all__ = [
    "attention",
    "control",
    "convolution",
    "einsum",
    "elementwise",
    "joining",
    "matmul",
    "normalization",
    "picking",
    "pooling",
    "quantization",
    "recurrent",
    "reductions",
    "reshaping",
    "resizing",
]
