"""Activation functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.training.module.ops.elementwise import held
from onnxprune.training.module.ops.table import lowers, opaque

lowers("Relu", since=6)(torch.relu)


@lowers("LeakyRelu", since=6)
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """x where x >= 0, else alpha * x (ONNX LeakyRelu-16)."""
    return F.leaky_relu(x, alpha)


@lowers("PRelu", since=7, trains=(1,))
@opaque
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x where x >= 0, else slope * x (ONNX PRelu-16); slope is broadcast to x."""
    one_per_channel = slope.dim() == x.dim() - 1 and slope.shape[0] == slope.numel() == x.shape[1]
    if slope.numel() == 1 or one_per_channel:
        return torch.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, slope * x, x)


@lowers("Elu", since=6)
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where x >= 0, else alpha * (exp(x) - 1) (ONNX Elu-22)."""
    return F.elu(x, alpha)


@lowers("Celu", since=12)
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)) (ONNX Celu-12)."""
    return F.celu(x, alpha)


@lowers("Selu", since=6)
def selu(
    x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Tensor:
    """gamma * x where x > 0, else gamma * alpha * (exp(x) - 1) (ONNX Selu-22)."""
    return gamma * F.elu(x, alpha)


@lowers("Gelu", since=20)
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """x * Phi(x), or its tanh approximation (ONNX Gelu-20)."""
    return F.gelu(x, approximate=approximate)


@lowers("HardSigmoid", since=6)
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """alpha * x + beta held between 0 and 1 (ONNX HardSigmoid-22)."""
    return held(alpha * x + beta, 0, 1)


@lowers("HardSwish", since=14)
def hard_swish(x: Tensor) -> Tensor:
    """x * HardSigmoid(x) with alpha = 1/6, beta = 0.5 (ONNX HardSwish-22)."""
    return F.hardswish(x)


@lowers("Mish", since=18)
def mish(x: Tensor) -> Tensor:
    """x * tanh(softplus(x)) (ONNX Mish-22)."""
    return F.mish(x)


@lowers("Swish", since=24)
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x * sigmoid(alpha * x) (ONNX Swish-24)."""
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@lowers("Softplus", since=1)
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) (ONNX Softplus-22)."""
    return F.softplus(x)


@lowers("Softsign", since=1)
def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|) (ONNX Softsign-22)."""
    return F.softsign(x)


@lowers("Shrink", since=9)
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """x + bias below -lambd, x - bias above lambd, 0 between (ONNX Shrink-9)."""
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))


@lowers("ThresholdedRelu", since=10)
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where x > alpha, else 0 (ONNX ThresholdedRelu-22)."""
    return F.threshold(x, alpha, 0.0)


@lowers("Softmax", since=13)
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along one axis (ONNX Softmax-13)."""
    return torch.softmax(x, axis)


@lowers("LogSoftmax", since=13)
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """log(Softmax(x)) along one axis (ONNX LogSoftmax-13)."""
    return torch.log_softmax(x, axis)


@lowers("Hardmax", since=13, gradients=())
@opaque
def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """1 at the first maximum along one axis, else 0 (ONNX Hardmax-13)."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


@lowers("Softmax", since=1)
def softmax_of_matrix(x: Tensor, *, axis: int = 1) -> Tensor:
    """Softmax over all axes from `axis` on (ONNX Softmax-11)."""
    return torch.softmax(_matrix(x, axis), -1).reshape(x.shape)


@lowers("LogSoftmax", since=1)
def log_softmax_of_matrix(x: Tensor, *, axis: int = 1) -> Tensor:
    """LogSoftmax over all axes from `axis` on (ONNX LogSoftmax-11)."""
    return torch.log_softmax(_matrix(x, axis), -1).reshape(x.shape)


@lowers("Hardmax", since=1, gradients=())
def hardmax_of_matrix(x: Tensor, *, axis: int = 1) -> Tensor:
    """Hardmax over all axes from `axis` on (ONNX Hardmax-11)."""
    return hardmax(_matrix(x, axis)).reshape(x.shape)


def _matrix(x: Tensor, axis: int) -> Tensor:
    return x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())
