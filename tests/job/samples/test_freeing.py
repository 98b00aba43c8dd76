"""A model that fixes its batch size is trained in the batches asked for."""

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune.errors import SettingError
from onnxprune.job.samples.freeing import _equal
from tests.builders import cnn, floats, initializer, mlp, model_of, normal

FAST = {
    "augment": "none",
    "rate": 0.5,
    "epochs": 2,
    "schedule": "one-shot",
    "allocation": "uniform",
    "learning_rate": 1e-2,
    "format": "dense",
}
SAMPLES = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
DATA = {"x": SAMPLES, "labels": np.arange(40) % 4}


def with_batch(proto, size):
    """The model with a fixed batch size."""
    fixed = onnx.ModelProto.FromString(proto.SerializeToString())
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    return fixed


def weights(result):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}


def test_a_freed_model_is_trained_to_the_very_weights_of_one_that_was_free():
    free, fixed = (
        onnxprune.prune(each, data=DATA, batch_size=8, **FAST) for each in (cnn(), with_batch(cnn(), 1))
    )
    for name, array in weights(free).items():
        np.testing.assert_array_equal(weights(fixed)[name], array)
    dims = fixed.model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 1, 8, 8]
    (note,) = [note for note in fixed.report.notes if "at a time" in note]
    assert (
        "1 sample at a time" in note and "its batch axis was freed, with equal outputs for 4 samples" in note
    )


def centered(proto, size):
    """A network whose output is what its samples have beyond their mean: samples are not independent."""
    fixed = with_batch(proto, size)
    fixed.graph.node[-1].output[0] = "z"
    fixed.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["z"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["z", "mean"], ["half"]),
            helper.make_node("Add", ["half", "z"], ["y"]),
        ]
    )
    return fixed


def tied(hidden=16):
    """An mlp of one sample that cannot be freed: a constant of shape [1, hidden] is joined to the hidden values."""
    proto = with_batch(mlp(), 1)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 0), np.float32), "nothing"))
    proto.graph.node.insert(2, helper.make_node("Concat", ["r", "nothing"], ["joined"], axis=1))
    proto.graph.node[3].input[0] = "joined"
    return proto


def test_gradients_are_summed_to_those_of_the_batch_where_a_model_cannot_be_freed():
    data = {"x": normal(40, 8), "labels": np.arange(40) % 4}
    settings = {**FAST, "data": data, "batch_size": 8, "optimizer": "sgd", "mixup": False}
    free, bound = (onnxprune.prune(each, **settings) for each in (mlp(), tied()))
    for name, array in weights(free).items():
        np.testing.assert_allclose(weights(bound)[name], array, rtol=1e-3, atol=1e-5)
    assert any("the gradients of a batch are summed over runs of 1" in note for note in bound.report.notes)
    alone = onnxprune.prune(tied(), **settings | {"batch_size": 1})
    assert not np.allclose(weights(alone)["fc1.weight"], weights(bound)["fc1.weight"], atol=1e-3)


def test_a_batch_that_is_no_multiple_of_the_fixed_size_is_told():
    data = {"x": normal(40, 8), "labels": np.arange(40) % 4}
    settings = {**FAST, "batch_size": 10, "batch_axis": "x:0"}
    report = onnxprune.prune(centered(mlp(), 4), data=data, **settings).report
    assert any("A batch has 8 samples and not 10" in note for note in report.notes)


@pytest.mark.parametrize(("free", "fixed"), [(cnn(), with_batch(cnn(), 1)), (mlp(), tied())])
def test_as_many_synthetic_samples_are_calibrated_on_as_were_asked_for(free, fixed):
    settings = {"criterion": "second-order", "calibration_data": "synthetic", "calibration_samples": 20}
    results = [onnxprune.prune(each, rate=0.5, format="dense", **settings) for each in (free, fixed)]
    assert all(result.report.evaluation["samples"] == 236 for result in results)
    for name, array in weights(results[0]).items():
        np.testing.assert_allclose(weights(results[1])[name], array, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [1, 4])
def test_a_freed_model_is_quantized_as_one_that_was_free(size):
    settings = FAST | {"epochs": 1, "quantize": "int8", "quantize_ranges": "minmax", "batch_size": 8}
    free, fixed = (onnxprune.prune(each, data=DATA, **settings) for each in (cnn(), with_batch(cnn(), size)))
    assert fixed.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == size
    found = weights(fixed)
    assert any(array.dtype == np.int8 for array in found.values())
    for name, array in weights(free).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6 if array.dtype.kind == "f" else 0)


def test_a_job_that_does_not_run_the_model_takes_the_axes_that_are_given():
    axes = ("x:1", "h:1", "c:1")
    report = onnxprune.prune(recurrent(), rate=0.5, evaluate=False, batch_axis=axes).report
    assert report.sample == {"x": (16, 1, 5), "h": (1, 1, 8), "c": (1, 1, 8)}
    assert not any("labels" in note or "Samples lie" in note for note in report.notes)
    with pytest.raises(SettingError, match="--batch-axis z: the model has no such input or output"):
        onnxprune.prune(recurrent(), rate=0.5, evaluate=False, batch_axis="z:0")


def recurrent():
    """x [T, N, 5] with states h [1, N, 8] -> LSTM -> the last state -> y [N, 4]."""
    return model_of(
        [
            helper.make_node("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["", "last"], hidden_size=8),
            helper.make_node("Squeeze", ["last", "first"], ["s"]),
            helper.make_node("Gemm", ["s", "fc"], ["y"]),
        ],
        [floats("x", "T", "N", 5), floats("h", 1, "N", 8), floats("c", 1, "N", 8)],
        [floats("y", "N", 4)],
        {
            "w": normal(1, 32, 5),
            "r": normal(1, 32, 8),
            "b": normal(1, 64),
            "first": np.array([0]),
            "fc": normal(8, 4),
        },
    )


def test_time_major_samples_with_states_are_trained_like_those_of_one_sequence_each():
    x = normal(6, 40, 5)
    states = {name: normal(1, 40, 8, seed=place) for place, name in enumerate("hc")}
    data = {"x": x, **states, "labels": np.arange(40) % 4}
    result = onnxprune.prune(recurrent(), data=data, eval_data=data, batch_size=8, mixup=False, **FAST)
    assert result.report.evaluation["samples"] == 40
    assert any("--batch-axis x:1 --batch-axis h:1 --batch-axis c:1" in note for note in result.report.notes)
    # The same samples as a dataset of single ones.
    rows = [
        {"x": x[:, place], "h": states["h"][:, place], "c": states["c"][:, place], "labels": place % 4}
        for place in range(40)
    ]

    import torch

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            return rows[index]

    other = onnxprune.prune(
        recurrent(), data=Rows(), eval_data=data, batch_size=8, mixup=False, data_workers=0, **FAST
    )
    for name, array in weights(result).items():
        np.testing.assert_allclose(weights(other)[name], array, rtol=1e-4, atol=1e-5)
    assert not np.array_equal(weights(result)["fc"], initializer(recurrent(), "fc"))


def test_samples_of_several_lengths_are_evaluated_calibrated_and_trained():
    lengths = [4 + place % 3 for place in range(30)]
    data = [
        {
            "x": normal(length, 1, 5, seed=place),
            "h": np.zeros((1, 1, 8), np.float32),
            "c": np.zeros((1, 1, 8), np.float32),
            "labels": np.array([place % 4]),
        }
        for place, length in enumerate(lengths)
    ]
    result = onnxprune.prune(recurrent(), data=data, eval_data=data, batch_size=8, **FAST)
    assert result.report.evaluation["samples"] == 30
    inputs = [{key: array for key, array in each.items() if key != "labels"} for each in data]
    report = onnxprune.prune(
        recurrent(), rate=0.5, criterion="second-order", calibration_data=inputs, eval_data=inputs
    ).report
    assert report.evaluation["samples"] == 30


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_outputs_without_elements_do_not_show_that_runs_are_equal(dtype, recwarn):
    assert _equal((np.ones((2, 3), dtype),), (np.ones((2, 3), dtype),))
    assert not _equal((np.zeros((0, 3), dtype),), (np.zeros((0, 3), dtype),))
    assert not recwarn
