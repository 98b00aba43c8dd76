"""Products of matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.training.module.ops.table import lowers


@lowers("Gemm", since=7, trains=(0, 1, 2))
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Y = alpha * A' @ B' + beta * C (ONNX Gemm-13); a: (M, K), b: (K, N), c broadcast to (M, N)."""
    a = a.t() if transA else a
    if transB and alpha == 1 and (c is None or beta == 1):
        return F.linear(a, b, c)
    b = b.t() if transB else b
    if c is None:
        return torch.matmul(a, b) if alpha == 1 else alpha * torch.matmul(a, b)
    return torch.addmm(c, a, b, beta=beta, alpha=alpha)


lowers("MatMul", since=1, trains=(0, 1))(torch.matmul)


lowers("Det", since=11)(torch.linalg.det)


@lowers("Einsum", since=12, trains=(0, 1, 2, 3))
def einsum(*operands: Tensor, equation: str) -> Tensor:
    """The products and sums that `equation` spells, as in numpy (ONNX Einsum-12)."""
    return torch.einsum(equation, *operands)
