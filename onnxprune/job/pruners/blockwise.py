"""Reconstruction over several layers: sections of the pruned model are trained towards those of the dense one.

Masks stay as they are, and labels are not used: the targets are what the dense model computes for the calibration
inputs. Other inputs say which state is the best; it may be the first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.sections import Section, sections, whole
from onnxprune.calibration.segments import Segment, Tensors
from onnxprune.calibration.walk import Visit, places, walk
from onnxprune.data.batch import Batch
from onnxprune.errors import MissingPackageError, OnnxPruneError
from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.model.costs import multiply_adds
from onnxprune.model.reading import FLOAT_TYPES
from onnxprune.model.weights import Weight, find_weights
from onnxprune.reports.record import Detail
from onnxprune.system.packages import require_package
from onnxprune.system.progress import Progress, part_of

if TYPE_CHECKING:
    from onnxprune.training.reconstruction import Fitted, Runs

# The weights of a section: a residual block, or the attention of a transformer's layer.
MOST_WEIGHTS = 4
# Where no samples were set apart, one of so many runs is not trained on, and says which state is the best.
HELD_OF = 8
BATCH = 32
# The size of a step relative to a filter's root mean square.
STEP_SIZE = 0.02
# Forward and backward passes, in forward passes.
PASSES = 3
FEWEST_STEPS = 20
# Of the time that a job has left for its training.
TIME_SHARE = 0.25
# Memory limit of what is trained towards.
TARGET_BYTES = 2**30


@dataclass(frozen=True)
class Effort:
    """The updates of each section alone, those of all sections together, and the multiply-adds of all of that."""

    alone: int
    together: int
    work: float


# A core makes some 2e10 multiply-adds a second: minutes, and half an hour.
EFFORTS: Mapping[str, Effort] = {"normal": Effort(100, 200, 6e12), "best": Effort(400, 1600, 4e13)}


@dataclass(frozen=True)
class Limits:
    """What a training that follows leaves: `updates` in all, and its own `deadline`, by `time.monotonic()`."""

    updates: float = math.inf
    deadline: float | None = None

    def seconds(self) -> float | None:
        """The time there is from now on; None: as much as it takes."""
        return None if self.deadline is None else TIME_SHARE * max(self.deadline - time.monotonic(), 0.0)


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Reconstruction:
    """A pruned model, the constants of the dense one, calibration inputs, and the masks of the pruned constants.

    `held`: the inputs that say which state is the best; None: some of `data`. `masks`: True = kept; what they remove
    stays as it is, as do the constants in `fixed`. `limits`: beside those of the effort.
    """

    model: ir.Model
    dense: Tensors
    data: Batch
    held: Batch | None
    masks: Mapping[ir.Value, np.ndarray]
    seed: int
    fixed: Collection[ir.Value] = ()
    limits: Limits = NO_LIMITS

    def run(self, effort: str, progress: Progress = lambda fraction: None) -> Iterator[str]:
        """Train the weights of the model in place; yields notes for the summary."""
        try:
            require_package("torch", "--effort")
        except MissingPackageError:
            yield (
                "Layers were reconstructed one by one only: over several layers that needs torch "
                "(pip install 'onnxprune[train]')."
            )
            return
        chain = sections(self.model, self.masks, MOST_WEIGHTS)
        plan, seconds = EFFORTS.get(effort), self.limits.seconds()
        if plan is None or not chain or self.limits.updates < FEWEST_STEPS or seconds == 0:
            return
        most = int(plan.work / (PASSES * BATCH * self._work()))
        if most < FEWEST_STEPS:
            yield (
                "Layers were reconstructed one by one only: over several layers that takes long for a model of this "
                f"size{'; --effort best spends more' if effort != 'best' else ''}."
            )
            return
        total = plan.alone + plan.together
        share = min(1.0, min(most, self.limits.updates) / total)
        stages = [(chain, plan.alone), ([whole(chain)], plan.together)]
        if len(chain) == 1:
            stages = [(chain, total)]
        done = 0.0
        for parts, steps in stages:
            end = None if seconds is None else time.monotonic() + steps / total * seconds
            advance = part_of(progress, done, steps / total)
            yield from self._trained(parts, math.ceil(share * steps), end, advance)
            done += steps / total
            progress(done)

    def _trained(
        self, parts: Sequence[Section], steps: int, end: float | None, progress: Progress
    ) -> Iterator[str]:
        """Train each of the parts, one after the other, until `end`; a part that torch cannot run stays as it is."""
        nodes = list(self.model.graph)
        starts = {nodes[section.start]: section for section in parts}
        found: list[Fitted] = []
        left = len(parts)
        refused: list[OnnxPruneError] = []
        for visits in self._visits(starts.keys() if steps else ()):
            section = starts[visits[0].node]
            seconds = None if end is None else max(end - time.monotonic(), 0.0) / left
            advance = part_of(progress, 1 - left / len(parts), 1 / len(parts))
            left -= 1
            try:
                inside = nodes[section.start : section.end]
                fitted = self._fit(visits, section, inside, steps, seconds, advance)
            except OnnxPruneError as error:
                refused.append(error)
                continue
            if fitted is not None:
                found.append(fitted)
        over = "the whole network" if len(parts) == 1 else _sections(len(found))
        if found:
            before, after, made = np.mean([(each.before, each.after, each.steps) for each in found], axis=0)
            yield Detail(
                f"Reconstruction over {over} ({_steps(made, steps)}, no labels): squared error, relative to the "
                f"variance of the dense values, {before:.4f} -> {after:.4f} on validation samples"
                f"{'' if self.held is not None else ', to which the layers were fitted before, as there are few'}."
            )
        if refused:
            which = "the whole network" if len(parts) == 1 else _sections(len(refused))
            yield f"Not reconstructed over several layers: {which} ({refused[0]})."

    def _visits(self, nodes: Collection[ir.Node]) -> Iterator[tuple[Visit, ...]]:
        """Visits of nodes with the samples to train on and, where there are some, with those that are held."""
        parts = [part for part in (self.data, self.held) if part is not None]
        return zip(*(walk(self.model, self.dense, part, nodes) for part in parts), strict=True)

    def _fit(
        self,
        visits: Sequence[Visit],
        section: Section,
        nodes: Sequence[ir.Node],
        steps: int,
        seconds: float | None,
        progress: Progress,
    ) -> Fitted | None:
        """Train the constants that only these nodes of a section read; None if there is nothing to follow.

        Raises:
            OnnxPruneError: torch cannot run them.
        """
        from onnxprune.training.reconstruction import Descent, fit

        dense = Segment(self.model, section.start, section.end, section.outputs, instead=self.dense)
        part = Segment(self.model, section.start, section.end, self._outputs(visits[0], dense))
        runs = self._runs(visits, dense, part)
        if runs is None:
            return None
        constants = {name: value for name, value in _own_constants(nodes).items() if value not in self.fixed}
        sizes = {
            name: _sizes(value, self._weights.get(value)) * self.masks.get(value, np.True_)
            for name, value in constants.items()
        }
        how = Descent(steps, BATCH, STEP_SIZE, self.seed, seconds)
        fitted = fit(ir.from_proto(part.proto(visits[0].pruned[0])), sizes, *runs, how, progress)
        for name, array in fitted.arrays.items():
            old = constant_tensor(constants[name])
            assert old is not None
            set_constant(constants[name], array.astype(old.dtype.numpy()), old.dtype)
        return fitted

    def _outputs(self, visit: Visit, dense: Segment) -> list[ir.Value]:
        """The outputs of a section that are compared: the smallest in floats, as many as fit in memory."""
        found = dense.run(visit.dense[0])
        floats = [value for value in dense.gives if _kind(found[value]) == "f"]
        sizes = {value: found[value].nbytes * len(visit.dense) for value in floats}
        smallest = sorted(sizes, key=lambda value: sizes[value])
        totals = np.cumsum([sizes[value] for value in smallest])
        return [
            value
            for value, total in zip(smallest, totals, strict=True)
            if total <= max(TARGET_BYTES, totals[0])
        ]

    def _runs(self, visits: Sequence[Visit], dense: Segment, part: Segment) -> tuple[Runs, Runs] | None:
        """What a section reads in the pruned model and computes in the dense one: to train on, and held; None: nothing.

        What reads or makes sequences, maps and texts cannot be trained.
        """
        from onnxprune.training.reconstruction import Runs

        def runs_of(visit: Visit) -> Iterator[tuple[list[Any], list[Any]]]:
            for before, after in zip(visit.dense, visit.pruned, strict=True):
                found = dense.run(before)
                yield [after[value] for value in part.reads], [found[value] for value in part.gives]

        parts = [list(runs_of(visit)) for visit in visits]
        if len(parts) == 1:
            [every] = parts
            places = set(range(HELD_OF - 1, len(every), HELD_OF) or [len(every) - 1])
            parts = [
                [run for place, run in enumerate(every) if (place in places) == held]
                for held in (False, True)
            ]
        arrays = [array for runs in parts for run in runs for side in run for array in side]
        if not all(parts) or not part.gives or not all(_kind(array) in "fiub" for array in arrays):
            return None
        samples = max(1, len(self.data) // len(visits[0].pruned))
        return tuple(  # type: ignore[return-value]
            Runs([run[0] for run in runs], [run[1] for run in runs], samples) for runs in parts
        )

    @cached_property
    def _weights(self) -> dict[ir.Value, Weight]:
        return {weight.value: weight for weight in find_weights(self.model).all}

    def _work(self) -> float:
        """The multiply-adds of a forward pass of a sample."""
        found = places(self.model, self.data)
        # Neither the shortest sequences nor the longest.
        batch = self.data.at(found[len(found) // 2])
        shapes = {name: array.shape for name, array in batch.feeds().items()}
        return max(sum(multiply_adds(self.model, shapes).values()) / len(batch), 1.0)


def _steps(made: float, most: int) -> str:
    return f"{most:,} steps" if made == most else f"{made:,.0f} of {most:,} steps"


def _sections(count: int) -> str:
    return f"{count} section{'s' * (count > 1)} of the network"


def _kind(array: Any) -> str:
    """The kind of an array's numbers, as in numpy; of anything else, O."""
    return array.dtype.kind if isinstance(array, np.ndarray) else "O"


def _own_constants(nodes: Sequence[ir.Node]) -> dict[str, ir.Value]:
    """The constants in floats that these nodes read, and no others."""
    inside = set(nodes)
    found: dict[str, ir.Value] = {}
    for value in (value for node in nodes for value in node.inputs if value is not None):
        tensor = constant_tensor(value)
        if (
            tensor is not None
            and tensor.dtype in FLOAT_TYPES
            and {use.node for use in value.uses()} <= inside
        ):
            found[value.name or ""] = value
    return found


def _sizes(value: ir.Value, weight: Weight | None) -> np.ndarray:
    """The sizes of a constant's elements: the root mean square over an output's weights, or over all of a bias.

    Float32, of the constant's shape; 0 for weights that are zero, which stay so.
    """
    tensor = constant_tensor(value)
    assert tensor is not None
    squares = np.square(tensor.numpy().astype(np.float32))
    if weight is None:
        return np.full(squares.shape, np.sqrt(squares.mean()) or 1.0, np.float32)
    others = tuple(axis for axis in range(squares.ndim) if axis != weight.out_axis)
    present = weight.present()
    counts = np.maximum(present.sum(others, keepdims=True), 1)
    return (present * np.sqrt(squares.sum(others, keepdims=True) / counts)).astype(np.float32)
