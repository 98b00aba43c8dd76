"""A layer fitted to the inputs that are left: V minimizes |Y - V X' - b|^2, in closed form, over whole inputs.

X' are the inputs of the layer in the pruned model, without those that are removed, and Y what it should give: its
outputs in the dense model, and where they are added to another value (a residual), what that value lacks as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.corrections import bias_of
from onnxprune.calibration.moments import STILL, check_finite, outer
from onnxprune.calibration.walk import Visit
from onnxprune.model.blocks import Blocks
from onnxprune.model.constants import constant_tensor
from onnxprune.model.weights import Weight
from onnxprune.pruning.layerwise import Problem, reconstruct

# Most columns (a Conv has one for each output position) of all batches; more are drawn at random.
COLUMNS = 16_384
# Of all batches, every so many-th tells how much damping is right.
HELD_OUT = 4
# As fractions of the mean of the diagonal of X' X'^T.
DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass
class Sums:
    """Sums over columns: of x x^T (groups, inputs, inputs), y x^T (groups, outputs, inputs), x, y, y^2 and 1."""

    second: np.ndarray
    aimed: np.ndarray
    mean: np.ndarray
    aimed_mean: np.ndarray
    count: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, int, int]) -> Sums:
        """None yet, for weights (groups, outputs, inputs)."""
        groups, outputs, inputs = shape
        return cls(
            np.zeros((groups, inputs, inputs)),
            np.zeros((groups, outputs, inputs)),
            np.zeros((groups, inputs)),
            np.zeros((groups, outputs)),
        )

    def add(self, inputs: np.ndarray, aims: np.ndarray) -> None:
        """Columns x and y, (groups, inputs, columns) and (groups, outputs, columns)."""
        # What overflows is refused later.
        with np.errstate(over="ignore", invalid="ignore"):
            self.second += inputs @ inputs.transpose(0, 2, 1)
            self.aimed += aims @ inputs.transpose(0, 2, 1)
        self.mean += inputs.sum(2, dtype=np.float64)
        self.aimed_mean += aims.sum(2, dtype=np.float64)
        self.count += inputs.shape[2]

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.second + other.second,
            self.aimed + other.aimed,
            self.mean + other.mean,
            self.aimed_mean + other.aimed_mean,
            self.count + other.count,
        )

    def moments(self, centered: bool) -> tuple[np.ndarray, np.ndarray]:
        """The means of x x^T and y x^T, or their central moments."""
        second, aimed = self.second / self.count, self.aimed / self.count
        if not centered:
            return second, aimed
        mean, aimed_mean = self.mean / self.count, self.aimed_mean / self.count
        return second - outer(mean, mean), aimed - outer(aimed_mean, mean)


def fitted(
    dense: np.ndarray,
    second: np.ndarray,
    aimed: np.ndarray,
    kept: np.ndarray,
    damping: float,
    floor: np.ndarray | float = 0.0,
) -> np.ndarray:
    """V (groups, outputs, inputs), 0 where it is not kept, near `dense` where nothing determines it.

    `kept`: bool, of the same shape. `floor` (groups,): what is added to the damping.
    """
    inputs = np.asarray(kept.any(1))
    both = inputs[:, :, None] & inputs[:, None, :]
    matrix = np.where(both, second, 0)
    diagonal = np.einsum("gii->gi", matrix)
    size = damping * diagonal.sum(1) / np.maximum(inputs.sum(1), 1) + floor + np.finfo(np.float32).tiny
    # An input that is not kept has a row of its own, and a 0 on the right.
    diagonal += np.where(inputs, size[:, None], 1)
    right = np.where(inputs[:, None, :], aimed + size[:, None, None] * dense, 0)
    values = np.linalg.solve(matrix, right.transpose(0, 2, 1)).transpose(0, 2, 1)
    outputs = np.asarray(kept.any(2))
    if np.array_equal(kept, outputs[:, :, None] & inputs[:, None, :]):
        return np.where(kept, values, 0)
    return _on_rows(values, matrix, kept)


def _on_rows(values: np.ndarray, matrix: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The fit of each output to its own inputs: as near as possible to `values`, which are the fit to all of them."""
    scale = np.sqrt(np.einsum("gii->gi", matrix))[:, None, :]
    parts = (matrix / scale / scale.transpose(0, 2, 1), values * scale, values * scale, scale)
    problem = Problem(*(part.astype(np.float32) for part in parts))
    return reconstruct(problem, kept, values)


@dataclass(frozen=True)
class Refit:
    """New weights (groups, outputs, inputs) of a layer; `shift` (groups, outputs): what to add to its bias."""

    weights: np.ndarray
    shift: np.ndarray


def refit(
    weight: Weight,
    dense: np.ndarray,
    kept: np.ndarray,
    visit: Visit,
    seed: int,
    *,
    centered: bool,
    residual: ir.Value | None = None,
) -> Refit:
    """Fit a layer to its dense outputs; `dense`: its dense weights, `kept`: which may differ from 0, bool; both of
    (groups, outputs, inputs).

    `residual`: the value that the outputs are added to, whose error they make up for if it is known by then.
    `centered`: whether a bias takes up the mean. The damping is that which does best on batches that were not fitted.
    """
    blocks = Blocks.of(weight)
    parts = [Sums.empty(blocks.shape) for _ in range(2)]
    pivots: list[np.ndarray] = []
    for number, (inputs, aims) in enumerate(_columns(blocks, dense, visit, seed, residual)):
        pivots = pivots or [each.mean(2, keepdims=True) * np.float32(centered) for each in (inputs, aims)]
        parts[number % HELD_OUT == HELD_OUT - 1].add(inputs - pivots[0], aims - pivots[1])
    every = parts[0] + parts[1]
    check_finite((every.second, every.aimed), blocks.node)
    mean, aimed_mean = (
        total / every.count + pivot[..., 0]
        for total, pivot in zip((every.mean, every.aimed_mean), pivots, strict=True)
    )
    solve = partial(fitted, dense, kept=kept, floor=STILL * np.square(mean).mean(1))
    damping = DAMPINGS[1] if not parts[1].count else _best_damping(solve, parts[0], parts[1], centered)
    second, aimed = every.moments(centered)
    values = solve(second, aimed, damping=damping)
    return Refit(values, aimed_mean - np.einsum("goi,gi->go", values, mean))


def _best_damping(solve: Callable[..., np.ndarray], fit: Sums, held: Sums, centered: bool) -> float:
    second, aimed = held.moments(centered)

    def error(values: np.ndarray) -> float:
        return float(((values @ second - 2 * aimed) * values).sum())

    losses = {damping: error(solve(*fit.moments(centered), damping=damping)) for damping in DAMPINGS}
    return min(losses, key=lambda damping: losses[damping])


def _columns(
    blocks: Blocks, dense: np.ndarray, visit: Visit, seed: int, residual: ir.Value | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Columns by batch: the inputs in the pruned model, and the wanted outputs without the bias."""
    other = residual if residual in visit.pruned[0] else None
    most = math.ceil(COLUMNS / len(visit.pruned))
    weights = dense.astype(np.float32)
    for number, (before, after) in enumerate(visit.pairs(blocks.data)):
        whole, inputs = (
            blocks.columns(data.astype(np.float32, copy=False), most, seed + number)
            for data in (before, after)
        )
        aims = weights @ whole
        if other is not None:
            lacking = (visit.dense[number][other] - visit.pruned[number][other]).astype(np.float32)
            aims = aims + blocks.output_columns(lacking, most, seed + number)
        yield inputs, aims


def norm_behind(weight: Weight) -> ir.Node | None:
    """The BatchNormalization that alone reads the outputs of a layer: its mean follows, so it acts as a bias."""
    output = weight.uses[0].node.outputs[0]
    readers = list(output.uses())
    if len(readers) != 1 or output.is_graph_output() or readers[0].idx != 0:
        return None
    return readers[0].node if readers[0].node.op_type == "BatchNormalization" else None


def residual_of(weight: Weight, shapes: Mapping[ir.Value, tuple]) -> ir.Value | None:
    """The value of the same shape that the outputs of a layer are added to; else None."""
    node = weight.uses[0].node
    if weight.uses[0].index != 1 or len(weight.uses) > 1:
        return None
    output, bias = node.outputs[0], bias_of(weight)
    if node.op_type == "MatMul" and bias is not None:
        output = next(iter(bias.uses())).node.outputs[0]
    readers = list(output.uses())
    if len(readers) != 1 or readers[0].node.op_type != "Add" or output.is_graph_output():
        return None
    other = readers[0].node.inputs[1 - readers[0].idx]
    if other is None or constant_tensor(other) is not None or not shapes.get(other):
        return None
    return other if shapes.get(other) == shapes.get(output) else None
