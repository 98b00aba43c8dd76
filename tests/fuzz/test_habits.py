"""Habits of real models x commands x options: a valid file and finite outputs, or one sentence that says why not."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import onnxprune
from onnxprune.errors import OnnxPruneError
from tests.fuzz.habits import HABITS, Habit

LONG = bool(os.environ.get("ONNXPRUNE_LONG"))
TOLERANCE = 1e-4
# Operators that draw random numbers.
DRAWN = ("RandomNormalLike", "Bernoulli")

Job = Callable[[Habit, Path], onnx.ModelProto | None]


def _pruned(**settings) -> Job:
    def job(habit: Habit, folder: Path) -> onnx.ModelProto:
        out = folder / "out.onnx"
        given = {key: str(folder / "data.npz") for key, value in settings.items() if value is DATA}
        more = habit.settings if given else {}
        onnxprune.prune(folder / "in.onnx", out, **(settings | given | more))
        return onnx.load(out)

    return job


def _inspected(habit: Habit, folder: Path) -> None:
    onnxprune.inspect(folder / "in.onnx")


def _scanned(habit: Habit, folder: Path) -> None:
    onnxprune.sensitivity(folder / "in.onnx", str(folder / "data.npz"), rates=(0.5,), **habit.settings)


def _compared(habit: Habit, folder: Path) -> None:
    """A model beside itself: no output moves."""
    found = onnxprune.compare(
        folder / "in.onnx", folder / "in.onnx", data=str(folder / "data.npz"), **habit.settings
    )
    for output in found.outputs:
        assert output.mismatched == 0 and output.cosine == pytest.approx(1), output
    assert found.drop() == 0


def _compared_on_random(habit: Habit, folder: Path) -> None:
    assert not any(
        output.mismatched for output in onnxprune.compare(folder / "in.onnx", folder / "in.onnx").outputs
    )


def _retrained(habit: Habit, folder: Path) -> onnx.ModelProto:
    onnxprune.prune(folder / "in.onnx", folder / "half.onnx", rate=0.5)
    onnxprune.retrain(
        folder / "half.onnx", folder / "out.onnx", data=str(folder / "data.npz"), epochs=1, **habit.settings
    )
    return onnx.load(folder / "out.onnx")


def _as_torch(habit: Habit, folder: Path) -> None:
    """The module computes what onnxruntime does."""
    module = onnxprune.to_torch(folder / "in.onnx")
    feeds = _feeds(habit.model, habit)
    with torch.no_grad():
        given = [feeds[name] for name in module.meta["inputs"]]
        results = module(
            *(array if array.dtype.kind == "U" else torch.from_numpy(array.copy()) for array in given)
        )
    for expected, result in zip(_session(habit.model).run(None, feeds), results, strict=True):
        if expected.dtype.kind in "fi" and not any(node.op_type in DRAWN for node in habit.model.graph.node):
            tolerance = 100 * TOLERANCE if expected.dtype == np.float16 else TOLERANCE
            np.testing.assert_allclose(result, expected, tolerance, tolerance)


DATA = object()
JOBS: dict[str, Job] = {
    "inspect": _inspected,
    "one-shot": _pruned(rate=0.8),
    "channel": _pruned(rate=0.3, pattern="channel"),
    "2:4": _pruned(rate=0.5, pattern="2:4"),
    "1x4": _pruned(rate=0.5, pattern="1x4"),
    "dense": _pruned(rate=0.5, format="dense"),
    "ops": _pruned(rate=0.5, format="ops"),
    "coo": _pruned(rate=0.5, format="coo"),
    "calibrated": _pruned(rate=0.5, calibration_data=DATA),
    "calibrated channels": _pruned(rate=0.3, pattern="channel", calibration_data=DATA, reconstruct=True),
    "one epoch": _pruned(rate=0.5, data=DATA, epochs=1),
    "one epoch of channels": _pruned(rate=0.3, pattern="channel", data=DATA, epochs=1),
    "synthetic": _pruned(rate=0.5, data="synthetic", epochs=1),
    "evaluated": _pruned(rate=0.5, eval_data=DATA),
    "int8": _pruned(rate=0.5, calibration_data=DATA, quantize="int8"),
    "sensitivity": _scanned,
    "compare": _compared,
    "compare on random inputs": _compared_on_random,
    "retrain": _retrained,
    "to_torch": _as_torch,
    "nothing": _pruned(rate=0.0),
}
EVERY_PAIR = [(kind, job) for kind in HABITS for job in JOBS]
# The ordinary suite runs each habit once, by the jobs in turn.
PAIRS = EVERY_PAIR if LONG else list(zip(HABITS, itertools.cycle(JOBS), strict=False))
# Kinds in which there is nothing to prune; every other one is pruned in one step.
WEIGHTLESS = ("no weights", "empty graph")


def _saved(habit: Habit, folder: Path) -> None:
    onnx.save(habit.model, folder / "in.onnx")
    labels = {} if habit.labels is None else {"labels": habit.labels}
    np.savez(folder / "data.npz", **habit.inputs, **labels)


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _feeds(model: onnx.ModelProto, habit: Habit) -> dict[str, np.ndarray]:
    """The first sample, or all of them, as the model's inputs take them."""
    listed = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name in listed:
            continue
        given = np.asarray(habit.inputs[value.name])
        dims = value.type.tensor_type.shape.dim
        if habit.settings:
            feeds[value.name] = given
        elif len(dims) < given.ndim or not len(dims):
            feeds[value.name] = np.asarray(given[0])
        elif "N" in [dim.dim_param for dim in dims[1:]]:
            axis = [dim.dim_param for dim in dims].index("N")
            feeds[value.name] = np.moveaxis(given, 0, axis)
        elif dims[0].dim_value == 1:
            feeds[value.name] = given[:1]
        else:
            feeds[value.name] = given
    return feeds


@pytest.mark.parametrize(("kind", "job"), PAIRS, ids=[f"{kind}: {job}" for kind, job in PAIRS])
def test_a_habit_is_pruned_soundly_or_refused_in_one_sentence(kind, job, tmp_path, capfd):
    habit = HABITS[kind]()
    _saved(habit, tmp_path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            written = JOBS[job](habit, tmp_path)
    except OnnxPruneError as error:
        assert "\n" not in str(error) and len(str(error)) > 20, error
        assert not (tmp_path / "out.onnx").exists()
        assert job != "one-shot" or kind in WEIGHTLESS, error
        return
    finally:
        shown = capfd.readouterr()
        assert not list(tmp_path.glob(".onnxprune*"))
    assert not shown.out and not shown.err, shown
    if written is not None:
        drawn = any(node.op_type in DRAWN for node in habit.model.graph.node)
        _check_outputs(habit, written, same=job == "nothing" and not drawn)


def _check_outputs(habit: Habit, written: onnx.ModelProto, *, same: bool) -> None:
    """The written model runs, with outputs of the same types, finite where the input model's are; `same`: as these."""
    feeds = _feeds(habit.model, habit)
    for old, new in zip(
        _session(habit.model).run(None, feeds), _session(written).run(None, feeds), strict=True
    ):
        assert type(old) is type(new)
        if not isinstance(old, np.ndarray):
            continue
        assert old.dtype == new.dtype and old.ndim == new.ndim
        if old.dtype.kind == "f" and np.isfinite(old).all():
            assert np.isfinite(new).all()
        if same and old.dtype.kind in "fiu":
            np.testing.assert_allclose(new, old, TOLERANCE, TOLERANCE)
        elif same:
            assert np.array_equal(old, new)
