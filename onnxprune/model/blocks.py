"""A weight as independent linear maps, Y = W X for each group, whatever the operator and its layout."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.weights import Weight


@dataclass(frozen=True)
class Blocks:
    """The view of a weight as (groups, outputs, inputs), by the weight's first use.

    A Conv has one block per group, a MatMul one per matrix of a batch, a Gemm a single one.
    """

    node: ir.Node
    index: int
    order: tuple[int, ...]
    """The weight's axes in the order of groups, outputs, inputs."""
    moved: tuple[int, ...]
    """The weight's shape in that order."""
    shape: tuple[int, int, int]

    @staticmethod
    def fit(weight: Weight) -> bool:
        """Whether a weight has this view: it is a direct operand of a Conv, Gemm or MatMul."""
        node, index = weight.uses[0].node, weight.uses[0].index
        standard = node.domain in ("", "ai.onnx") and node.op_type in ("Conv", "Gemm", "MatMul")
        return standard and node.inputs[index] is weight.value

    @classmethod
    def of(cls, weight: Weight) -> Blocks:
        use, shape = weight.uses[0], weight.shape
        rank, out = len(shape), weight.out_axis
        if use.node.op_type == "Conv":
            groups = use.node.attributes.get_int("group", 1)
            sizes = (groups, shape[0] // groups, math.prod(shape[1:]))
            return cls(use.node, use.index, tuple(range(rank)), shape, sizes)
        order = (*range(rank - 2), out, 2 * rank - 3 - out)
        moved = tuple(shape[axis] for axis in order)
        return cls(use.node, use.index, order, moved, (math.prod(moved[:-2]), *moved[-2:]))

    @property
    def data(self) -> ir.Value:
        """The data operand of the node, which the weight is multiplied with."""
        value = self.node.inputs[1 - self.index]
        assert value is not None
        return value

    @property
    def data_axis(self) -> int:
        """The axis of the data operand along which the inputs lie."""
        if self.node.op_type == "Conv":
            return 1
        return -1 if self._sums_over_last() else -2

    def split(self, array: np.ndarray) -> np.ndarray:
        """An array of the weight's shape as (groups, outputs, inputs)."""
        return array.transpose(self.order).reshape(self.shape)

    def join(self, blocks: np.ndarray) -> np.ndarray:
        """An array of the weight's shape from (groups, outputs, inputs)."""
        return blocks.reshape(self.moved).transpose(np.argsort(self.order))

    def channels_last(self, blocks: np.ndarray) -> np.ndarray:
        """(groups, outputs, inputs) as (rows, channels): for a Conv, the input channels at one kernel position."""
        if self.node.op_type != "Conv":
            return blocks.reshape(-1, blocks.shape[-1])
        return np.moveaxis(blocks.reshape(self.moved), 1, -1).reshape(-1, self.moved[1])

    def channels_back(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `channels_last`."""
        if self.node.op_type != "Conv":
            return rows.reshape(self.shape)
        channels_last = (self.moved[0], *self.moved[2:], self.moved[1])
        return np.moveaxis(rows.reshape(channels_last), -1, 1).reshape(self.shape)

    def columns(self, data: np.ndarray, most: int, seed: int) -> np.ndarray:
        """The inputs of the maps, from the data operand: (groups, inputs, columns), a column per output position.

        If there are more than `most` columns, `most` of them are drawn at random.
        """
        if self.node.op_type == "Conv":
            return _patches(self.node, data, self.shape[0], self.moved[2:], most, seed)
        columns = self._operand_columns(data)
        return columns[:, :, _some(columns.shape[2], most, seed)]

    def output_columns(self, output: np.ndarray, most: int, seed: int) -> np.ndarray:
        """The outputs of the maps, (groups, outputs, columns), at the columns that `columns` draws of the inputs.

        `output` has the shape of the node's output; the weight is the second operand, and not batched.
        """
        axis = 1 if self.node.op_type == "Conv" else -1
        rows = np.moveaxis(output, axis, -1).reshape(-1, output.shape[axis])
        drawn = rows[_some(len(rows), most, seed)]
        return drawn.reshape(len(drawn), *self.shape[:2]).transpose(1, 2, 0)

    def square_sums(self, batches: Sequence[np.ndarray]) -> np.ndarray:
        """The sum of squares of each input over all columns of all batches: float64 (groups, inputs)."""
        if self.node.op_type == "Conv":
            # Windows are at the same positions in all samples, so samples can be summed first.
            squares = sum(np.square(batch, dtype=np.float64).sum(0, keepdims=True) for batch in batches)
            batches = [np.sqrt(squares).astype(np.float32)]
        columns = (self.columns(batch, sys.maxsize, seed=0) for batch in batches)
        return sum(np.square(part, dtype=np.float64).sum(-1) for part in columns)

    def _operand_columns(self, data: np.ndarray) -> np.ndarray:
        groups, _, inputs = self.shape
        rows = np.atleast_2d(data) if self._sums_over_last() else np.swapaxes(np.atleast_2d(data), -1, -2)
        if groups == 1:
            return rows.reshape(-1, inputs).T[None]
        # Batched matrices broadcast with the leading axes of the data; further leading axes are samples.
        stack = self.moved[:-2]
        leading = np.broadcast_shapes(rows.shape[:-2], stack)
        rows = np.broadcast_to(rows, (*leading, *rows.shape[-2:]))
        samples = len(leading) - len(stack)
        rows = np.moveaxis(rows, range(samples, len(leading)), range(len(stack)))
        return np.swapaxes(rows.reshape(groups, -1, inputs), 1, 2)

    def _sums_over_last(self) -> bool:
        """Whether the product sums over the last axis of the data operand, not the one before it."""
        if self.node.op_type == "Gemm":
            transposed = self.node.attributes.get_int("transB" if self.index == 0 else "transA", 0)
            return bool(transposed) == (self.index == 0)
        return self.index == 1


def _some(count: int, most: int, seed: int) -> np.ndarray:
    return (
        np.arange(count) if count <= most else np.random.default_rng(seed).choice(count, most, replace=False)
    )


def _patches(
    node: ir.Node, data: np.ndarray, groups: int, kernel: tuple[int, ...], most: int, seed: int
) -> np.ndarray:
    """Windows of a Conv's input (N, channels, ...) as (groups, channels of a group * kernel, windows)."""
    axes = len(kernel)
    strides = node.attributes.get_ints("strides", [1] * axes)
    dilations = node.attributes.get_ints("dilations", [1] * axes)
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    data = np.pad(data, [(0, 0), (0, 0), *_padding(node, data.shape[2:], spans, strides)])
    windows = np.lib.stride_tricks.sliding_window_view(data, spans, axis=tuple(range(2, 2 + axes)))
    steps = [slice(None, None, step) for step in (1, 1, *strides, *dilations)]
    windows = windows[tuple(steps)]
    # (N, C, places..., kernel...) -> (N, places..., C, kernel...), still a view; only drawn windows are copied.
    windows = np.moveaxis(windows, 1, 1 + axes)
    places = windows.shape[: 1 + axes]
    drawn = windows[np.unravel_index(_some(math.prod(places), most, seed), places)]
    return drawn.reshape(len(drawn), groups, -1).transpose(1, 2, 0)


def _padding(
    node: ir.Node, size: tuple[int, ...], spans: list[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """The padding (before, after) of each spatial axis, from auto_pad or pads (ONNX Conv-11)."""
    axes = len(size)
    named = node.attributes.get_string("auto_pad", "NOTSET")
    if named in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((math.ceil(length / step) - 1) * step + span - length, 0)
            for length, span, step in zip(size, spans, strides, strict=True)
        ]
        halves = [(total // 2, total - total // 2) for total in totals]
        return halves if named == "SAME_UPPER" else [(after, before) for before, after in halves]
    pads = node.attributes.get_ints("pads", [0] * 2 * axes) if named == "NOTSET" else [0] * 2 * axes
    return list(zip(pads[:axes], pads[axes:], strict=True))
