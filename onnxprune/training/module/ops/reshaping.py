"""Operators that move elements without changing them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque


@lowers("Reshape", since=5, static=(1,), moves=True)
def reshape(x: Tensor, shape: Sequence[int], *, allowzero: int = 0) -> Tensor:
    """x in `shape`; -1 is what is left, 0 the size of x there unless `allowzero` (ONNX Reshape-21)."""
    if allowzero:
        return x.reshape(list(shape))
    return x.reshape([x.shape[axis] if _is_zero(size) else size for axis, size in enumerate(shape)])


def _is_zero(size: object) -> bool:
    """Whether a size is the number 0, not one that only a run knows."""
    return isinstance(size, int) and size == 0


@lowers("Flatten", since=1, moves=True)
@opaque
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """The axes before `axis` as one, and those from it on as another (ONNX Flatten-21)."""
    return x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())


@lowers("Transpose", since=1, moves=True)
def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """The axes of x in the order `perm`, or reversed (ONNX Transpose-21)."""
    return _reversed(x) if perm is None else x.permute(tuple(perm))


@opaque
def _reversed(x: Tensor) -> Tensor:
    return x.permute(tuple(reversed(range(x.dim()))))


@lowers("Squeeze", since=1, moves=True)
@lowers("Squeeze", since=13, static=(1,), moves=True)
def squeeze(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """x without these axes of size 1, or without any such axis (ONNX Squeeze-1, Squeeze-21)."""
    return torch.squeeze(x) if axes is None else torch.squeeze(x, tuple(axes))


@lowers("Unsqueeze", since=1, moves=True)
@lowers("Unsqueeze", since=13, static=(1,), moves=True)
def unsqueeze(x: Tensor, axes: Sequence[int] | int) -> Tensor:
    """x with new axes of size 1 at these places of the result (ONNX Unsqueeze-1, Unsqueeze-21)."""
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    return torch.unsqueeze(x, axes[0]) if len(axes) == 1 else _unsqueeze_several(x, axes)


@opaque
def _unsqueeze_several(x: Tensor, axes: Sequence[int]) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@lowers("Concat", since=4)
def concat(*operands: Tensor, axis: int) -> Tensor:
    """The operands one after the other along one axis (ONNX Concat-13)."""
    return torch.cat(operands, axis)


@lowers("Split", since=2, several=True)
@lowers("Split", since=13, static=(1,), several=True)
@opaque
def split(
    x: Tensor,
    split: Sequence[int] | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """x split along one axis into the sizes given, or into equal parts, the last smaller (ONNX Split-2, Split-18)."""
    size = -(-x.shape[axis] // (num_outputs or outputs))
    return torch.split(x, list(split) if split else size, axis)


@lowers("Expand", since=8, static=(1,))
@opaque
def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x broadcast together with `shape` (ONNX Expand-13)."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


@lowers("Tile", since=6, static=(1,))
def tile(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """x repeated along each axis (ONNX Tile-13)."""
    return x.repeat(list(repeats))


@lowers("DepthToSpace", since=1)
@opaque
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """(N, C, H, W) to (N, C / b², H * b, W * b): blocks of channels become pixels (ONNX DepthToSpace-13)."""
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        return (
            x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
        )
    return x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)


@lowers("SpaceToDepth", since=1)
@opaque
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """(N, C, H, W) to (N, C * b², H / b, W / b): blocks of pixels become channels (ONNX SpaceToDepth-28)."""
    n, c, h, w = x.shape
    b = blocksize
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.permute(order).reshape(n, c * b**2, h // b, w // b)
