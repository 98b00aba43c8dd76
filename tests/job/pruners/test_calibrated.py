"""Calibrated criteria, reconstruction and corrections through the whole job."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import onnxprune
import onnxprune.job.measure
from onnxprune.model.blocks import Blocks
from onnxprune.model.files.io import load
from onnxprune.model.weights import find_weights
from onnxprune.pruning.blocks import BLOCK_PATTERNS
from tests.builders import cnn, floats, initializer, mlp, model_of, normal


def rows(count: int, seed: int) -> np.ndarray:
    """Correlated inputs, so that one weight can compensate for another."""
    return (normal(count, 8, seed=seed) @ normal(8, 8, seed=7)).astype(np.float32)


def moved(model, x, **settings):
    report = onnxprune.prune(model, rate=0.5, eval_data=x, remove_dead=False, **settings).report
    return 1 - report.evaluation["outputs"][0]["cosine"]


def test_second_order_changes_the_outputs_less_than_wanda_and_magnitude_and_reconstruction_less_than_magnitude():
    model, calibration, evaluation = mlp(), {"x": rows(300, 0)}, {"x": rows(300, 1)}
    differences = [
        moved(model, evaluation, **settings)
        for settings in (
            {},
            {"criterion": "wanda", "calibration_data": calibration},
            {"criterion": "second-order", "calibration_data": calibration},
        )
    ]
    assert differences[2] < 0.5 * min(differences[:2])
    fitted = moved(model, evaluation, reconstruct=True, calibration_data=calibration)
    assert fitted < differences[0]


def test_weights_mapped_from_a_file_calibrate_like_those_in_memory(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    weights = {"w": normal(132, 132), "v": normal(132, 132, seed=1)}
    model = model_of(nodes, [floats("x", "N", 132)], [floats("y", "N", 132)], weights)
    onnx.save(model, tmp_path / "in.onnx")
    found = load(tmp_path / "in.onnx")[0].graph.initializers.values()
    assert all(isinstance(value.const_value, ir.ExternalTensor) for value in found)
    settings = {
        "criterion": "second-order",
        "calibration_data": {"x": normal(60, 132)},
        "eval_data": {"x": normal(20, 132, seed=1)},
    }
    mapped, given = (
        onnxprune.prune(source, rate=0.5, format="dense", **settings).model
        for source in (tmp_path / "in.onnx", model)
    )
    for name in weights:
        np.testing.assert_array_equal(initializer(mapped, name), initializer(given, name))


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "second-order"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4x1", "1x4"])
def test_counts_and_patterns_are_exact_whatever_the_criterion(criterion, pattern):
    calibration = {"calibration_data": {"x": normal(40, 1, 8, 8)}} if criterion != "magnitude" else {}
    result = onnxprune.prune(
        cnn(),
        rate=0.5,
        criterion=criterion,
        pattern=pattern,
        format="dense",
        remove_dead=False,
        **calibration,
    )
    for weight in find_weights(ir.from_proto(result.model)).prunable:
        blocks = Blocks.of(weight)
        if pattern == "unstructured":
            assert weight.nonzero() == weight.size - round(0.5 * weight.size)
        elif pattern in BLOCK_PATTERNS:
            norms = BLOCK_PATTERNS[pattern].norms(weight, weight.array())
            whole = BLOCK_PATTERNS[pattern].spread(weight, norms > 0)
            assert np.count_nonzero(norms) == norms.size - round(0.5 * norms.size)
            assert weight.nonzero() == np.count_nonzero(whole)
        else:
            channels = blocks.channels_last(blocks.split(weight.array())) != 0
            fours = channels[:, : channels.shape[1] // 4 * 4].reshape(-1, 4)
            assert (fours.sum(1) == 2).all()


def test_calibration_keeps_zeros_of_the_input_model_zero():
    model = mlp()
    array = initializer(model, "fc1.weight").copy()
    array[:, 2] = 0
    model.graph.initializer[0].CopyFrom(helper.make_tensor("fc1.weight", 1, array.shape, array.ravel()))
    result = onnxprune.prune(
        model, rate=0.5, criterion="second-order", calibration_data={"x": rows(100, 0)}, format="dense",
        remove_dead=False,
    )  # fmt: skip
    after = initializer(result.model, "fc1.weight")
    assert not after[:, 2].any() and np.count_nonzero(after) == array.size // 2


def test_bias_correction_restores_the_means_of_the_outputs():
    x = np.abs(rows(200, 0))
    results = [
        onnxprune.prune(
            mlp(), rate=0.5, criterion="magnitude", bias_correction=correct, calibration_data={"x": x},
            eval_data={"x": x}, format="dense", remove_dead=False,
        ).model
        for correct in (True, False)
    ]  # fmt: skip
    dense, corrected, cut = (outputs(model, x).mean(0) for model in (mlp(), *results))
    np.testing.assert_allclose(corrected, dense, atol=1e-3)
    assert np.abs(cut - dense).max() > 0.1


def test_norm_correction_restores_the_means_and_variances_of_the_outputs():
    rng = np.random.default_rng(0)
    model = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
            helper.make_node(
                "BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["y"], "norm"
            ),
        ],
        [floats("x", "N", 3, 8, 8)],
        [floats("y", "N", 5, 6, 6)],
        {"w": normal(5, 3, 3, 3)}
        | {
            name: rng.uniform(0.5, 1.5, 5).astype(np.float32)
            for name in ("scale", "shift", "mean", "variance")
        },
    )
    x = normal(64, 3, 8, 8) + 1
    data = {"calibration_data": {"x": x}, "eval_data": {"x": x}}
    settings = {"rate": 0.6, "format": "dense", "remove_dead": False, **data}
    result = onnxprune.prune(model, norm_correction=True, effort="fast", **settings).model
    before, after = (outputs(one, x) for one in (model, result))
    np.testing.assert_allclose(after.mean((0, 2, 3)), before.mean((0, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(after.var((0, 2, 3)), before.var((0, 2, 3)), rtol=1e-2)


def test_a_calibrated_criterion_calibrates_on_the_training_data_at_every_step():
    x = rows(200, 0)
    result = onnxprune.prune(
        mlp(), rate=0.5, criterion="second-order", data={"x": x}, epochs=2, steps=2, batch_size=32,
        format="dense", remove_dead=False,
    )  # fmt: skip
    assert np.count_nonzero(initializer(result.model, "fc1.weight")) == 64
    assert len(result.report.fine_tuning) > 2


def outputs(model, x):
    import onnxruntime as ort

    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def test_wanda_ranks_the_weights_of_each_output_by_what_the_dense_model_reads():
    x = normal(200, 8) * np.linspace(0.1, 3, 8, dtype=np.float32)
    model = onnxprune.prune(
        mlp(), rate=0.5, criterion="wanda", calibration_data={"x": x}, format="dense", remove_dead=False
    ).model
    hidden = np.maximum(x @ initializer(mlp(), "fc1.weight").T + initializer(mlp(), "fc1.bias"), 0)
    for name, reads in (("fc1.weight", x), ("fc2.weight", hidden)):
        scores = np.abs(initializer(mlp(), name)) * np.linalg.norm(reads, axis=0)
        for row, kept in zip(scores, initializer(model, name) != 0, strict=True):
            assert row[~kept].max() < row[kept].min()


@pytest.mark.parametrize(
    "settings",
    [
        {"criterion": "second-order"},
        {"criterion": "magnitude", "reconstruct": True},
        {"criterion": "wanda", "bias_correction": True},
    ],
    ids=str,
)
def test_fine_tuning_starts_from_the_weights_that_calibration_updated(settings):
    x, evaluation = {"x": rows(300, 0)}, {"x": rows(20, 1)}
    # Beyond that, a job without training goes on to what the training does.
    shape = {"format": "dense", "remove_dead": False}
    settings = {"rate": 0.5, "effort": "fast", "eval_data": evaluation} | shape | settings
    once = onnxprune.prune(mlp(), calibration_data=x, **settings).model
    still = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "schedule": "one-shot"}
    trained = onnxprune.prune(mlp(), data=x, calibration_data=x, **still, **settings).model
    for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
        np.testing.assert_allclose(initializer(trained, name), initializer(once, name), atol=1e-6)


def test_a_weight_whose_inputs_are_not_measured_is_pruned_by_magnitude_and_named():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Transpose", ["v"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "turned"], ["y"]),
    ]
    weights = {"w": normal(8, 16), "v": normal(4, 16, seed=1)}
    model = model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 4)], weights)
    result = onnxprune.prune(
        model,
        rate=0.5,
        criterion="second-order",
        calibration_data={"x": rows(60, 0)},
        format="dense",
        remove_dead=False,
    )
    kept = np.abs(weights["v"]) > np.median(np.abs(weights["v"]))
    np.testing.assert_array_equal(initializer(result.model, "v"), np.where(kept, weights["v"], 0))
    [note] = [note for note in result.report.notes if "by magnitude" in note]
    assert "pruned by magnitude: v (" in note


def test_the_rate_is_distributed_by_what_layers_lose_as_they_are_pruned():
    nodes = [
        helper.make_node("MatMul", ["x1", "copies"], ["h1"]),
        helper.make_node("MatMul", ["x2", "signals"], ["h2"]),
        helper.make_node("Add", ["h1", "h2"], ["y"]),
    ]
    weights = {"copies": normal(16, 8), "signals": normal(16, 8, seed=1)}
    inputs = [floats("x1", "N", 16), floats("x2", "N", 16)]
    model = model_of(nodes, inputs, [floats("y", "N", 8)], weights)
    # Of 16 inputs that are the same, one can stand for all, which the weights alone do not tell.
    data = {"x1": np.repeat(normal(200, 1), 16, axis=1), "x2": normal(200, 16, seed=1)}
    settings = {"rate": 0.45, "criterion": "second-order", "calibration_data": data, "eval_data": data}
    result = onnxprune.prune(model, allocation="sensitivity", remove_dead=False, format="dense", **settings)
    copies, signals = (np.count_nonzero(initializer(result.model, name)) for name in weights)
    assert copies + signals == round(0.55 * 256)
    assert copies <= 16 and signals >= 120
    assert result.report.evaluation["outputs"][0]["cosine"] > 0.99


def test_the_summary_tells_the_damping_that_was_chosen():
    data = {"x": rows(300, 0)}
    for effort, told in (("fast", 0), ("normal", 1)):
        report = onnxprune.prune(
            mlp(), rate=0.5, criterion="second-order", effort=effort, calibration_data=data
        ).report
        assert sum(note.startswith("Damping of layers") for note in report.notes) == told


def test_weights_in_a_branch_that_no_sample_takes_have_the_rate_where_others_are_measured():
    branches = {
        name: helper.make_graph(
            [helper.make_node("MatMul", ["h", name], [f"{name}y"])],
            name,
            [],
            [floats(f"{name}y", "N", 4)],
            [onnx.numpy_helper.from_array(normal(8, 4, seed=seed), name)],
        )
        for seed, name in enumerate(("a", "b"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["yes"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=branches["a"], else_branch=branches["b"]),
    ]
    constants = {"w": normal(8, 8), "zero": np.zeros((), np.float32)}
    model = model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 4)], constants)
    report = onnxprune.prune(
        model,
        rate=0.5,
        criterion="second-order",
        allocation="sensitivity",
        calibration_data={"x": np.abs(rows(100, 0))},
        remove_dead=False,
    ).report
    kept = {layer.name: layer.kept for layer in report.layers}
    assert kept["b"] == 16
    assert kept["a"] + kept["w"] == (32 + 64) // 2


def test_layers_that_take_long_to_prune_are_measured_at_fewer_rates(monkeypatch):
    settings = {"rate": 0.8, "criterion": "second-order", "allocation": "sensitivity"}
    data = {"x": rows(100, 0)}
    curves = [onnxprune.prune(mlp(), calibration_data=data, **settings).report.sensitivity]
    monkeypatch.setattr(onnxprune.job.measure, "FITTING_WORK", 1)
    curves.append(onnxprune.prune(mlp(), calibration_data=data, **settings).report.sensitivity)
    every, few = ([rate for rate, _ in each["fc1.weight"]] for each in curves)
    assert len(every) == 4 and len(few) == 3
    assert few[0] == every[0] and few[-1] == every[-1] and few[1] in every[1:-1]


def test_less_is_measured_where_little_time_is_left(monkeypatch):
    """By the clock: in 15 % of the time left, at so many multiply-adds a second."""
    samples: list[int] = []

    def measure(model, data, *others):
        samples.append(len(data))
        raise InterruptedError

    monkeypatch.setattr(onnxprune.job.measure, "measure", measure)
    settings = {"criterion": "second-order", "schedule": "one-shot", "allocation": "sensitivity"}
    for speed in (1e10, 20_000, 0.0):
        monkeypatch.setattr(onnxprune.job.measure, "SPEED", speed)
        with pytest.raises(InterruptedError):
            onnxprune.prune(cnn(), rate=0.5, data={"x": normal(640, 1, 8, 8)}, time="1000s", **settings)
    assert samples[0] == 64 and 16 < samples[1] < 64 and samples[2] == 16


@pytest.mark.parametrize("effort", ["fast", "normal"])
@pytest.mark.parametrize("classes", [200, 40])
def test_classes_that_are_in_no_sample_keep_their_share_as_it_is(classes, effort):
    model = mlp(inputs=16, hidden=64, outputs=classes)
    data = {"x": normal(96, 16, seed=7)}
    result = onnxprune.prune(
        model, rate=0.75, calibration_data=data, effort=effort, format="dense", remove_dead=False
    )
    before, after = (
        {each.name: onnx.numpy_helper.to_array(each) for each in proto.graph.initializer}
        for proto in (model, result.model)
    )
    kept = after["fc2.weight"] != 0
    stays = (after["fc2.weight"] == before["fc2.weight"])[kept].all()
    counts = np.count_nonzero(kept, axis=1)
    assert (after["fc1.weight"] != before["fc1.weight"])[after["fc1.weight"] != 0].any()
    if classes > len(data["x"]):
        assert stays and np.ptp(counts) <= 1
        # Those of the largest magnitude, each output for itself.
        assert (
            np.abs(before["fc2.weight"])[0][kept[0]].min() > np.abs(before["fc2.weight"])[0][~kept[0]].max()
        )
    else:
        assert not stays and np.ptp(counts) > 1
    assert any("too few of the classes" in note for note in result.report.notes) == (classes > len(data["x"]))
    # The bias makes up for what the mean loses.
    assert (after["fc2.bias"] != before["fc2.bias"]).any()


@pytest.mark.parametrize("classes", [200, 40])
def test_classes_that_are_in_no_sample_are_not_trained(classes):
    """Updates of Adam are as long for what no sample shows as for the rest."""
    model = mlp(inputs=16, hidden=64, outputs=classes)
    data = {"x": normal(96, 16, seed=7)}
    result = onnxprune.prune(
        model, rate=0.5, data=data, criterion="wanda", epochs=10, format="dense", remove_dead=False
    )
    before, after = (
        {each.name: onnx.numpy_helper.to_array(each) for each in proto.graph.initializer}
        for proto in (model, result.model)
    )
    stays = {
        name: (after[name] == before[name])[after[name] != 0].all() for name in ("fc1.weight", "fc2.weight")
    }
    assert stays == {"fc1.weight": False, "fc2.weight": classes > len(data["x"])}
