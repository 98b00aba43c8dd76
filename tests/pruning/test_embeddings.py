"""Embeddings: named by inspect, pruned where --include names them."""

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune.errors import NothingToPruneError, SelectorError, SettingError
from onnxprune.model.weights import find_weights
from onnxprune.sparse.opening import open_model
from tests.builders import floats, initializer, model_of, normal

IDS = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["N", 5])
WORDS, SIZE = 40, 16
DENSE = {"format": "dense", "remove_dead": False}


def encoder(words=None):
    """ids [N, 5] -> Gather emb -> MatMul fc -> y [N, 5, 4]."""
    nodes = [
        helper.make_node("Gather", ["emb", "ids"], ["h"], "embed"),
        helper.make_node("MatMul", ["h", "fc"], ["y"], "dense"),
    ]
    table = normal(WORDS, SIZE) if words is None else words
    return model_of(nodes, [IDS], [floats("y", "N", 5, 4)], {"emb": table, "fc": normal(SIZE, 4)})


def tied():
    """The table of the input is also that of the output."""
    nodes = [
        helper.make_node("Gather", ["emb", "ids"], ["h"], "embed"),
        helper.make_node("Transpose", ["emb"], ["e"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "e"], ["y"], "head"),
    ]
    return model_of(nodes, [IDS], [floats("y", "N", 5, WORDS)], {"emb": normal(WORDS, SIZE)})


def test_inspect_names_an_embedding_with_its_size_and_how_to_prune_it():
    found = onnxprune.inspect(encoder())
    assert [weight.name for weight in found.weights] == ["fc"]
    (one,) = found.unprunable
    assert (one.weight, one.op_type, one.node, one.size) == ("emb", "Gather", "embed", WORDS * SIZE)
    assert "--include" in one.reason


def test_an_embedding_is_left_and_its_share_is_in_the_summary():
    model = encoder()
    result = onnxprune.prune(model, rate=0.5, **DENSE)
    assert np.array_equal(initializer(result.model, "emb"), initializer(model, "emb"))
    assert [layer.name for layer in result.report.layers] == ["fc"]
    (note,) = (note for note in result.report.notes if "left as they are" in note)
    assert note.startswith("640 of 704 weights (90.91%)")
    assert "emb of Gather embed" in note


@pytest.mark.parametrize("selector", ["emb", "embed", "e*"])
def test_an_included_embedding_is_pruned(selector):
    model = encoder()
    result = onnxprune.prune(model, rate=0.5, include=selector, **DENSE)
    before, after = initializer(model, "emb"), initializer(result.model, "emb")
    assert np.count_nonzero(after) == WORDS * SIZE // 2
    assert np.abs(before[after == 0]).max() <= np.abs(after[after != 0]).min()
    assert {layer.name for layer in result.report.layers} == {"fc", "emb"}
    assert not result.report.unprunable


def test_each_vector_is_an_output():
    result = onnxprune.prune(encoder(), rate=0.5, include="emb", allocation="per-output", **DENSE)
    assert (np.count_nonzero(initializer(result.model, "emb"), axis=1) == SIZE // 2).all()


def test_two_of_four_are_neighbors_in_a_vector():
    result = onnxprune.prune(encoder(), rate=0.5, include="emb", pattern="2:4", **DENSE)
    quads = initializer(result.model, "emb").reshape(-1, 4)
    assert (np.count_nonzero(quads, axis=1) == 2).all()


def test_a_tied_table_is_a_weight_of_its_product():
    found = onnxprune.inspect(tied())
    assert [(weight.name, weight.op_type) for weight in found.weights] == [("emb", "MatMul")]
    assert not found.unprunable


def test_a_model_of_an_embedding_alone_needs_include():
    nodes = [helper.make_node("Gather", ["emb", "ids"], ["y"], "embed")]
    model = model_of(nodes, [IDS], [floats("y", "N", 5, SIZE)], {"emb": normal(WORDS, SIZE)})
    with pytest.raises(NothingToPruneError, match="--include"):
        onnxprune.prune(model, rate=0.5)
    result = onnxprune.prune(model, rate=0.5, include="emb", **DENSE)
    assert np.count_nonzero(initializer(result.model, "emb")) == WORDS * SIZE // 2


@pytest.mark.parametrize("amount", [{"rate": 0.5}, {"std_threshold": 1.0}, {"flops": 0.5}])
def test_every_amount_can_include_an_embedding(amount):
    result = onnxprune.prune(encoder(), include="emb", **amount, format="ops", remove_dead=False)
    assert {layer.name for layer in result.report.layers} == {"fc", "emb"}


def test_sensitivity_with_a_budget_of_multiply_adds_costs_an_embedding_nothing():
    data = {"ids": np.arange(100).reshape(20, 5) % WORDS}
    settings = {"allocation": "sensitivity", "calibration_data": data}
    result = onnxprune.prune(encoder(), include="emb", flops=0.5, **settings, **DENSE)
    layers = {layer.name: layer for layer in result.report.layers}
    assert layers["fc"].kept <= layers["fc"].size // 2


def test_an_include_that_matches_nothing_or_meets_channels_is_refused():
    with pytest.raises(SelectorError, match="'embd'"):
        onnxprune.prune(encoder(), rate=0.5, include="embd")
    with pytest.raises(SettingError, match="remove --include"):
        onnxprune.prune(encoder(), rate=0.5, include="emb", pattern="channel")


def test_an_included_embedding_is_fine_tuned_and_keeps_its_zeros_when_retrained(tmp_path):
    pytest.importorskip("torch")
    ids = np.random.default_rng(0).integers(0, WORDS, (64, 5))
    data = {"ids": ids, "labels": normal(64, 5, 4, seed=3)}
    model, path, out = encoder(), tmp_path / "pruned.onnx", tmp_path / "out.onnx"
    onnxprune.prune(model, path, rate=0.5, include="emb", data=data, epochs=1, **DENSE)
    before, pruned = initializer(model, "emb"), initializer(onnx.load(path), "emb")
    assert np.count_nonzero(pruned) == WORDS * SIZE // 2
    assert not np.isin(pruned[pruned != 0], before).all()
    onnxprune.retrain(path, out, data=data, epochs=1, remove_dead=False)
    trained = initializer(onnx.load(out), "emb")
    assert not trained[pruned == 0].any()
    assert not np.array_equal(trained, pruned)


def test_an_embedding_that_is_not_included_is_not_trained():
    pytest.importorskip("torch")
    data = {"ids": np.arange(160).reshape(32, 5) % WORDS, "labels": normal(32, 5, 4, seed=3)}
    model = encoder()
    result = onnxprune.prune(model, rate=0.5, data=data, epochs=1, **DENSE)
    assert np.array_equal(initializer(result.model, "emb"), initializer(model, "emb"))


def test_a_quantized_embedding_is_pruned_to_its_zero_point():
    nodes = [
        helper.make_node("DequantizeLinear", ["emb", "scale", "zero"], ["table"]),
        helper.make_node("Gather", ["table", "ids"], ["h"], "embed"),
        helper.make_node("MatMul", ["h", "fc"], ["y"], "dense"),
    ]
    table = np.random.default_rng(0).integers(0, 256, (WORDS, SIZE)).astype("u1")
    constants = {"emb": table, "scale": np.float32(0.1), "zero": np.uint8(120), "fc": normal(SIZE, 4)}
    model = model_of(nodes, [IDS], [floats("y", "N", 5, 4)], constants)
    result = onnxprune.prune(model, rate=0.5, include="emb", **DENSE)
    after = initializer(result.model, "emb")
    assert np.count_nonzero(after == 120) >= WORDS * SIZE // 2


def test_embed_layer_normalization_has_three_tables():
    names = {"word": (WORDS, SIZE), "position": (5, SIZE), "segment": (2, SIZE)}
    node = helper.make_node(
        "EmbedLayerNormalization",
        ["ids", "types", *names, "gamma", "beta"],
        ["h", "mask"],
        "embed",
        domain="com.microsoft",
    )
    types = helper.make_tensor_value_info("types", onnx.TensorProto.INT32, ["N", 5])
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT32, ["N", 5])
    graph = helper.make_graph([node], "g", [ids, types], [floats("h", "N", 5, SIZE)])
    graph.initializer.extend(
        onnx.numpy_helper.from_array(normal(*shape), name) for name, shape in names.items()
    )
    graph.initializer.extend(onnx.numpy_helper.from_array(normal(SIZE), name) for name in ("gamma", "beta"))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    found = find_weights(open_model(model).model)
    assert [weight.name for weight in found.embeddings] == ["word", "position", "segment"]
    result = onnxprune.prune(model, rate=0.5, include="word", **DENSE)
    assert np.count_nonzero(initializer(result.model, "word")) == WORDS * SIZE // 2
    assert np.count_nonzero(initializer(result.model, "position")) == 5 * SIZE
