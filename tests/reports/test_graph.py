"""The picture of the graph: every node in order, what changed in it, and lines that meet no box in between."""

import re
from html import unescape

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.reports.graph import MOST_BOXES, graph_view
from onnxprune.reports.graph_chart import _lanes, graph
from tests.builders import cnn


def pruned(tmp_path, model, **settings):
    """The boxes of a pruned model, by name, and its view."""
    onnx.save(model, tmp_path / "in.onnx")
    layers = onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", **settings).report.to_dict()[
        "layers"
    ]
    view = graph_view(tmp_path / "out.onnx", tmp_path / "in.onnx", layers)
    return {box["name"]: box for box in view["boxes"]}, view


def test_boxes_tell_operators_shapes_and_rates_before_and_after(tmp_path):
    boxes, view = pruned(tmp_path, cnn(), rate=0.5, pattern="channel")
    assert list(boxes) == ["x", "conv1", "relu1", "pool1", "conv2", "flatten", "fc", "y"]
    assert view["edges"] == [[place, place + 1] for place in range(7)]
    conv1, relu1 = boxes["conv1"], boxes["relu1"]
    channels = int(conv1["weight"].split(" → ")[1].split("x")[0])
    assert channels < 8 and conv1["weight"] == f"8x1x3x3 → {channels}x1x3x3"
    assert conv1["removed"] == pytest.approx(1 - channels / 8) and conv1["kind"] == "pruned"
    assert (relu1["kind"], relu1["shape"], relu1["shape_before"]) == (
        "smaller",
        f"Nx{channels}x6x6",
        "Nx8x6x6",
    )
    assert boxes["y"]["kind"] == "output" and boxes["x"]["shape"] == "Nx1x8x8"


def test_sparse_operators_name_those_that_they_replace_and_nodes_that_they_took_in_are_gone(tmp_path):
    layers = pruned(tmp_path, cnn(), rate=0.9, layer_rate={"conv1": 0.0}, remove_dead=False)[0]
    assert layers["conv2"]["operator_before"] == "Conv" and layers["conv2"]["operator"].startswith(
        "SparseConv"
    )
    assert layers["conv1"]["kind"] == layers["flatten"]["kind"] == ""
    lenet = onnx.load("models/lenet-5.onnx")
    _, view = pruned(tmp_path, lenet, rate=0.9)
    assert ["Relu", "node_relu"] in view["gone"]
    shown = graph({"graph": view})
    assert "Gemm → SparseGemmRelu" in shown and "Relu node_relu" in shown


def test_nodes_of_integers_name_those_that_they_replace(tmp_path):
    inputs = {"x": np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)}
    boxes, view = pruned(
        tmp_path, cnn(), rate=0.5, quantize="int8", calibration_data=inputs, effort="fast", format="dense"
    )
    assert (boxes["conv2_quant"]["operator_before"], boxes["conv2_quant"]["operator"]) == (
        "Conv",
        "QLinearConv",
    )
    assert boxes["conv2_quant"]["removed"] > 0.2 and boxes["conv2_quant"]["weight"] == "16x8x3x3"
    assert not any(name.startswith(("conv", "fc")) for _, name in view["gone"])
    assert {box["operator"] for box in view["boxes"] if box["kind"] == "new"} >= {"QuantizeLinear"}


def nameless(model):
    for node in model.graph.node:
        node.name = ""
    return model


def twins(model):
    for node in model.graph.node:
        node.name = "node"
    return model


@pytest.mark.parametrize("renamed", [nameless, twins])
@pytest.mark.parametrize("settings", [{"remove_dead": False}, {"format": "dense"}, {"pattern": "channel"}])
def test_nodes_without_names_of_their_own_are_those_that_they_were(tmp_path, renamed, settings):
    """The same picture as with names: what each box was, its weight, its rate; and what is gone.

    Onnxruntime runs no model in which nodes have the same name.
    """
    settings = settings | {"evaluate": renamed is nameless}
    rates = {"layer_rate": {"conv1.weight": 0.0}} if settings.get("pattern") != "channel" else {}
    (tmp_path / "named").mkdir()
    _, expected = pruned(tmp_path / "named", cnn(), rate=0.9, **settings, **rates)
    _, view = pruned(tmp_path, renamed(cnn()), rate=0.9, **settings, **rates)
    kinds = ("kind", "operator", "operator_before", "shape", "shape_before", "weight", "removed")
    shown = [[[box[kind] for kind in kinds] for box in each["boxes"]] for each in (view, expected)]
    assert shown[0] == shown[1] and any(box["kind"] == "pruned" for box in view["boxes"])
    assert [operator for operator, _ in view["gone"]] == [operator for operator, _ in expected["gone"]]


def test_without_the_input_model_the_records_of_the_layers_tell_what_changed(tmp_path):
    _, view = pruned(tmp_path, cnn(), rate=0.9, format="dense", remove_dead=False)
    layers = [{"name": "fc.weight", "nodes": ["fc"], "shape": [4, 144], "size": 576, "kept": 57}]
    alone = graph_view(tmp_path / "out.onnx", None, layers)
    assert [box["name"] for box in alone["boxes"] if box["kind"] == "pruned"] == ["fc"]
    assert alone["gone"] == [] and len(alone["boxes"]) == len(view["boxes"])


def chain(length, weighted):
    """A chain of Abs with a MatMul before each of the numbers of `weighted`, all of which the last node adds up."""
    nodes, weights, name, kept = [], [], "x", []
    for place in range(length):
        if place in weighted:
            matrix = np.random.default_rng(place).standard_normal((16, 16)).astype(np.float32)
            weights.append(numpy_helper.from_array(matrix, f"w{place}"))
            nodes.append(helper.make_node("MatMul", [name, f"w{place}"], [f"m{place}"], f"matmul{place}"))
            name = f"m{place}"
            kept.append(name)
        nodes.append(helper.make_node("Abs", [name], [f"a{place}"], f"abs{place}"))
        name = f"a{place}"
    nodes.append(helper.make_node("Sum", [name, *kept], ["y"], "sum"))
    ends = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["N", 16]) for each in "xy"]
    made = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_large_graph_has_one_box_for_consecutive_nodes_that_did_not_change(tmp_path):
    boxes, view = pruned(tmp_path, chain(60, {20, 40}), rate=0.9)
    shown = [box["operator"] for box in view["boxes"]]
    assert (
        len(shown) == 7 and shown[1] == shown[3] == "20 unchanged nodes" and shown[5] == "21 unchanged nodes"
    )
    assert [boxes[name]["kind"] for name in ("matmul20", "matmul40")] == ["pruned", "pruned"]
    # The sum at the end reads both products, over the boxes between.
    assert [2, 5] in view["edges"] and [4, 5] in view["edges"]


def test_a_graph_of_very_many_changed_nodes_is_cut_and_says_so(tmp_path):
    _, view = pruned(tmp_path, chain(MOST_BOXES, set(range(MOST_BOXES))), rate=0.5)
    assert len(view["boxes"]) == MOST_BOXES and view["left_out"] > 0
    assert f"{view['left_out']:,} more boxes follow" in graph({"graph": view})


def test_lines_of_values_that_are_read_at_once_have_places_of_their_own():
    assert _lanes([[0, 1], [0, 5], [1, 3], [5, 8], [0, 3]]) == {0: 0, 1: 1, 5: 0}


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path):
    model = cnn()
    model.graph.node[1].name = "<b>&relu"
    view = pruned(tmp_path, model, rate=0.5)[1]
    shown = graph({"graph": view})
    assert "<b>" not in shown and "<b>&relu" in unescape(re.sub("<[^>]*>", " ", shown))


def test_a_file_that_cannot_be_read_has_no_picture(tmp_path):
    assert graph_view(tmp_path / "none.onnx", None, []) == {} and graph({}) == ""
