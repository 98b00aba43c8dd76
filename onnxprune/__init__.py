"""Make trained neural networks small, from the ONNX file alone."""

from onnxprune.config import PruneConfig
from onnxprune.errors import OnnxPruneError
from onnxprune.pipeline import Result, prune

__all__ = ["OnnxPruneError", "PruneConfig", "Result", "prune"]
