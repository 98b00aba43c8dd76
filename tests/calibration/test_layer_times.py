"""How long layers take: which are timed, with which channels, and what is made of it."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.calibration import layer_times
from onnxprune.calibration.layer_times import LayerTime, time_layers
from onnxprune.data.batch import Batch
from onnxprune.model.weights import find_weights
from tests.builders import normal
from tests.surgery.oracle import model

CONVOLUTIONS = """(float[N,3,8,8] x) => (float[N,5] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) b = Conv<pads=[1,1,1,1]>(r, w2) c = Conv<pads=[1,1,1,1]>(b, w3)
    d = Conv<group=4>(c, w4) p = GlobalAveragePool(d) f = Flatten(p) y = Gemm(f, w5, b5) }"""
WEIGHTS = {
    "w1": normal(32, 3, 3, 3), "b1": normal(32), "w2": normal(32, 32, 3, 3), "w3": normal(32, 32, 3, 3),
    "w4": normal(64, 8, 3, 3), "w5": normal(64, 5), "b5": normal(1, 5),
}  # fmt: skip
IMAGE = {"x": normal(1, 3, 8, 8)}


@pytest.fixture
def timed(monkeypatch) -> list[dict]:
    """The layers that were run, each checked to run, with a second, two, three, ... as their times."""
    shapes: list[dict] = []
    run = layer_times._Cut.run

    def noted(cut, model):
        made = run(cut, model)
        read = {value.name: tuple(cut._read(value).shape) for value in cut.visit.node.inputs if value}
        shapes.append(read | {"group": cut.groups})
        return made

    monkeypatch.setattr(layer_times._Cut, "run", noted)
    count = itertools.count(1)
    monkeypatch.setattr(layer_times, "quickest", lambda run, seconds: float(next(count)))
    monkeypatch.setattr(layer_times, "ROUNDS", 1)
    return shapes


def times(text: str, weights: dict, feeds: dict) -> dict[str, LayerTime]:
    made = ir.from_proto(model(text, **weights))
    return time_layers(made, find_weights(made).prunable, Batch(feeds))


def test_each_weight_has_a_time_for_fewer_inputs_and_fewer_outputs():
    found = times(CONVOLUTIONS, WEIGHTS, IMAGE)
    assert list(found) == ["w1", "w2", "w3", "w4", "w5"]
    sizes = {
        name: {axis: list(curve[0]) for axis, curve in time.parts.items()} for name, time in found.items()
    }
    assert sizes == {
        "w1": {0: [8, 16, 24, 32]},
        "w2": {0: [8, 16, 24, 32], 1: [8, 16, 24, 32]},
        "w3": {0: [8, 16, 24, 32], 1: [8, 16, 24, 32]},
        "w4": {0: [16, 32, 48, 64]},
        "w5": {0: [8, 16, 24, 32, 40, 48, 56, 64]},
    }
    for time in found.values():
        assert 0 < time.seconds < 1
        for _, parts in time.parts.values():
            assert list(parts) == sorted(parts) and parts[-1] == 1 and parts[0] > 0


def test_layers_are_cut_on_both_sides_with_bias_and_groups_and_those_of_one_kind_run_once(timed):
    found = times(CONVOLUTIONS, WEIGHTS, IMAGE)
    assert found["w2"] == LayerTime(found["w3"].seconds, (32, 32, 3, 3), found["w3"].parts)
    reading = [{name: shape for name, shape in read.items() if shape} for read in timed]
    assert {"x": (1, 3, 8, 8), "w1": (8, 3, 3, 3), "b1": (8,)} in reading
    assert {"r": (1, 32, 8, 8), "w2": (16, 32, 3, 3)} in reading
    assert {"r": (1, 16, 8, 8), "w2": (32, 16, 3, 3)} in reading
    assert not any("w3" in read for read in reading)
    assert {"c": (1, 16, 8, 8), "w4": (32, 8, 3, 3), "group": 2} in reading
    assert {"f": (1, 24), "w5": (24, 5), "b5": (1, 5)} in reading


def test_a_computed_bias_is_cut_with_the_outputs(timed, capfd):
    text = """(float[N,3,8,8] x) => (float[N,32,6,6] y) {
        m = ReduceMean<keepdims=0>(x) b = Mul(b1, m) y = Conv(x, w1, b) }"""
    found = times(text, WEIGHTS, IMAGE)
    assert list(found["w1"].parts[0][0]) == [8, 16, 24, 32]
    assert {"x": (1, 3, 8, 8), "w1": (8, 3, 3, 3), "b": (8,), "group": None} in timed
    assert "Error" not in capfd.readouterr().err


def test_products_are_cut_along_the_axis_that_they_sum_over(timed):
    text = """(float[N,6,32] x) => (float[16,16] y) {
        a = MatMul(x, right) b = MatMul(left, a) f = Reshape(b, shape) y = Gemm<transA=1, transB=1>(f, square) }"""
    weights = {
        "right": normal(32, 16), "left": normal(16, 6), "shape": np.array([16, 16]), "square": normal(16, 16),
    }  # fmt: skip
    times(text, weights, {"x": normal(1, 6, 32)})
    reading = [{name: shape for name, shape in read.items() if shape} for read in timed]
    assert {"x": (1, 6, 8), "right": (8, 16)} in reading and {"x": (1, 6, 32), "right": (32, 8)} in reading
    assert {"left": (8, 6), "a": (1, 6, 16)} in reading
    assert {"f": (8, 16), "square": (16, 8)} in reading and {"f": (16, 16), "square": (8, 16)} in reading


def test_layers_that_do_not_run_with_fewer_channels_are_timed_with_the_others(monkeypatch):
    # The bias stays as it is, and does not fit.
    monkeypatch.setattr(layer_times, "_first_computed", lambda *cut: {})
    text = """(float[N,3,8,8] x) => (float[N,32,8,8] y) {
        c = Abs(b) a = Conv(x, w1, c) y = Conv(a, w2) }"""
    found = times(text, {"w1": normal(32, 3, 1, 1), "w2": normal(32, 32, 1, 1), "b": normal(32)}, IMAGE)
    assert not found["w1"].parts and found["w1"].at((16, 3, 1, 1)) == found["w1"].seconds / 2
    assert set(found["w2"].parts) == {0, 1}


def test_weights_of_one_layer_share_its_time_by_elements(timed):
    text = """(float[T,1,4] x) => (float[T,1,1,8] y) { y, h, c = LSTM<hidden_size=8>(x, w, r) }"""
    found = times(text, {"w": normal(1, 32, 4), "r": normal(1, 32, 8)}, {"x": normal(1, 5, 4)[0][:, None]})
    assert found["w"].seconds + found["r"].seconds == 1 and not found["w"].parts
    assert found["r"].at((1, 32, 8)) == pytest.approx(2 / 3)
    assert found["r"].at((1, 16, 4)) == pytest.approx(2 / 3 / 4)


def test_a_layer_in_steps_costs_what_was_measured_and_between_them_in_proportion():
    time = LayerTime(2.0, (32, 16), {0: ([8, 16, 32], [0.5, 0.5, 1.0]), 1: ([8, 16], [0.25, 1.0])})
    assert [time.at((size, 16)) for size in (4, 8, 12, 16, 24, 32)] == [1, 1, 1, 1, 1.5, 2]
    assert time.at((16, 8)) == 0.25


def test_fewer_channels_never_cost_more(monkeypatch, timed):
    seconds = iter([1.0, 9.0, 0.5, 2.0])
    monkeypatch.setattr(layer_times, "quickest", lambda run, least: next(seconds))
    text = "(float[N,3,8,8] x) => (float[N,32,8,8] y) { y = Conv<pads=[1,1,1,1]>(x, w1) }"
    (time,) = times(text, {"w1": WEIGHTS["w1"]}, IMAGE).values()
    assert time.parts == {0: ([8, 16, 24, 32], [0.5, 0.5, 1.0, 1.0])}
