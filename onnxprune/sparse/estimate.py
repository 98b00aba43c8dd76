"""What sparse nodes cost, estimated from shapes and densities: a choice that is the same on every machine.

The unit is one multiply-add of onnxruntime's dense kernels where every weight is used often. With n rows (pixels, or
samples of a batch), w weights of which the share d is kept, and e elements that go in and out:

    dense   w * max(n, dense_rows)                 a weight that is used seldom costs its way from memory
    sparse  d * w * n * sparse + e * element       from SPMM_ROWS rows on
            d * w * n * sparse_row + e * element   below

and `reorder` for every element that goes from a sparse convolution to a dense one, or the other way.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.shapes.inference import Shape

SPMM_ROWS = 8


class Costs(NamedTuple):
    """The constants of the estimate."""

    dense_rows: float
    sparse: float
    sparse_row: float
    element: float
    reorder: float


# Fitted by `python -m onnxprune.latency.fit` to the layers suite at 4, 10, 20 and 30 %: AMD EPYC (Zen 3, AVX2), one
# thread, off by a factor of 1.21 over 72 rows. The execution provider has them too (runtime/csrc/ep/choice.cc).
PORTABLE = Costs(dense_rows=5.2, sparse=1.7, sparse_row=12.4, element=38.0, reorder=82.0)

# What onnxruntime's blocked layout passes through on its way from one convolution to the next.
PASSING = frozenset(
    {"Add", "Sum", "Mul", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Identity", "Dropout"}
    | {"BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat"}
)  # fmt: skip


class Estimates:
    """The costs of a model's sparse nodes, in graph order; a node whose shapes are not known gains nothing."""

    def __init__(
        self,
        nodes: Sequence[ir.Node],
        shapes: Mapping[ir.Value, Shape],
        weights: Sequence[tuple[int, float]],
        costs: Costs = PORTABLE,
    ):
        """`weights`: of each node's weight, the number of elements and the share of them that is not zero."""
        self._costs = costs
        self._dense, self._sparse = [], []
        for node, (size, density) in zip(nodes, weights, strict=True):
            x, y = _static(node.inputs[0], shapes), _static(node.outputs[0], shapes)
            dense, sparse = 0.0, 0.0
            if x is not None and y is not None:
                dense, sparse = estimate(_is_conv(node), x, y, size, density, costs)
            self._dense.append(dense)
            self._sparse.append(sparse)
        self._edges = _edges(nodes, shapes)

    def gains(self, least_speedup: float) -> list[float]:
        """What each node saves by its kernel, dense being favoured by `least_speedup`."""
        return [
            dense - least_speedup * sparse for dense, sparse in zip(self._dense, self._sparse, strict=True)
        ]

    def speedup(self, by_kernel: Collection[int]) -> float:
        """How many times faster than dense all nodes are together, with those at these places run by kernels."""
        pairs = zip(self._dense, self._sparse, strict=True)
        cost = sum(pair[place in by_kernel] for place, pair in enumerate(pairs))
        for maker, reader, elements in self._edges:
            if (maker in by_kernel) != (reader in by_kernel):
                cost += self._costs.reorder * elements
        return sum(self._dense) / cost if cost else 1.0


def estimate(
    conv: bool, x: Sequence[int], y: Sequence[int], size: int, density: float, costs: Costs
) -> tuple[float, float]:
    """What a node costs dense and sparse, for the shapes of its input and output and its weight's elements."""
    elements = math.prod(x) + math.prod(y)
    outputs = y[1 if conv else -1] if y else 1
    rows = math.prod(y) / max(outputs, 1)
    used = rows * (costs.sparse if rows >= SPMM_ROWS else costs.sparse_row)
    return size * max(rows, costs.dense_rows), density * size * used + elements * costs.element


def _edges(
    nodes: Sequence[ir.Node], shapes: Mapping[ir.Value, Shape]
) -> list[tuple[int | None, int | None, int]]:
    """Which convolution reads which, by their places (None: one that is always dense), and how many elements."""
    places = {node: place for place, node in enumerate(nodes)}
    edges = []
    graphs = {node.graph for node in nodes if node.graph is not None}
    for node in [node for graph in graphs for node in graph if _is_conv(node)]:
        maker = next(nodes_before(node, _is_conv, PASSING), None)
        shape = _static(node.inputs[0], shapes)
        if maker is not None and shape is not None:
            edges.append((places.get(maker), places.get(node), math.prod(shape)))
    return edges


def nodes_before(
    node: ir.Node, wanted: Callable[[ir.Node], bool], passing: Collection[str]
) -> Iterator[ir.Node]:
    """The wanted nodes whose outputs reach this one's first input through `passing` operators, nearest first."""
    values, seen = deque(node.inputs[:1]), set()
    while values:
        value = values.popleft()
        maker = None if value is None else value.producer()
        if maker is None or maker in seen:
            continue
        seen.add(maker)
        if wanted(maker):
            yield maker
        elif maker.op_type in passing:
            values.extend(maker.inputs)


def _is_conv(node: ir.Node) -> bool:
    return "Conv" in node.op_type and constant_tensor(node.inputs[1]) is not None


def _static(value: ir.Value | None, shapes: Mapping[ir.Value, Shape]) -> tuple[int, ...] | None:
    shape = None if value is None else shapes.get(value)
    return shape if shape is not None and all(isinstance(dim, int) for dim in shape) else None  # type: ignore[return-value]
