"""NaN and infinity: in data and labels, in a training that diverges, in statistics, and in the file that is written."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.errors import NotFiniteError, OnnxPruneError
from onnxprune.model.constants import set_constant
from onnxprune.model.files.io import load
from onnxprune.model.files.staging import staging
from onnxprune.model.weights import constants_by_name
from tests.builders import floats, initializer, mlp, model_of, normal

DENSE = {"rate": 0.5, "format": "dense"}
TRAINED = DENSE | {"epochs": 2, "batch_size": 16, "schedule": "one-shot", "allocation": "uniform"}


def samples(count=64, **changed):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((count, 8)).astype(np.float32), "labels": rng.integers(0, 4, count)}
    return arrays | changed


def broken(value, at=40, dtype=np.float32):
    x = samples()["x"].astype(dtype)
    x[at, 3] = value
    return samples(x=x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "settings",
    [
        lambda data: TRAINED | {"data": data},
        lambda data: TRAINED | {"data": samples(), "validation_data": data},
        lambda data: DENSE | {"eval_data": data},
        lambda data: DENSE | {"criterion": "wanda", "calibration_data": data},
        lambda data: DENSE | {"criterion": "second-order", "calibration_data": data},
        lambda data: DENSE | {"allocation": "sensitivity", "calibration_data": data},
    ],
)
def test_an_input_that_is_not_finite_is_refused_with_its_sample_and_value(tmp_path, settings, value):
    out = tmp_path / "out.onnx"
    with pytest.raises(
        OnnxPruneError, match=f"array 'x' of .* has {value} in sample 40: give finite numbers"
    ):
        onnxprune.prune(mlp(), out, **settings(broken(value)))
    assert not out.exists()


def test_numbers_that_the_type_of_the_input_does_not_hold_are_refused():
    with pytest.raises(OnnxPruneError, match=r"has 1e\+300 in sample 40, too large for float32"):
        onnxprune.prune(mlp(), **DENSE, eval_data=broken(1e300, dtype=np.float64))


def test_files_streams_and_datasets_are_checked_as_they_are_read(tmp_path):
    arrays = broken(np.nan)
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(OnnxPruneError, match=r"t.npz has nan in sample 40"):
        onnxprune.prune(mlp(), **DENSE, eval_data=tmp_path / "t.npz")

    class Batches:
        def __iter__(self):
            return ({key: array[at : at + 16] for key, array in arrays.items()} for at in range(0, 64, 16))

    with pytest.raises(OnnxPruneError, match=r"array 'x' of .* has nan in"):
        onnxprune.prune(mlp(), **TRAINED, data=Batches(), validation_data=samples())
    dataset = torch.utils.data.TensorDataset(torch.tensor(arrays["x"]), torch.tensor(arrays["labels"]))
    with pytest.raises(OnnxPruneError, match=r"array 'x' of .* has nan in sample 40"):
        onnxprune.prune(mlp(), **TRAINED, data=dataset, validation_data=samples(), data_workers=0)
    with pytest.raises(OnnxPruneError, match=r"has nan in sample 40"):
        onnxprune.compare(mlp(), mlp(), data=arrays)


@pytest.mark.parametrize(
    "labels", [np.arange(64.0) % 4, np.arange(64) % 4 == np.arange(4)[:, None], normal(64, 4)]
)
@pytest.mark.parametrize("at", [0, 41])
def test_labels_that_are_not_finite_are_refused(labels, at):
    labels = (labels.T if labels.shape[0] == 4 else labels).astype(np.float32)
    labels[at] = np.nan
    with pytest.raises(OnnxPruneError, match=f"array 'labels' of .* has nan in sample {at}"):
        onnxprune.prune(mlp(), **TRAINED, data=samples(labels=labels), validation_data=samples())


def only_finite(model):
    return all(np.isfinite(numpy_helper.to_array(tensor)).all() for tensor in model.graph.initializer)


def test_a_training_that_diverges_ends_with_the_best_state_before_and_says_so():
    result = onnxprune.prune(
        mlp(), **TRAINED, data=samples(), eval_data=samples(), optimizer="sgd", learning_rate=1e30, warmup=0
    )
    assert only_finite(result.model)
    (note,) = [note for note in result.report.notes if "diverged" in note]
    assert "lower --learning-rate (it is 1e+30)" in note and "after 0 updates" in note
    pruned = onnxprune.prune(mlp(), **DENSE).model
    np.testing.assert_array_equal(initializer(result.model, "fc1.weight"), initializer(pruned, "fc1.weight"))


def test_a_training_that_diverges_before_the_final_rate_is_refused(tmp_path):
    settings = TRAINED | {"schedule": "gradual", "optimizer": "sgd", "learning_rate": 1e30, "warmup": 0}
    out = tmp_path / "out.onnx"
    with pytest.raises(NotFiniteError, match=r"the training diverged: .*; lower --learning-rate"):
        onnxprune.prune(mlp(), out, **settings, data=samples())
    assert not out.exists()


def never_finite(outputs, labels):
    return outputs[0].sum() * float("nan")


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(NotFiniteError, match=r"the training diverged"):
        onnxprune.prune(mlp(), **TRAINED, data=samples(), loss=f"{__name__}:never_finite", learning_rate=1e-3)


def exploding():
    """x [N, 8] -> Gemm -> Exp -> Gemm -> y [N, 4]: with x * 100, the inputs of the second Gemm are infinite."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["a"], "fc1", transB=1),
        helper.make_node("Exp", ["a"], ["e"]),
        helper.make_node("Gemm", ["e", "w2"], ["y"], "fc2", transB=1),
    ]
    weights = {"w1": normal(16, 8), "w2": normal(4, 16, seed=1)}
    return model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 4)], weights)


@pytest.mark.parametrize("criterion", ["wanda", "second-order"])
def test_statistics_that_are_not_finite_are_refused(criterion):
    data = {"x": 100 * samples()["x"]}
    with pytest.raises(
        NotFiniteError, match=r"the inputs of Gemm 'fc2' are not finite on the calibration data"
    ):
        onnxprune.prune(exploding(), **DENSE, criterion=criterion, calibration_data=data)
    with pytest.raises(NotFiniteError, match=r"output 'y' of the input model is not finite"):
        onnxprune.prune(exploding(), **TRAINED, data=data, learning_rate=1e-3)


def test_the_file_holds_no_infinity_that_the_input_did_not(tmp_path):
    proto = mlp()
    model, origin = load(proto)
    bias = constants_by_name(model)["fc1.bias"]
    for number, text in ((np.nan, "NaN"), (-np.inf, "-inf")):
        set_constant(bias, np.full(16, number, np.float32), ir.DataType.FLOAT)
        with (
            staging(tmp_path / "out.onnx", origin) as stage,
            pytest.raises(NotFiniteError, match=f"'fc1.bias' of the pruned model holds {text}"),
        ):
            stage.write(model)
    assert not list(tmp_path.iterdir())


def test_an_infinity_of_the_input_model_stays():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "fc"),
        helper.make_node("Max", ["a", "lowest"], ["y"]),
    ]
    weights = {"w": normal(8, 4), "lowest": np.float32(-np.inf)}
    proto = model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 4)], weights)
    for settings in (DENSE, TRAINED | {"data": {"x": samples()["x"]}, "learning_rate": 1e-3}):
        assert initializer(onnxprune.prune(proto, **settings).model, "lowest") == -np.inf


def test_outputs_that_pruning_made_infinite_are_no_small_difference():
    node = helper.make_node("Div", ["x", "w"], ["y"])
    one, other = (
        model_of([node], [floats("x", "N", 4)], [floats("y", "N", 4)], {"w": np.array(w, np.float32)})
        for w in ([1, 2, 3, 4], [1, 2, 0, 4])
    )
    (found,) = onnxprune.compare(one, other).outputs
    assert (found.lost, found.not_finite) == (found.elements // 4, 0) and found.absolute == np.inf
    (same,) = onnxprune.compare(other, other).outputs
    assert (same.lost, same.not_finite, same.absolute, same.mismatched) == (0, same.elements // 4, 0, 0)
    assert same.cosine == pytest.approx(1)


def test_outputs_that_are_infinite_for_all_data_are_calibrated_with_uniform_allocation():
    bias = np.array([0, -np.inf, 0, 0], np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "bias"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    model = model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 4)], {"w": normal(8, 4), "bias": bias})
    settings = DENSE | {"calibration_data": {"x": samples()["x"]}, "effort": "fast"}
    with pytest.raises(NotFiniteError, match="or prune with --allocation uniform"):
        onnxprune.prune(model, allocation="sensitivity", **settings)
    pruned = onnxprune.prune(model, allocation="uniform", **settings).model
    assert np.isfinite(initializer(pruned, "w")).all() and (initializer(pruned, "w") == 0).sum() == 16
    np.testing.assert_array_equal(initializer(pruned, "bias") == -np.inf, bias == -np.inf)
