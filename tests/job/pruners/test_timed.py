"""Channels for a share of the latency: what is tried, what is kept, and --latency through the whole job."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest

import onnxprune
from onnxprune.data.batch import Batch
from onnxprune.errors import SettingError
from onnxprune.job import measure
from onnxprune.job.pruners.timed import MOST_TRIED, NEAR, UNSAVED, Clock, within_time
from onnxprune.job.pruners.work import Work, latency_work
from onnxprune.model.weights import Weight, find_weights
from onnxprune.pruning.channel_costs import Cost
from onnxprune.pruning.channels import Choice
from onnxprune.runtime.timing import Timing
from onnxprune.sparse.opening import open_model
from onnxprune.surgery import UnitGroups, remove_units, unit_groups
from tests.builders import cnn, normal
from tests.job.choices.test_rounding import convolutions
from tests.surgery.oracle import model

CHANNELS = 1000


def chosen(share: float) -> Choice:
    """So many of the channels stay."""
    return Choice(np.arange(round(CHANNELS * (1 - share))), share, 1.0, {}, 0)


def takes(of_channels: Callable[[float], float], tried: list[float]) -> Callable[[np.ndarray], Timing]:
    """A clock: the latency of a model with a part of its channels."""

    def time(gone: np.ndarray) -> Timing:
        left = 1 - len(gone) / CHANNELS
        tried.append(left)
        seconds = of_channels(left)
        return Timing(1.0, seconds, 1 / seconds)

    return time


@pytest.mark.parametrize("asked", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    "of_channels",
    [
        lambda left: left,
        lambda left: 0.2 + 0.8 * left,
        lambda left: left**2,
        lambda left: max(left**0.5 - 0.1 * (1 - left), 0.05),
    ],
)
def test_the_share_is_met_and_not_missed_by_much(of_channels, asked):
    tried: list[float] = []
    share, choice, timing, least = within_time(chosen, takes(of_channels, tried), asked, asked)
    assert least is None
    assert asked - NEAR <= timing.other / timing.dense <= asked
    assert len(tried) <= MOST_TRIED and np.array_equal(choice.chosen, chosen(share).chosen)


def test_in_steps_the_nearest_one_below_is_taken_and_timed_once():
    tried: list[float] = []
    steps = takes(lambda left: np.ceil(left * 4) / 4, tried)
    stepped = lambda share: chosen(np.floor(share * 4) / 4)  # noqa: E731
    timing = within_time(stepped, steps, 0.6, 0.6).timing
    assert timing.other == 0.5 and len(tried) == len(set(tried))


def test_between_parts_that_choose_the_same_a_nearer_one_is_found():
    tried: list[float] = []
    kept = lambda share: 0.6 if share >= 0.57 else 0.45 if share >= 0.55 else 0.2  # noqa: E731
    timing = within_time(lambda share: chosen(kept(share)), takes(lambda left: left, tried), 0.5, 0.5).timing
    assert timing.other == pytest.approx(0.45) and len(tried) == len(set(tried))


@pytest.mark.parametrize("begin", [0.3, 0.9])
@pytest.mark.parametrize(
    ("of_channels", "least", "fewest"),
    [
        # As many go as the last of them save in proportion.
        (lambda left: 0.5 + 0.5 * left, 0.5, 0.02),
        # What saves nothing more stays.
        (lambda left: max(left, 0.5), 0.5, 0.5),
        (lambda left: 0.4 + 0.6 * left**4, 0.4, 0.38),
    ],
)
def test_out_of_reach_nearly_all_is_saved_that_can_be_and_no_more_channels_go(
    of_channels, least, fewest, begin
):
    tried: list[float] = []
    found = within_time(chosen, takes(of_channels, tried), 0.3, begin)
    assert found.least is not None and found.least[1].other == least and len(tried) <= MOST_TRIED
    assert least <= found.timing.other <= least + max(UNSAVED * (1 - least), NEAR)
    assert 1 - len(found.choice.chosen) / CHANNELS >= fewest


def test_where_the_first_choice_is_all_that_may_go_those_that_save_nothing_come_back():
    limited = lambda share: chosen(max(share, 0.12))  # noqa: E731
    tried: list[float] = []
    found = within_time(limited, takes(lambda left: max(left, 0.5), tried), 0.1, 0.1)
    assert found.least is not None and 1 - len(found.choice.chosen) / CHANNELS >= 0.5
    assert found.timing.other <= 0.525 and len(tried) <= MOST_TRIED


@pytest.mark.parametrize("floor", [1.0, 1 - NEAR / 2])
def test_where_fewer_channels_are_no_faster_all_stay(floor):
    found = within_time(chosen, takes(lambda left: floor + (1 - floor) * left, []), 0.3, 0.3)
    assert not len(found.choice.chosen) and found.timing.other == 1
    slower = within_time(chosen, takes(lambda left: 1.2 - 0.2 * left, []), 0.3, 0.3)
    assert not len(slower.choice.chosen) and slower.timing.other == 1


def test_without_any_channel_gone_the_model_takes_its_own_time():
    model = ir.from_proto(cnn())
    clock = Clock(model, unit_groups(model), Batch({"x": normal(1, 1, 8, 8)}))
    timing = clock.time(np.zeros(0, np.int64))
    assert timing.dense == timing.other > 0 and timing.ratio == 1


def test_the_first_try_is_where_it_is_told_to_begin():
    tried: list[float] = []
    within_time(chosen, takes(lambda left: 0.2 + 0.8 * left, tried), 0.5, 0.37)
    assert tried[0] == pytest.approx(0.37) and len(tried) == 1


@pytest.fixture
def by_parameters(monkeypatch):
    """The latency of a model is taken to be a tenth and the rest by its parameters; that of a layer by its own."""

    def parameters(model: ir.Model) -> int:
        return sum(weight.size for weight in find_weights(model).prunable)

    def time(self, gone: np.ndarray) -> Timing:
        copy = self._model.clone()
        remove_units(copy, self._groups, gone)
        share = 0.1 + 0.9 * parameters(copy) / parameters(self._model)
        return Timing(1.0, share, 1 / share)

    def work(
        model: ir.Model, groups: UnitGroups, weights: Sequence[Weight], data: Batch, share: float
    ) -> Work:
        costs = [Cost.linear(weight.name) for weight in weights]
        shapes = {weight.name: weight.shape for weight in weights}
        return Work(share, parameters(model), costs, shapes, groups.positions)

    monkeypatch.setattr(Clock, "time", time)
    monkeypatch.setattr(measure, "latency_work", work)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"round_to": 4},
        {"calibration_data": {"x": normal(40, 3, 6, 6)}, "effort": "fast"},
        {"data": {"x": normal(64, 3, 6, 6), "labels": np.arange(64) % 5}, "epochs": 2, "schedule": "gradual",
         "criterion": "magnitude"},
    ],
)  # fmt: skip
def test_a_job_leaves_the_share_of_the_latency(by_parameters, settings):
    result = onnxprune.prune(convolutions(40, 64, 48), pattern="channel", latency=0.5, **settings)
    report = result.report
    left = 0.1 + 0.9 * report.pruned.nonzero / report.baseline.nonzero
    assert 0.4 < left <= 0.51
    note = next(note for note in report.notes if "of the latency of the input model" in note)
    said = re.match(r"The pruned model takes ([\d.]+)% of the latency", note)
    assert said and float(said[1]) / 100 == pytest.approx(left, abs=0.01) and "asks for" not in note


def test_a_share_out_of_reach_is_told_with_what_would_help(by_parameters):
    report = onnxprune.prune(convolutions(40, 64, 48), pattern="channel", latency=0.05).report
    note = next(note for note in report.notes if "of the latency of the input model" in note)
    assert "more than --latency 0.05 asks for: give a higher --max-channel-rate" in note
    assert note.endswith("or a larger --latency.")
    assert "--pattern unstructured" not in note


@pytest.mark.parametrize(("amount", "counts"), [("rate", False), ("flops", True), ("latency", True)])
def test_what_no_channel_holds_counts_towards_a_share_and_not_towards_a_rate(by_parameters, amount, counts):
    text = """(float[N,8] x) => (float[N,4] y, float[N,4] z) {
        h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) z = MatMul(x, c) }"""
    proto = model(text, a=normal(8, 32), b=normal(32, 4), c=normal(8, 4))
    notes = onnxprune.prune(proto, pattern="channel", **{amount: 0.5}).report.notes
    note = next(note for note in notes if "in no channel that can be removed" in note)
    assert note.startswith("7.7% of the weights") and ("--rate" in note) is not counts


def test_a_job_times_the_model_itself():
    report = onnxprune.prune(convolutions(32, 32), pattern="channel", latency=0.6).report
    assert any("of the latency of the input model" in note and "ms a run" in note for note in report.notes)
    assert all(np.isfinite(layer.kept) and layer.kept for layer in report.layers)


def test_the_work_of_a_model_is_that_of_its_layers():
    model = open_model(convolutions(40, 64, 48)).model
    weights = find_weights(model).prunable
    work = latency_work(model, unit_groups(model), weights, Batch({"x": normal(1, 3, 6, 6)}), 0.5)
    assert {cost.weights for cost in work.costs} == {(weight.name,) for weight in weights}
    whole = {weight.name: weight.shape for weight in weights}
    assert work.total == pytest.approx(sum(cost.at(whole) for cost in work.costs))
    narrow = {weight.name: tuple(max(1, size // 2) for size in weight.shape) for weight in weights}
    assert all(0 < cost.at(narrow) <= cost.at(whole) for cost in work.costs)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "--latency is for whole channels: give --pattern channel"),
        ({"pattern": "channel", "flops": 0.5}, "give exactly one of"),
        ({"pattern": "channel", "quantize": "int8", "calibration_data": normal(8, 1, 4, 4)}, "use --flops"),
        ({"pattern": "channel", "evaluate": False}, "remove --no-evaluate"),
        ({"pattern": "channel", "latency": 1.5}, "between 0 and 1"),
        (
            {"pattern": "channel", "data": {}, "checkpoint": "state.pt"},
            "remove --checkpoint, or give --flops",
        ),
    ],
)
def test_what_cannot_be_combined_is_refused(settings, words):
    with pytest.raises(SettingError, match=words):
        onnxprune.prune(cnn(), **{"latency": 0.5, **settings})


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match=r"--latency is measured by one process.* give --flops"):
        onnxprune.prune(cnn(), latency=0.5, pattern="channel")
