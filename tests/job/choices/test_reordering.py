"""Channels are put into an order for patterns of neighboring weights before anything is pruned."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

import onnxprune
from onnxprune.job.choices import reordering
from tests.builders import floats, initializer, model_of, normal

HIDDEN, OUTSIDE = 32, 8
NOTE = "were reordered, so that --pattern {} removes"
PATTERNS = ("1x4", "4x1", "2:4")


def scattered(pattern: str) -> np.ndarray:
    """A (hidden, outside) weight that loses nothing by the pattern, at half of the weights, in another order."""
    rng = np.random.default_rng(0)
    kept = np.tile([True, True, False, False], HIDDEN // 4)[:, None].repeat(OUTSIDE, axis=1)
    if pattern != "2:4":
        # Half of the blocks of every column, others for each.
        columns = [np.repeat(rng.permutation(HIDDEN // 4) < HIDDEN // 8, 4) for _ in range(OUTSIDE)]
        kept = np.stack(columns, axis=1)
    weight = kept * rng.uniform(0.5, 1.5, kept.shape) * rng.choice([-1, 1], kept.shape)
    return weight[rng.permutation(HIDDEN)].astype(np.float32)


def model_with(pattern: str) -> tuple[onnx.ModelProto, str]:
    """An MLP in which the pattern fits one weight in another order of the hidden neurons, and that weight's name."""
    first, second = normal(OUTSIDE, HIDDEN), normal(HIDDEN, OUTSIDE)
    if pattern == "4x1":
        first = scattered(pattern).T.copy()
    else:
        second = scattered(pattern)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Add", ["a", "bias"], ["s"]),
        helper.make_node("Relu", ["s"], ["h"]),
        helper.make_node("MatMul", ["h", "second"], ["y"]),
    ]
    weights = {"first": first, "bias": normal(HIDDEN), "second": second}
    model = model_of(nodes, [floats("x", "N", OUTSIDE)], [floats("y", "N", OUTSIDE)], weights)
    return model, "first" if pattern == "4x1" else "second"


def outputs(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": normal(64, OUTSIDE, seed=9)})[0]


def pruned(model: onnx.ModelProto, pattern: str, **settings: object) -> onnxprune.Result:
    return onnxprune.prune(
        model, rate=0.5, pattern=pattern, allocation="uniform", format="dense", remove_dead=False, **settings
    )


def share_lost(result: onnxprune.Result, model: onnx.ModelProto, name: str) -> float:
    before, after = initializer(model, name), initializer(result.model, name)
    return 1 - float(np.square(after).sum() / np.square(before).sum())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_pattern_loses_less_in_the_order_that_is_found(pattern):
    model, name = model_with(pattern)
    result, as_it_is = pruned(model, pattern), pruned(model, pattern, reorder=False)
    assert any(NOTE.format(pattern) in note for note in result.report.notes)
    assert not any("were reordered" in note for note in as_it_is.report.notes)
    assert share_lost(result, model, name) < 0.7 * share_lost(as_it_is, model, name)
    assert (
        np.square(outputs(result.model) - outputs(model)).sum()
        < np.square(outputs(as_it_is.model) - outputs(model)).sum()
    )


def test_some_rows_say_how_channels_are_used(monkeypatch):
    monkeypatch.setattr(reordering, "MOST_ROWS", OUTSIDE // 2)
    model, name = model_with("2:4")
    assert share_lost(pruned(model, "2:4"), model, name) < 0.02


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_kept_is_what_was_there_under_another_number(pattern):
    model, _ = model_with(pattern)
    result = pruned(model, pattern)
    bias = list(initializer(model, "bias"))
    order = [bias.index(number) for number in initializer(result.model, "bias")]
    assert order != sorted(order) and sorted(order) == list(range(HIDDEN))
    for name, axis in (("first", 1), ("second", 0)):
        before, after = np.take(initializer(model, name), order, axis), initializer(result.model, name)
        np.testing.assert_array_equal(after, np.where(after != 0, before, 0))


def test_inputs_that_are_small_make_their_weights_matter_less():
    model, _ = model_with("1x4")
    # Half of the neurons give next to nothing, whatever their weights are.
    scale = np.tile([1, 1e-4], HIDDEN // 2).astype(np.float32)
    tensors = {name: initializer(model, name).copy() for name in ("first", "bias", "second")}
    tensors["first"], tensors["bias"] = tensors["first"] * scale, tensors["bias"] * scale
    tensors["second"] = normal(HIDDEN, OUTSIDE)
    quiet = model_of(model.graph.node, model.graph.input, model.graph.output, tensors)
    samples = {"x": normal(64, OUTSIDE, seed=3)}
    result = pruned(quiet, "1x4", calibration_data=samples, reconstruct=False)
    loud = np.abs(initializer(result.model, "bias")) > 1e-2
    assert (initializer(result.model, "second") != 0)[loud].mean() > 0.9
    as_it_is = pruned(quiet, "1x4", calibration_data=samples, reconstruct=False, reorder=False)
    assert (initializer(as_it_is.model, "second") != 0)[::2].mean() < 0.7


@pytest.mark.parametrize(
    "settings", [{"exclude": ["first"]}, {"exclude": ["second"]}, {"reorder": False}, {"evaluate": False}]
)
def test_the_order_stays_where_it_is_asked_for(settings):
    model, _ = model_with("1x4")
    np.testing.assert_array_equal(
        initializer(pruned(model, "1x4", **settings).model, "bias"), initializer(model, "bias")
    )


def test_the_order_stays_at_rate_zero_and_for_single_weights():
    model, _ = model_with("1x4")
    for settings in ({"rate": 0.0, "pattern": "1x4"}, {"rate": 0.5}):
        result = onnxprune.prune(model, **settings, format="dense", remove_dead=False)
        np.testing.assert_array_equal(initializer(result.model, "bias"), initializer(model, "bias"))


def test_the_order_stays_if_the_outputs_would_change(monkeypatch):
    monkeypatch.setattr(reordering, "same_outputs", lambda *_: False)
    model, _ = model_with("1x4")
    result = pruned(model, "1x4")
    np.testing.assert_array_equal(initializer(result.model, "bias"), initializer(model, "bias"))
    assert not any("were reordered" in note for note in result.report.notes)
