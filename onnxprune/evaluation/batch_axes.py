"""Finding the batch axes of a model: what its dims make likely is tried on random inputs.

Axes are right where a run of several samples gives what runs of single samples give; where the model fixes the number
of samples, where a change of one sample leaves the outputs of the others. Neither holds exactly for models that
quantize their inputs by the range of all samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxprune.data.axes import Axis, BatchAxes, Choice, batch_dims, sized
from onnxprune.data.axis_choice import candidates, check_asked, is_plain_batch
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import LABELS, label_name
from onnxprune.data.random import random_data
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError
from onnxprune.evaluation.runs import FREE_SIZES, run_feeds
from onnxprune.evaluation.sessions import drawn

SAMPLES = 3
# The largest difference, as a part of what differs between samples.
TOLERANCE = 0.05
WHAT = "random inputs"
# How onnxruntime begins the type of an input that is an array.
TENSOR = "tensor("


def find_axes(
    session: ort.InferenceSession,
    specs: Sequence[InputSpec],
    asked: Choice,
    shapes: Mapping[str, Sequence[int]],
    patience: float | None = None,
) -> BatchAxes:
    """The batch axes of a model's inputs and outputs.

    `asked`: those that are given, by name; `shapes`: of inputs with other open dims. For `patience` see `Batch`.

    Raises:
        SettingError: the given axes do not fit the model.
        DataError: an input is no tensor.
    """
    for value in session.get_inputs():
        if not value.type.startswith(TENSOR):
            raise DataError(
                f"input {value.name!r} is a {value.type}, of which data has no form: give --no-evaluate, which writes "
                "the pruned model without a run, or a model of tensors"
            )
    outputs = [output.name for output in session.get_outputs()]
    check_asked(asked, specs, outputs)
    choices = candidates(specs, asked)
    known = all(spec.name in asked for spec in specs if spec.shape)
    if is_plain_batch(specs) and not asked:
        return _named(choices[0], _declared(session, specs, choices[0]), outputs, asked)
    unclear = None
    for axes in choices[:1] if known else choices:
        found = _Trial(session, specs, axes, shapes, patience).verdict()
        if found.right:
            return _named(axes, found.outputs, outputs, asked)
        if found.right is None and unclear is None:
            unclear = axes
    best = choices[0] if known else unclear or choices[-1]
    return _named(best, _declared(session, specs, best), outputs, asked)


def _named(axes: BatchAxes, found: Choice, names: Sequence[str], asked: Choice) -> BatchAxes:
    """The axes with those of outputs and labels."""
    outputs = {name: {**found, **asked}[name] for name in names if name in found or name in asked}
    labels = {label_name(name): axis for name, axis in outputs.items()}
    if names and names[0] in outputs:
        labels[LABELS] = outputs[names[0]]
    labels |= {name: axis for name, axis in asked.items() if name.split(".")[0] == LABELS}
    return replace(axes, outputs=outputs, labels=labels)


def _declared(session: ort.InferenceSession, specs: Sequence[InputSpec], axes: BatchAxes) -> dict[str, Axis]:
    """The axes of outputs that have the name of the batch axis."""
    batch = batch_dims(specs, axes)
    return {
        output.name: next(axis for axis, dim in enumerate(output.shape) if dim in batch)
        for output in session.get_outputs()
        if any(dim in batch for dim in output.shape or ())
    }


@dataclass(frozen=True)
class _Verdict:
    """Whether axes are right (None: that cannot be told by runs on the inputs), and the axes of the outputs."""

    right: bool | None
    outputs: dict[str, Axis]


@dataclass(frozen=True)
class _Trial:
    session: ort.InferenceSession
    specs: Sequence[InputSpec]
    axes: BatchAxes
    shapes: Mapping[str, Sequence[int]]
    patience: float | None

    def verdict(self) -> _Verdict:
        size = self.axes.size
        if size == 1:
            # A run is one sample, wherever it lies; axes that cannot be told come before none.
            return _Verdict(None if self.axes.whole else True, {})
        specs = sized(self.specs, self.shapes, self.axes)
        for free in FREE_SIZES:
            try:
                batch = random_data(specs, self.axes, free, 0, size or SAMPLES).read()
                outputs = self._run(batch)
            except DataError:
                continue
            if drawn(self.session):
                # Two runs differ in any case.
                return _Verdict(None, {})
            return self._by_singles(batch, outputs) if size is None else self._by_change(batch, outputs)
        return _Verdict(None, {})

    def _run(self, batch: Batch) -> list[Any]:
        return run_feeds(self.session, batch.feeds(), WHAT, self.patience)

    def _by_singles(self, batch: Batch, outputs: list[Any]) -> _Verdict:
        """Compare the run of all samples with runs of single ones."""
        try:
            singles = [self._run(batch.take(slice(place, place + 1))) for place in range(len(batch))]
        except DataError:
            return _Verdict(False, {})
        found: dict[str, Axis] = {}
        for output, together, parts in zip(
            self.session.get_outputs(), outputs, zip(*singles, strict=True), strict=True
        ):
            if not isinstance(together, np.ndarray):
                continue
            axis = _growing(together.shape, parts[0].shape)
            if axis is None:
                found[output.name] = None
                continue
            apart = _concatenated(parts, axis)
            if apart is None or _difference(together, apart) > TOLERANCE * _spread(apart, axis):
                return _Verdict(False, {})
            found[output.name] = axis if together.shape[axis] == len(batch) else None
        return _Verdict(any(axis is not None for axis in found.values()) or not found, found)

    def _by_change(self, batch: Batch, outputs: list[Any]) -> _Verdict:
        """Change one sample, and see what follows."""
        changed = self._run(self._with_another_first(batch))
        found: dict[str, Axis] = {}
        moved = False
        for output, old, new in zip(self.session.get_outputs(), outputs, changed, strict=True):
            if not isinstance(old, np.ndarray) or old.shape != new.shape:
                continue
            change = _difference(old, new)
            if not change:
                continue
            moved = True
            axis = next(
                (
                    axis
                    for axis, size in enumerate(old.shape)
                    if size == len(batch)
                    and _difference(*(np.moveaxis(each, axis, 0)[1:] for each in (old, new)))
                    <= TOLERANCE * change
                ),
                None,
            )
            if axis is None:
                return _Verdict(False, {})
            found[output.name] = axis
        return _Verdict(True if moved else None, found)

    def _with_another_first(self, batch: Batch) -> Batch:
        """The batch with another first sample; random values are between 0 and 1."""
        inputs = {
            name: array
            if self.axes.of(name) is None
            else np.concatenate([(1 - array[:1].astype(np.float64)).astype(array.dtype), array[1:]])
            for name, array in batch.inputs.items()
        }
        return replace(batch, inputs=inputs)


def _growing(together: Sequence[int], single: Sequence[int]) -> int | None:
    """The only axis of an output that is longer for more samples."""
    if len(together) != len(single):
        return None
    axes = [axis for axis, pair in enumerate(zip(together, single, strict=True)) if pair[0] != pair[1]]
    return axes[0] if len(axes) == 1 else None


def _concatenated(parts: Sequence[np.ndarray], axis: int) -> np.ndarray | None:
    try:
        return np.concatenate(parts, axis)
    except ValueError:
        return None


def _spread(output: np.ndarray, axis: int) -> float:
    """How far the outputs for samples are from each other, or where they are alike, a rounding error."""
    rounding = 1e-3 * _difference(output, np.zeros_like(output)) if output.dtype.kind == "f" else 0.0
    return max(_difference(output, np.roll(output, 1, axis)), rounding)


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two arrays; infinite where their shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind not in "fiub":
        return float((one != other).any())
    with np.errstate(all="ignore"):
        moved = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(np.nan_to_num(moved, nan=0.0).max(initial=0.0))
