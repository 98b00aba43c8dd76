"""Fine-tuning of models that end in something without a gradient, and up to --train-until."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune.errors import DataError, SettingError
from tests.builders import floats, initializer, normal

CLASSES = 3
CENTERS = normal(CLASSES, 6, seed=5) * 3
LABELS = np.arange(240) % CLASSES
X = (CENTERS[LABELS] + normal(240, 6, seed=6)).astype(np.float32)
OPTIONS = {"rate": 0.5, "epochs": 4, "format": "dense", "remove_dead": False}


def network(*last: onnx.NodeProto, outputs: dict[str, int]) -> onnx.ModelProto:
    """Two layers, of which the second gives logits that are right for the centers of the classes."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "fc1"),
        helper.make_node("MatMul", ["h", "w2"], ["l"], "fc2"),
        *last,
    ]
    weights = {"w1": np.eye(6, 12, dtype=np.float32) + 0.1 * normal(6, 12), "w2": 0.2 * normal(12, CLASSES)}
    weights["w2"][:6] += CENTERS.T
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    stored = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", [floats("x", "N", 6)], infos, stored)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def arg_max() -> onnx.ModelProto:
    last = helper.make_node("ArgMax", ["l"], ["label"], "last", axis=1, keepdims=0)
    return network(last, outputs={"label": TensorProto.INT64})


def chosen() -> onnx.ModelProto:
    """An end without an entry in the table of operators: the sorted logits of all samples, in one row."""
    return network(
        helper.make_node("Unique", ["l"], ["sorted", "", "", "counts"], "unique"),
        helper.make_node("Flatten", ["sorted"], ["row"], axis=0),
        outputs={"row": TensorProto.FLOAT, "counts": TensorProto.INT64},
    )


def moved(model: onnx.ModelProto, result: onnxprune.Result, name: str) -> bool:
    """Whether the weights that are left were trained."""
    before, after = initializer(model, name), initializer(result.model, name)
    kept = after != 0
    assert 0.4 < 1 - kept.mean() < 0.6
    return not np.array_equal(before[kept], after[kept])


def test_logits_before_an_arg_max_are_trained_on_the_labels_of_its_classes():
    model = arg_max()
    result = onnxprune.prune(model, data={"x": X, "labels": LABELS}, distill=0, **OPTIONS)
    assert moved(model, result, "w1") and moved(model, result, "w2")
    last = result.report.fine_tuning[-1]
    assert last["metric"] == "top-1" and last["score"] > 0.9
    assert result.report.evaluation["pruned"]["value"] > 0.9
    assert list(result.model.graph.node) == list(model.graph.node)


def test_an_end_without_an_entry_is_left_as_it_is_and_what_leads_to_it_is_followed():
    model = chosen()
    result = onnxprune.prune(model, data={"x": X}, **OPTIONS)
    assert moved(model, result, "w1") and moved(model, result, "w2")
    assert any("Unique (unique) cannot be fine-tuned through" in note for note in result.report.notes)
    losses = [epoch["loss"] for epoch in result.report.fine_tuning]
    plain = onnxprune.prune(network(outputs={"l": TensorProto.FLOAT}), data={"x": X}, **OPTIONS)
    assert losses == pytest.approx([epoch["loss"] for epoch in plain.report.fine_tuning])
    found, counts = ort.InferenceSession(result.model.SerializeToString()).run(None, {"x": X})
    assert sum(counts) == CLASSES * len(X) and found.shape == (1, len(counts))


def test_training_until_a_node_leaves_what_is_behind_untrained():
    model = network(outputs={"l": TensorProto.FLOAT})
    result = onnxprune.prune(model, data={"x": X, "labels": LABELS}, train_until="fc1", **OPTIONS)
    assert moved(model, result, "w1") and not moved(model, result, "w2")
    assert "Fine-tuned until fc1. What is behind it was pruned and not trained." in result.report.notes
    assert any("are for the metric alone" in note for note in result.report.notes)
    assert result.report.evaluation["pruned"]["name"] == "top-1"


def test_labels_that_fit_what_is_trained_and_not_the_model_are_used_for_it():
    model = chosen()
    data = {"x": X, "labels": LABELS}
    with pytest.raises(DataError, match="do not fit"):
        onnxprune.prune(model, data=data, **OPTIONS)
    result = onnxprune.prune(model, data=data, train_until="l", distill=0, **OPTIONS)
    last = result.report.fine_tuning[-1]
    assert last["metric"] == "top-1" and last["score"] > 0.9
    assert result.report.evaluation["pruned"] is None


def test_a_loss_of_the_users_own_gets_the_ends_and_the_labels(tmp_path, monkeypatch):
    (tmp_path / "loss_of_ends.py").write_text(
        "import torch.nn.functional as F\n"
        "def loss(outputs, labels):\n"
        "    (logits,) = outputs\n"
        "    return F.cross_entropy(logits, labels)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = {"x": X, "labels": LABELS}
    result = onnxprune.prune(
        chosen(), data=data, train_until="fc2", distill=0, loss="loss_of_ends:loss", **OPTIONS
    )
    assert result.report.fine_tuning[-1]["score"] > 0.9


@pytest.mark.parametrize(
    "settings", [{"pattern": "channel"}, {"schedule": "rigl"}, {"criterion": "movement"}]
)
def test_weights_behind_are_pruned_whatever_prunes_them(settings):
    model = network(outputs={"l": TensorProto.FLOAT})
    options = OPTIONS | {"remove_dead": True}
    result = onnxprune.prune(model, data={"x": X}, train_until="h", **options, **settings)
    assert sum(layer.kept for layer in result.report.layers) < 0.7 * (6 * 12 + 12 * CLASSES)
    assert np.isfinite(result.report.fine_tuning[-1]["loss"])


def test_an_end_without_a_gradient_or_of_no_name_is_refused():
    with pytest.raises(
        SettingError, match=r"--train-until last: it has no gradient; give a node before it.* l"
    ):
        onnxprune.prune(arg_max(), data={"x": X}, train_until="last", **OPTIONS)
    with pytest.raises(SettingError, match="no node and no value of this name: give one, such as fc2, fc1"):
        onnxprune.prune(arg_max(), data={"x": X}, train_until="fc", **OPTIONS)
    with pytest.raises(SettingError, match="--train-until is for fine-tuning: give --data"):
        onnxprune.prune(arg_max(), train_until="fc1", rate=0.5)


def test_an_index_out_of_range_is_told_in_one_line():
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["s"], "fc"),
        helper.make_node("ReduceMean", ["s"], ["y"], axes=[1], keepdims=0),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", 3])
    stored = {"table": normal(5, 4), "w": normal(4, 3)}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "graph", [ids], [floats("y", "N", 3)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wrong = np.arange(192).reshape(64, 3) % 5
    wrong[40:] = 9
    with pytest.raises(DataError, match=r"index 9 is out of bounds.*check the inputs, such as token ids"):
        onnxprune.prune(model, data={"ids": wrong}, **OPTIONS)
