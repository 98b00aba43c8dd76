"""The multiple of channels that layers keep, where it is left open."""

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune.job import measure
from onnxprune.job.choices import rounding
from onnxprune.surgery import unit_groups
from tests.builders import floats, initializer, mlp, model_of, normal

NOTE = "keep a multiple of {}"


def convolutions(*widths: int) -> onnx.ModelProto:
    """Convolutions of these numbers of channels, and a Gemm."""
    nodes, weights, before, name = [], {}, 3, "x"
    for number, width in enumerate(widths):
        nodes.append(helper.make_node("Conv", [name, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        weights[f"w{number}"] = normal(width, before, 3, 3, seed=number)
        before, name = width, f"r{number}"
    nodes += [helper.make_node("GlobalAveragePool", [name], ["p"]), helper.make_node("Flatten", ["p"], ["f"])]
    nodes.append(helper.make_node("Gemm", ["f", "fc"], ["y"]))
    weights["fc"] = normal(before, 5)
    return model_of(nodes, [floats("x", "N", 3, 6, 6)], [floats("y", "N", 5)], weights)


def prune(model, **settings):
    return onnxprune.prune(model, pattern="channel", **settings)


def kept(result: onnxprune.Result) -> list[int]:
    return [layer["outputs_after"] for layer in result.report.surgery["layers"]]


def test_layers_of_a_convolutional_network_keep_multiples_of_eight():
    result = prune(convolutions(40, 64, 48), rate=0.5)
    assert result.report.settings["round_to"] == 8 and any(
        NOTE.format(8) in note for note in result.report.notes
    )
    assert all(count % 8 == 0 for count in kept(result)[:3]) and sum(kept(result)[:3]) < 152
    assert result.report.pruned.nonzero == pytest.approx(0.5 * result.report.baseline.nonzero, rel=0.04)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_the_share_of_the_multiply_adds_holds(share):
    result = prune(convolutions(40, 64, 48), flops=share)
    left = result.report.pruned.multiply_adds / result.report.baseline.multiply_adds
    assert result.report.settings["round_to"] > 1 and share - 0.05 <= left <= share


@pytest.mark.parametrize(("widths", "share", "number"), [((20, 20, 20), 0.4, 4), ((6, 6), 0.6, 1)])
def test_narrow_layers_keep_smaller_multiples_where_larger_ones_miss_the_rate(widths, share, number):
    result = prune(convolutions(*widths), flops=share)
    assert result.report.settings["round_to"] == number
    assert all(count % number == 0 for count in kept(result)[: len(widths)])
    assert (number > 1) == any(NOTE.format(number) in note for note in result.report.notes)
    assert result.report.pruned.multiply_adds < result.report.baseline.multiply_adds


def test_products_of_matrices_gain_nothing_by_it():
    report = prune(mlp(), rate=0.5, evaluate=False).report
    assert report.settings["round_to"] == 1 and not any("multiple" in note for note in report.notes)


@pytest.mark.parametrize("number", [1, 4])
def test_a_given_number_holds(number):
    result = prune(convolutions(40, 64, 48), rate=0.5, round_to=number)
    assert result.report.settings["round_to"] == number
    assert any(count % 8 for count in kept(result)[:3]) and not any(
        "multiple" in note for note in result.report.notes
    )


def test_a_layer_with_a_rate_of_its_own_keeps_it():
    result = prune(convolutions(40, 64, 48), rate=0.0, layer_rate={"w0": 0.25})
    assert initializer(result.model, "w0").shape[0] == 30


def test_a_training_names_the_number_among_what_it_has_chosen():
    data = {"x": normal(64, 3, 6, 6), "labels": np.arange(64) % 5}
    notes = prune(convolutions(40, 64, 48), rate=0.5, data=data, epochs=1, criterion="magnitude").report.notes
    assert "--round-to 8" in next(note for note in notes if note.startswith("Chosen for this job"))


def test_a_session_keeps_multiples_as_a_job_does():
    session = onnxprune.pruning_session(convolutions(40, 64, 48), 1, rate=0.5, pattern="channel")
    layers = [
        np.count_nonzero(initializer(session.finish(), name).any((1, 2, 3))) for name in ("w0", "w1", "w2")
    ]
    assert all(count % 8 == 0 for count in layers) and sum(layers) < 152


def test_a_multiple_that_no_layer_can_keep_is_refused():
    with pytest.raises(onnxprune.OnnxPruneError) as refused:
        prune(convolutions(40, 64, 48), rate=0.5, round_to=1000)
    text = str(refused.value)
    assert "--round-to 1000" in text and "'w1'" in text and "64" in text
    with pytest.raises(onnxprune.OnnxPruneError, match="--round-to 4 and --min-channels 64"):
        prune(convolutions(40, 64, 48), flops=0.5, round_to=4, min_channels=64)
    # The layers between stay as they are.
    assert kept(prune(convolutions(40, 64, 48), rate=0.5, round_to=45))[:3] == [40, 45, 45]
    assert initializer(prune(mlp(), rate=0.0, round_to=1000).model, "fc1.weight").shape[0] == 16


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"round_to": 8}, "--round-to is for whole channels"),
        ({"min_channels": 2, "round_to": 1}, "--round-to and --min-channels are for whole channels"),
        ({"max_channel_rate": 0.5, "pattern": "2:4"}, "--max-channel-rate is for whole channels"),
    ],
)
def test_settings_of_channels_alone_are_refused_without_channels(settings, named):
    with pytest.raises(onnxprune.OnnxPruneError, match=named):
        onnxprune.prune(mlp(), rate=0.5, **settings)


def test_a_preset_that_removes_channels_takes_them():
    result = onnxprune.prune(convolutions(40, 64, 48), rate=0.5, target="openvino", round_to=4)
    assert all(count % 4 == 0 for count in kept(result)[:3])


@pytest.mark.parametrize("settings", [{}, {"round_to": 4}, {"rate": None, "flops": 0.5}])
def test_channels_are_looked_at_once(settings, monkeypatch):
    calls = []

    def counted(model):
        calls.append(model)
        return unit_groups(model)

    for room in (rounding, measure):
        monkeypatch.setattr(room, "unit_groups", counted)
    prune(convolutions(40, 64, 48), **({"rate": 0.5} | settings))
    assert len(calls) == 1
