"""Every model of onnx.backend.test, as it is and with its inputs of two axes and more as constants."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

import onnxprune
from onnxprune.errors import DataError, ModelFileError, NothingToPruneError

PRUNED, NOTHING, NOT_RUN, RANDOM = (
    "equal; pruned",
    "equal; nothing to prune",
    "onnxruntime does not run it",
    "gives other outputs each time",
)
KINDS = ("node", "simple", "light", "pytorch-converted", "pytorch-operator")
FORMS = ("ops", "dense", "coo")

Inputs = dict[str, Any]
Case = tuple[str, onnx.ModelProto, Inputs]


def cases(kind: str, stride: int = 1) -> Iterator[Case]:
    """Every so many models of a kind: the name, the model, and its inputs by name."""
    if kind == "light":
        yield from _light(stride)
        return
    for case in sorted(load_model_tests(kind=kind), key=lambda case: case.name)[::stride]:
        model = onnx.load(os.path.join(case.model_dir, "model.onnx")) if case.model is None else case.model
        names = _given(model)
        data = case.data_sets[0][0] if case.data_sets else _stored_inputs(case.model_dir, len(names))
        yield case.name, model, dict(zip(names, data, strict=False))


def _given(model: onnx.ModelProto) -> list[str]:
    """The names of the inputs without a value of their own: old files list initializers among the inputs."""
    constant = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in constant]


def _stored_inputs(folder: str, count: int) -> Iterator[np.ndarray]:
    for index in range(count):
        yield numpy_helper.to_array(
            onnx.load_tensor(os.path.join(folder, f"test_data_set_0/input_{index}.pb"))
        )


def _light(stride: int) -> Iterator[Case]:
    """Whole networks, whose weights their files make from shapes: they take seconds each, so all of them or none."""
    folder = Path(onnx.__file__).parent / "backend/test/data/light"
    for path in sorted(folder.glob("*.onnx")) if stride == 1 else ():
        model = onnx.load(path)
        shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in model.graph.input
        }
        random = np.random.default_rng(0)
        inputs = {name: random.random(shapes[name], np.float32) for name in _given(model)}
        yield path.stem, model, inputs


def with_constants(model: onnx.ModelProto, inputs: Inputs) -> tuple[onnx.ModelProto, Inputs] | None:
    """The model with its inputs after the first that have two axes or more as initializers; None without any."""
    first = model.graph.input[0].name if model.graph.input else None
    constant = {
        name: array
        for name, array in inputs.items()
        if name != first and isinstance(array, np.ndarray) and array.ndim >= 2
    }
    if not constant:
        return None
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for name, array in constant.items():
        changed.graph.initializer.append(numpy_helper.from_array(array, name))
    left = [value for value in changed.graph.input if value.name not in constant]
    del changed.graph.input[:]
    changed.graph.input.extend(left)
    return changed, {name: array for name, array in inputs.items() if name not in constant}


def outputs(model: onnx.ModelProto, inputs: Inputs) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray) and one.dtype.kind == "f":
        return one.shape == other.shape and np.array_equal(one, other, equal_nan=True)
    return np.array_equal(one, other)


def outcome(model: onnx.ModelProto, inputs: Inputs, form: str) -> str:
    """What became of a model at rate 0 and at rate 0.5, in a word."""
    try:
        before = outputs(model, inputs)
    except Exception:
        return NOT_RUN
    job = partial(onnxprune.prune, model, eval_data=inputs or None, format=form)
    try:
        after = job(rate=0.0).model
    except (ModelFileError, DataError) as error:
        return f"refused: {error}"
    # What is random in the model is random in both.
    if not same(before, outputs(model, inputs)):
        return RANDOM
    assert same(before, outputs(after, inputs))
    try:
        pruned = job(rate=0.5).model
    except NothingToPruneError:
        return NOTHING
    if form != "coo":
        onnx.checker.check_model(pruned, full_check=True)
    outputs(pruned, inputs)
    return PRUNED


def outcomes(kind: str, stride: int = 1) -> Iterator[tuple[str, str]]:
    """What became of each model of a kind, in the formats by turns; an error that is none of ours is "wrong: ..."."""
    for number, (name, model, inputs) in enumerate(cases(kind, stride)):
        variants = [(name, model, inputs)]
        if kind == "node" and (changed := with_constants(model, inputs)) is not None:
            variants.append((f"{name}, constants", *changed))
        for variant, proto, given in variants:
            try:
                yield variant, outcome(proto, given, FORMS[number % len(FORMS)])
            except Exception as error:
                yield variant, f"wrong: {type(error).__name__}: {str(error)[:300]}"


def counts(found: dict[str, str]) -> Counter[str]:
    """How often each outcome was found, the reasons of refusals apart."""
    return Counter(result.split(":")[0] for result in found.values())
