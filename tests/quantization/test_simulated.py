"""Simulated quantization: what is trained is what onnxruntime computes, in both forms, with zeros kept."""

from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

import onnxprune
from onnxprune.job.quantizing import training as quantize_training
from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.model.weights import find_weights
from onnxprune.quantization.ranges import measured
from onnxprune.quantization.static import (
    QDQ,
    QOPERATOR,
    Form,
    quantized,
    scales_of_activations,
    simulated,
    steps_of,
)
from onnxprune.training.module.ends import UnsupportedOperatorError
from onnxprune.training.module.graph import to_torch
from tests.builders import cnn, mlp, normal

SHAPES = {"cnn": (8, 1, 8, 8), "mlp": (8, 8), "one output": (8, 8)}
BUILDERS = {"cnn": cnn, "mlp": mlp, "one output": partial(mlp, outputs=1)}
TRAINED = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01, "schedule": "one-shot", "augment": "none"}


def run(model, feeds):
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("form", [Form(QOPERATOR), Form(QDQ), Form(QOPERATOR, True), Form(QDQ, True)])
def test_the_module_computes_what_the_file_does_with_learned_scales(name, form):
    model = ir.from_proto(BUILDERS[name]())
    feeds = {model.graph.inputs[0].name: normal(*SHAPES[name])}
    ranges = measured(model, [feeds], "minmax")
    made = simulated(model, ranges, form)
    for number, scale in enumerate(scales_of_activations(made)):
        value = made.graph.initializers[scale]
        learned = constant_tensor(value).numpy() * (0.8 + 0.1 * number)
        set_constant(value, learned.astype(np.float32), value.dtype)
    (outputs,) = to_torch(made)(torch.from_numpy(next(iter(feeds.values()))))
    file = run(quantized(model, ranges, form, steps=steps_of(made)), feeds)
    step = steps_of(made)[model.graph.outputs[0].name].scale
    # A sum that lies between two steps may be rounded either way.
    difference = np.abs(outputs.detach().numpy() - file)
    assert (difference < 1e-5).mean() > 0.95
    assert difference.max() < 1.01 * step
    assert np.abs(file - run(quantized(model, ranges, form), feeds)).max() > step


@pytest.mark.parametrize("form", [QOPERATOR, QDQ])
def test_a_network_with_one_output_is_trained_in_int8(form):
    x = normal(64, 8)
    model = mlp(outputs=1)
    data = {"x": x, "labels": run(model, {"x": x}) * 0.7 + 0.3}
    result = onnxprune.prune(
        model, data=data, quantize="int8", quantize_form=form, quantize_epochs=2, rate=0.5, **TRAINED
    )
    assert any("with simulated quantization" in note for note in result.report.notes)
    assert all(weight.quantized for weight in find_weights(ir.from_proto(result.model)).prunable)


@pytest.mark.parametrize("form", [QOPERATOR, QDQ])
def test_training_in_int8_brings_the_outputs_nearer_and_keeps_zeros(form):
    x = normal(256, 8)
    # The labels are other than what the model gives, so that there is something to learn.
    labels = run(mlp(), {"x": x}) * 0.7 + 0.3
    data = {"x": x, "labels": labels}
    settings = TRAINED | {"rate": 0.5, "format": "dense", "remove_dead": False, "eval_data": data}
    plain, trained = (
        onnxprune.prune(
            mlp(), data=data, quantize="int8", quantize_form=form, quantize_epochs=epochs, **settings
        )
        for epochs in (0, 4)
    )
    note = next(note for note in trained.report.notes if "simulated quantization" in note)
    assert "Fine-tuned with simulated quantization: loss " in note
    assert not any("simulated" in note for note in plain.report.notes)
    errors = [np.square(run(result.model, {"x": x}) - labels).mean() for result in (plain, trained)]
    assert errors[1] < errors[0]
    for weight in find_weights(ir.from_proto(trained.model)).prunable:
        assert weight.quantized
        assert (~weight.present()).mean() >= 0.45
    kinds = {node.op_type for node in trained.model.graph.node}
    assert ("QGemm" in kinds) == (form == QOPERATOR)
    assert ("Gemm" in kinds) == (form == QDQ)


@pytest.mark.parametrize("learning_rate", [1e-4, 0.1])
def test_without_labels_training_in_int8_never_takes_the_outputs_farther(learning_rate, monkeypatch):
    monkeypatch.setattr(quantize_training, "LEARNING_RATE", learning_rate)
    x = normal(256, 8)
    settings = TRAINED | {"rate": 0.3, "format": "dense", "eval_data": {"x": x}}
    whole = run(onnxprune.prune(mlp(), data={"x": x}, **settings).model, {"x": x})
    plain, trained = (
        onnxprune.prune(mlp(), data={"x": x}, quantize="int8", quantize_epochs=epochs, **settings)
        for epochs in (0, 2)
    )
    (note,) = [note for note in trained.report.notes if "simulated quantization" in note]
    errors = [np.square(run(result.model, {"x": x}) - whole).sum() for result in (plain, trained)]
    # The choice is made on the held part of the inputs.
    assert errors[1] < 1.05 * errors[0] < 0.01 * np.square(whole).sum()
    if learning_rate > 0.01:
        assert "undone" in note or "nothing better" in note
        assert errors[1] == errors[0]


PATTERNS = {
    "unstructured": lambda rows: True,
    "1x4": lambda rows: (rows.reshape(len(rows), -1, 4) != 0).any(2).mean() <= 0.6,
    "2:4": lambda rows: (rows.reshape(len(rows), -1, 4).sum(2) <= 2).all(),
}


@pytest.mark.parametrize("format", ["ops", "dense"])
@pytest.mark.parametrize("form", [QOPERATOR, QDQ])
@pytest.mark.parametrize("pattern", [*PATTERNS, "channel"])
def test_patterns_hold_in_int8(pattern, form, format):
    x = normal(64, 8)
    settings = {"rate": 0.5, "pattern": pattern, "allocation": "uniform", "criterion": "magnitude"}
    settings |= {"calibration_data": {"x": x}, "format": format, "remove_dead": pattern == "channel"}
    # Otherwise some are evaluated on alone, and may lie beyond the ranges of the others.
    settings |= {"eval_data": {"x": x}}
    result = onnxprune.prune(mlp(), quantize="int8", quantize_form=form, **settings)
    floating = onnxprune.prune(mlp(), **settings)
    whole = run(floating.model, {"x": x})
    assert np.square(run(result.model, {"x": x}) - whole).sum() < 0.01 * np.square(whole).sum()
    dense = onnxprune.prune(result.model, rate=0, format="dense", remove_dead=False).model
    weights = find_weights(ir.from_proto(dense)).prunable
    assert all(weight.quantized for weight in weights)
    if pattern == "channel":
        assert weights[0].shape[weights[0].out_axis] < find_weights(ir.from_proto(mlp())).prunable[0].shape[0]
        return
    for weight in weights:
        assert PATTERNS[pattern](weight.channels_last(weight.present()))


def test_blocks_that_were_removed_stay_so_in_the_training():
    x = normal(256, 8)
    data = {"x": x, "labels": run(mlp(), {"x": x}) * 0.7 + 0.3}
    settings = TRAINED | {"rate": 0.5, "pattern": "1x4", "allocation": "uniform", "format": "dense"}
    result = onnxprune.prune(
        mlp(), data=data, eval_data=data, quantize="int8", quantize_epochs=6, remove_dead=False, **settings
    )
    assert any("Fine-tuned with simulated quantization" in note for note in result.report.notes)
    for weight in find_weights(ir.from_proto(result.model)).prunable:
        assert PATTERNS["1x4"](weight.channels_last(weight.present()))


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("form", [QOPERATOR, QDQ])
def test_kernels_give_what_stock_onnxruntime_gives(form, activations, tmp_path):
    x, path = normal(16, 1, 8, 8), tmp_path / "out.onnx"
    settings = {"rate": 0.8, "pattern": "1x4", "calibration_data": {"x": x}, "criterion": "magnitude"}
    settings |= {"quantize_form": form, "quantize_activations": activations}
    result = onnxprune.prune(cnn(), path, quantize="int8", **settings)
    assert any("Sparse" in node.op_type for node in result.model.graph.node)
    zeros = [
        numpy_helper.to_array(each)
        for each in result.model.graph.initializer
        if each.name.endswith("_zero_point") and not each.dims
    ]
    assert any(zero for zero in zeros) == (activations == "uint8")
    assert {zero.dtype.name for zero in zeros} - {"int8"} == {activations} - {"int8"}
    kernels = onnxprune.runtime.session(path).run(None, {"x": x})[0]
    np.testing.assert_array_equal(kernels, run(result.model, {"x": x}))


@pytest.mark.parametrize("form", [QOPERATOR, QDQ])
def test_a_quantized_file_is_pruned_further_with_its_scales(form):
    x = normal(64, 8)
    settings = {"calibration_data": {"x": x}, "criterion": "magnitude", "remove_dead": False}
    once = onnxprune.prune(mlp(), rate=0.5, quantize="int8", quantize_form=form, **settings)
    more = onnxprune.prune(once.model, rate=0.7, **settings)
    for before, after in zip(*(_dense(each.model) for each in (once, more)), strict=True):
        assert after.quantized
        np.testing.assert_array_equal(after.encoding.scale, before.encoding.scale)
        zeros = ~after.present()
        assert zeros[~before.present()].all()
        assert zeros.sum() > (~before.present()).sum()
        np.testing.assert_array_equal(after.array()[~zeros], before.array()[~zeros])


def _dense(model):
    return find_weights(
        ir.from_proto(onnxprune.prune(model, rate=0, format="dense", remove_dead=False).model)
    ).prunable


def test_retraining_goes_on_from_the_form_with_pairs_and_says_so_for_the_other():
    x = normal(128, 8)
    data = {"x": x, "labels": run(mlp(), {"x": x})}
    calibrated = {"calibration_data": {"x": x}, "criterion": "magnitude"}
    integers, pairs = (
        onnxprune.prune(mlp(), rate=0.5, quantize="int8", quantize_form=form, **calibrated)
        for form in (QOPERATOR, QDQ)
    )
    again = onnxprune.retrain(pairs.model, data=data, epochs=1)
    for before, after in zip(_dense(pairs.model), _dense(again.model), strict=True):
        assert after.quantized
        assert (~after.present())[~before.present()].all()
    with pytest.raises(UnsupportedOperatorError, match=r"integers have no gradient; .*--quantize-form qdq"):
        onnxprune.retrain(integers.model, data=data, epochs=1)
