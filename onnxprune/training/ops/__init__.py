"""ONNX operators as plain torch functions, one file a family; importing the package fills the table."""

from onnxprune.training.ops import (
    activations,
    convolution,
    creation,
    elementwise,
    indexing,
    linear,
    microsoft,
    normalization,
    padding,
    pooling,
    quantization,
    recurrent,
    reductions,
    reshaping,
    resizing,
)
from onnxprune.training.ops.table import Lowering, find_lowering, lowered_operators

__all__ = [
    "Lowering",
    "activations",
    "convolution",
    "creation",
    "elementwise",
    "find_lowering",
    "indexing",
    "linear",
    "lowered_operators",
    "microsoft",
    "normalization",
    "padding",
    "pooling",
    "quantization",
    "recurrent",
    "reductions",
    "reshaping",
    "resizing",
]
