"""Channels chosen and compensated on calibration inputs, through the whole job."""

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune.errors import SettingError
from tests.builders import floats, initializer, model_of, normal


def redundant(seed: int = 0) -> onnx.ModelProto:
    """Conv, Relu, Conv, residual sum, pooling, Gemm; many channels of the first follow from the others."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((4, 3, 3, 3)) / 4
    mixed = np.concatenate([basis, rng.uniform(0.2, 1, (12, 4)) @ basis.reshape(4, -1)], axis=None)
    w1 = mixed.reshape(16, 3, 3, 3).astype(np.float32)
    weights = {
        "stem": normal(6, 3, 3, 3, seed=1) / 4,
        "stem_bias": normal(6, seed=2),
        "w1": np.concatenate([w1, w1], axis=1) / 2,
        "b1": np.abs(normal(16, seed=3)),
        "w2": normal(6, 16, 3, 3, seed=4) / 8,
        "b2": normal(6, seed=5),
        "fc": normal(6, 5, seed=6),
        "fc_bias": normal(5, seed=7),
    }
    nodes = [
        helper.make_node("Conv", ["x", "stem", "stem_bias"], ["s"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["s", "w1", "b1"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "w2", "b2"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["s", "c"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "fc_bias"], ["y"]),
    ]
    return model_of(nodes, [floats("x", "N", 3, 8, 8)], [floats("y", "N", 5)], weights)


CALIBRATION, TEST = {"x": normal(60, 3, 8, 8)}, {"x": normal(40, 3, 8, 8, seed=9)}


def deviation(result: onnxprune.Result) -> float:
    return 1 - result.report.evaluation["outputs"][0]["cosine"]


def channels(rate: float = 0.4, **settings):
    settings = {"calibration_data": CALIBRATION, "eval_data": TEST, **settings}
    return onnxprune.prune(redundant(), rate=rate, pattern="channel", **settings)


def test_compensated_channels_move_the_outputs_far_less_than_those_of_least_norm():
    by_norm = channels(calibration_data=None)
    assert deviation(channels()) < 0.2 * deviation(by_norm)
    fitted = channels(criterion="magnitude", allocation="uniform", reconstruct=True)
    assert deviation(channels(allocation="uniform")) < deviation(fitted) < deviation(by_norm)


def test_the_model_with_fewer_channels_equals_the_zeroed_one_in_onnxruntime(monkeypatch):
    small = channels().model
    monkeypatch.setattr("onnxprune.job.pipeline.remove_dead_units", lambda model: None)
    zeroed = channels().model
    outputs = [
        onnxprune.evaluation.sessions.make_session(model, "a model").run(None, TEST)[0]
        for model in (small, zeroed)
    ]
    assert sum(tensor.dims[0] for tensor in small.graph.initializer) < sum(
        tensor.dims[0] for tensor in zeroed.graph.initializer
    )
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("calibrated", [True, False])
def test_flops_are_the_share_of_multiply_adds_that_is_kept(calibrated):
    settings = {} if calibrated else {"calibration_data": None}
    report = channels(None, flops=0.6, **settings).report
    assert 0.5 * report.baseline.multiply_adds < report.pruned.multiply_adds
    assert report.pruned.multiply_adds <= 0.6 * report.baseline.multiply_adds


def test_limits_of_layers_hold_with_calibration_inputs():
    result = channels(0.8, max_channel_rate=0.5, round_to=4)
    kept = {tensor.name: tensor.dims[0] for tensor in result.model.graph.initializer}
    assert kept["w1"] == 8
    assert any("--max-channel-rate" in note for note in result.report.notes)


def test_a_layer_that_is_excluded_keeps_its_channels_and_its_values():
    model = redundant()
    result = channels(0.3, exclude=["fc"])
    given = {tensor.name: tensor for tensor in model.graph.initializer}
    for tensor in result.model.graph.initializer:
        if tensor.name in ("fc", "fc_bias"):
            np.testing.assert_array_equal(
                onnx.numpy_helper.to_array(tensor), onnx.numpy_helper.to_array(given[tensor.name])
            )


def test_wanda_is_not_for_channels():
    with pytest.raises(SettingError, match="single weights"):
        channels(criterion="wanda")


def test_a_norm_behind_a_layer_without_bias_takes_up_what_the_fit_leaves():
    weights = {
        "w1": normal(12, 3, 3, 3, seed=1) / 4,
        "w2": normal(6, 12, 3, 3, seed=2) / 8,
        "fc": normal(6, 5, seed=3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "s1", "b1", "m1", "v1"], ["b"]),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s2", "b2", "m2", "v2"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], ["y"]),
    ]
    for number, size in ((1, 12), (2, 6)):
        weights |= {
            f"s{number}": np.ones(size, np.float32),
            f"b{number}": normal(size, seed=number) / 2,
            f"m{number}": normal(size, seed=number + 5) / 4,
            f"v{number}": np.full(size, 0.5, np.float32),
        }
    model = model_of(nodes, [floats("x", "N", 3, 8, 8)], [floats("y", "N", 5)], weights)
    found = [
        onnxprune.prune(model, rate=0.3, pattern="channel", eval_data=TEST, exclude="fc", **settings)
        for settings in ({}, {"calibration_data": CALIBRATION})
    ]
    assert deviation(found[1]) < 0.3 * deviation(found[0])


@pytest.mark.parametrize("count", [1, 3, 11])
def test_few_inputs_are_enough_to_run(count):
    report = channels(0.2, calibration_data={"x": CALIBRATION["x"][:count]}).report
    assert report.pruned.parameters < report.baseline.parameters


@pytest.mark.parametrize("inputs", ["zeros", "one", "equal"])
@pytest.mark.parametrize("pattern", ["channel", "unstructured"])
def test_inputs_that_say_nothing_about_weights_leave_them_near_the_dense_ones(pattern, inputs):
    x = CALIBRATION["x"] + 1
    given = {"zeros": 0 * x, "one": x[:1], "equal": np.repeat(x[:1], 9, axis=0)}[inputs]
    settings = {"rate": 0.2, "pattern": pattern, "effort": "fast", "eval_data": {"x": x}}
    found = onnxprune.prune(redundant(), calibration_data={"x": given}, **settings)
    assert deviation(found) < 0.1


def test_a_model_of_a_fixed_batch_is_calibrated_in_whole_batches():
    model = redundant()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    settings = {"calibration_data": CALIBRATION, "eval_data": TEST}
    report = onnxprune.prune(model, rate=0.2, pattern="channel", **settings).report
    assert report.pruned.parameters < report.baseline.parameters


@pytest.mark.parametrize("calibrated", [True, False])
def test_flops_count_layers_that_are_excluded(calibrated):
    settings = {} if calibrated else {"calibration_data": None}
    report = channels(None, flops=0.8, exclude=["fc"], **settings).report
    assert 0.7 * report.baseline.multiply_adds < report.pruned.multiply_adds
    assert report.pruned.multiply_adds <= 0.8 * report.baseline.multiply_adds


def test_flops_out_of_reach_are_told_with_what_would_help():
    result = channels(None, flops=0.01)
    assert any(
        "more than --flops 0.01 asks for: give a higher --max-channel" in note for note in result.report.notes
    )


def test_flops_for_channels_hold_through_a_fine_tuning():
    data = {"x": CALIBRATION["x"], "labels": np.arange(60) % 5}
    report = onnxprune.prune(redundant(), flops=0.6, pattern="channel", data=data, epochs=1).report
    assert report.settings["criterion"] == "second-order"
    assert any("layers were fitted" in note for note in report.notes)
    assert 0.45 * report.baseline.multiply_adds < report.pruned.multiply_adds
    assert report.pruned.multiply_adds <= 0.6 * report.baseline.multiply_adds


def test_norms_that_are_put_back_for_the_training_leave_what_was_fitted_as_it_is():
    data = {"x": CALIBRATION["x"], "labels": np.arange(60) % 5}
    losses = {}
    for norms in ("never", "always"):
        settings = {"flops": 0.6, "criterion": "second-order", "restore_norms": norms}
        settings |= {"batch_norm": "train", "batch_size": 16}
        report = onnxprune.prune(redundant(), pattern="channel", data=data, epochs=1, **settings).report
        assert report.fine_tuning[0]["epoch"] == 0
        losses[norms] = report.fine_tuning[0]["loss"]
    assert losses["always"] == pytest.approx(losses["never"], rel=0.1)


def sparse() -> onnx.ModelProto:
    """The network with a third of the weights of two layers at zero."""
    model = redundant()
    for name in ("w1", "w2"):
        array = initializer(model, name).copy()
        array[np.random.default_rng(3).random(array.shape) < 1 / 3] = 0
        index = [tensor.name for tensor in model.graph.initializer].index(name)
        model.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(array, name))
    return model


def zeros_of(model: onnx.ModelProto, name: str) -> float:
    return float(np.mean(initializer(model, name) == 0))


@pytest.mark.parametrize(
    "settings",
    [
        {"calibration_data": CALIBRATION},
        {"calibration_data": CALIBRATION, "effort": "fast"},
        {"data": CALIBRATION, "epochs": 2},
        {"data": CALIBRATION, "epochs": 2, "criterion": "magnitude", "schedule": "gradual"},
    ],
)
def test_zeros_of_the_input_model_stay(settings):
    pruned = onnxprune.prune(sparse(), rate=0.3, pattern="channel", format="dense", **settings).model
    # What leaves has as many zeros as what stays, more or less.
    assert initializer(pruned, "w1").size < initializer(redundant(), "w1").size
    assert zeros_of(pruned, "w1") > 0.25 and zeros_of(pruned, "w2") > 0.25


def test_layers_with_zeros_are_fitted_under_them():
    settings = {"rate": 0.3, "pattern": "channel", "eval_data": TEST}
    by_norm = onnxprune.prune(sparse(), **settings)
    fitted = onnxprune.prune(sparse(), calibration_data=CALIBRATION, **settings)
    assert deviation(fitted) < 0.5 * deviation(by_norm)
