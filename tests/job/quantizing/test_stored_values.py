"""--values int4 of a model in floats: which weights are int4, and what the summary says of the loss."""

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.job.quantizing import stored_values
from tests.builders import normal
from tests.sparse.graphs import dense_array, parse, run

# The middle layer is hurt by outliers, the last bears every rounding.
TEXT = """g (float[n, 64] x) => (float[n, 32] y) {
    a = MatMul (x, w1)
    b = Tanh (a)
    c = MatMul (b, w2)
    d = Relu (c)
    y = MatMul (d, w3)
}"""
INPUTS = {"x": normal(96, 64)}


def network():
    w2 = dense_array(256, 256, seed=2) * np.float32(0.05)
    # An outlier in each output channel: 15 levels between it and its negative leave nothing of the other values.
    w2[np.arange(256), np.arange(256)] = 2.0
    w3 = np.sign(dense_array(256, 32, seed=3)) * np.float32(0.1)
    return parse(TEXT, opset=20, w1=dense_array(64, 256, seed=1) * np.float32(0.2), w2=w2, w3=w3)


def rounded(**settings):
    result = onnxprune.prune(network(), rate=0, values="int4", **settings)
    return result, {layer.name: layer.values for layer in result.report.layers}


def squared_error(model):
    expected, found = run(network(), **INPUTS)[0], run(model, **INPUTS)[0]
    return float(np.square(expected - found).sum() / np.square(expected).sum())


def notes(result):
    return [note for note in result.report.notes if "(--values)" in note]


def test_what_the_outputs_do_not_bear_in_int4_is_int8():
    result, types = rounded(calibration_data=INPUTS)
    assert types["w2"] == "int8" and types["w3"] == "int4"
    # Whether or not anything else is measured on the inputs.
    assert rounded(calibration_data=INPUTS, criterion="magnitude")[1] == types
    assert squared_error(result.model) <= 2 * stored_values.NEAR
    whole, all_few = rounded()
    assert set(all_few.values()) == {"int4"}
    assert squared_error(whole.model) > 4 * stored_values.NEAR
    (note,) = notes(result)
    count = sum(values == "int8" for values in types.values())
    assert note.startswith(
        f"{count} of 3 weights were rounded to int8 and the others to int4 (--values): relative"
    )


def test_the_error_told_is_that_of_the_file():
    result, _ = rounded(calibration_data=INPUTS, calibration_samples=16)
    (note,) = notes(result)
    told = float(note.split("error of the outputs ")[1].split(",")[0])
    assert told <= stored_values.NEAR
    assert squared_error(result.model) == pytest.approx(told, rel=0.5)


def test_without_inputs_all_are_int4_with_the_loss_and_advice():
    result, types = rounded()
    assert set(types.values()) == {"int4"}
    (note,) = notes(result)
    assert note.startswith(
        "All weights were rounded to int4 (--values): relative squared error of the outputs 0."
    )
    assert note.endswith(
        "give --calibration-data, and those that the outputs do not bear in int4 are stored as int8."
    )


def test_a_job_that_runs_nothing_says_that_the_loss_is_not_known():
    result, _ = rounded(evaluate=False)
    (note,) = notes(result)
    assert note.startswith(
        "All weights were rounded to int4 (--values), whatever it costs: give --calibration-data"
    )


def test_where_the_outputs_bear_it_all_are_int4():
    w = np.sign(dense_array(64, 64)) * np.float32(0.1)
    model = parse("g (float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }", opset=20, w=w)
    result = onnxprune.prune(model, rate=0, values="int4", calibration_data=INPUTS)
    assert [layer.values for layer in result.report.layers] == ["int4"]
    (note,) = notes(result)
    assert note.startswith("All weights were rounded to int4 (--values): relative") and "give" not in note


@pytest.mark.parametrize("settings", [{"values": "int8"}, {"values": "fp16"}, {}], ids=str)
def test_other_types_are_not_chosen(settings):
    result = onnxprune.prune(network(), rate=0.5, calibration_data=INPUTS, effort="fast", **settings)
    assert not notes(result)


def test_the_model_is_as_it_was_after_the_choice(tmp_path):
    before = network()
    onnx.save(before, tmp_path / "in.onnx")
    onnxprune.prune(
        tmp_path / "in.onnx", tmp_path / "out.onnx", rate=0, values="int4", calibration_data=INPUTS
    )
    # A second rounding of what is rounded already changes nothing.
    again = onnxprune.prune(tmp_path / "out.onnx", rate=0).model
    assert run(again, **INPUTS)[0].tobytes() == run(onnx.load(tmp_path / "out.onnx"), **INPUTS)[0].tobytes()
