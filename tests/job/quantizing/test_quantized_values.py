"""Coarser steps for quantized weights: which weights take them, and what the file then holds."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError
from onnxprune.job.pipeline import run as run_job
from onnxprune.job.quantizing.values import LARGEST, coarsest
from onnxprune.model.weights import find_weights
from onnxprune.quantization.ranges import measured
from onnxprune.quantization.static import QDQ, QOPERATOR, Form, Steps, quantized, simulated, steps_of
from onnxprune.sparse.opening import open_model
from tests.builders import cnn, floats, mlp, model_of, normal
from tests.quantization.test_static import run


def weights_of(model):
    return find_weights(ir.from_proto(model)).prunable


def test_each_weight_takes_the_coarsest_steps_below_a_common_limit():
    weights = weights_of(mlp(16, 32, 8))
    price = {weight.value.name: cost for weight, cost in zip(weights, (1.0, 100.0), strict=True)}
    largest = {weight.value.name: np.abs(weight.array()).max() for weight in weights}

    def error(steps):
        return sum(price[name] * (each.scale.max() / largest[name]) ** 2 for name, each in steps.items())

    def levels(most):
        return {
            name: round(float(largest[name] / each.scale.max()))
            for name, each in coarsest(weights, error, error, most).items()
        }

    first, second = (weight.value.name for weight in weights)
    assert levels(1e-9) == {}
    assert levels(1e9) == {first: LARGEST[0], second: LARGEST[0]}
    between = levels(1.0)
    assert between[first] < between[second]
    assert error(coarsest(weights, error, error, 1.0)) <= 1.0


@pytest.mark.parametrize("form", [QOPERATOR, QDQ])
def test_given_steps_are_those_of_the_simulated_and_of_the_written_model(form):
    model = ir.from_proto(cnn())
    feeds = {model.graph.inputs[0].name: normal(8, 1, 8, 8)}
    ranges = measured(model, [feeds], "minmax")
    weight = find_weights(model).prunable[0]
    scale = np.abs(weight.array()).max(axis=(1, 2, 3)) / np.float32(3)
    steps = {weight.name: Steps(scale, np.zeros(len(scale), np.int8), weight.out_axis)}
    made = simulated(model, ranges, Form(form), steps=steps)
    np.testing.assert_array_equal(steps_of(made)[weight.name].scale, scale)
    held = find_weights(quantized(model, ranges, Form(form), steps=steps)).prunable[0]
    assert np.abs(held.array()).max() == 3


def test_the_file_is_smaller_its_outputs_near_and_kernels_give_the_same_bits(tmp_path):
    x, model = normal(64, 64), mlp(64, 512, 64)
    settings = {"rate": 0.5, "quantize": "int8", "calibration_data": {"x": x}, "criterion": "magnitude"}
    whole = onnxprune.prune(model, tmp_path / "whole.onnx", **settings)
    few = onnxprune.prune(model, tmp_path / "few.onnx", values="int4", **settings)
    assert any("few different values" in note for note in few.report.notes)
    assert few.report.pruned.bytes < 0.8 * whole.report.pruned.bytes
    arrays = [
        numpy_helper.to_array(each) for each in ir.to_proto(open_model(few.model).model).graph.initializer
    ]
    levels = [np.abs(each.astype(int)).max() for each in arrays if each.dtype == np.int8 and each.ndim > 1]
    assert min(levels) <= 31
    expected = run(few.model, {"x": x})
    assert np.square(expected - run(whole.model, {"x": x})).sum() < 0.05 * np.square(expected).sum()
    if onnxprune.runtime.available():
        kernels = onnxprune.runtime.session(tmp_path / "few.onnx").run(None, {"x": x})[0]
        np.testing.assert_array_equal(kernels, expected)


def test_constants_that_are_first_operands_keep_the_steps_of_activations(tmp_path):
    x = normal(64, 8, 5)
    nodes = [
        helper.make_node("MatMul", ["first", "x"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("MatMul", ["r", "second"], ["y"]),
    ]
    model = model_of(
        nodes,
        [floats("x", "N", 8, 5)],
        [floats("y", "N", 16, 6)],
        {"first": normal(16, 8), "second": normal(5, 6)},
    )
    out = tmp_path / "out.onnx"
    result = onnxprune.prune(model, out, rate=0, quantize="int8", values="int4", calibration_data={"x": x})
    assert all(weight.quantized for weight in find_weights(open_model(result.model).model).prunable)
    expected = run(model, {"x": x})
    assert np.square(run(result.model, {"x": x}) - expected).sum() < 0.02 * np.square(expected).sum()


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_other_values_are_refused_beside_quantization(values):
    with pytest.raises(SettingError, match="both round the weights"):
        onnxprune.PruneConfig(rate=0.5, quantize="int8", calibration_data="x.npz", values=values)


def test_the_stage_tells_how_far_its_scans_are():
    told = []
    config = PruneConfig(rate=0, quantize="int8", values="int4", calibration_data={"x": normal(64, 64)})
    run_job(mlp(64, 512, 64), None, config, lambda stage, fraction: told.append((stage, fraction)))
    found = [fraction for stage, fraction in told if stage == "quantize"]
    assert found == sorted(found) and len(set(found)) >= 4 and 0.5 < max(found) <= 1.0
