"""Weights that no sparse node can hold are decoded in front of whatever reads them."""

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import ModelFileError, NothingToPruneError
from onnxprune.model.weights import find_weights
from onnxprune.sparse.restore import from_ops
from onnxprune.sparse.rewrite import to_ops
from tests.builders import normal
from tests.fuzz.models import written
from tests.runtime.sessions import kernel_session, needs_kernels
from tests.sparse.graphs import dense_array, op_types, parse, run, sparse_array
from tests.sparse.test_rewrite import assert_same_outputs, canonical

SQUARE = sparse_array(32, 32)
IDS = np.array([[3, 1, 0, 31]])
X = dense_array(3, 32)
SEQUENCE = dense_array(4, 2, 16)


def recurrent(op, gates):
    text = f"g (float[t, n, 16] x) => (float[t, d, n, 16] y) {{ y = {op} <hidden_size = 16> (x, w, r) }}"
    return text, {"w": sparse_array(1, 16 * gates, 16), "r": sparse_array(1, 16 * gates, 16)}, {"x": SEQUENCE}


# The graph, its constants, and the inputs to run it on.
READERS = {
    "Transpose": (
        "g (float[n, 32] x) => (float[n, m] y) { t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }",
        {"w": SQUARE},
        {"x": X},
    ),
    "Identity": (
        "g (float[n, 32] x) => (float[n, m] y) { t = Identity (w) y = MatMul (x, t) }",
        {"w": SQUARE},
        {"x": X},
    ),
    "Cast": (
        "g (float[n, 32] x) => (float[n, m] y) { t = Cast <to = 1> (w) y = MatMul (x, t) }",
        {"w": SQUARE.astype("f2")},
        {"x": X},
    ),
    "Reshape": (
        "g (float[n, 32] x) => (float[n, m] y) { t = Reshape (w, s) y = MatMul (x, t) }",
        {"w": sparse_array(4, 8, 32), "s": np.array([32, 32])},
        {"x": X},
    ),
    "an embedding that is the output's weight too": (
        "g (int64[n, 4] x) => (float[n, 4, m] y) { h = Gather (w, x) t = Transpose (w) y = MatMul (h, t) }",
        {"w": SQUARE},
        {"x": IDS},
    ),
    "an embedding": (
        "g (int64[n, 4] x) => (float[n, 4, 32] y) { y = Gather (w, x) }",
        {"w": SQUARE},
        {"x": IDS},
    ),
    "another node": (
        "g (float[n, 32] x) => (float[n, m] y, float[a, b] z) { y = MatMul (x, w) z = Transpose (w) }",
        {"w": SQUARE},
        {"x": X},
    ),
    "one node twice": (
        "g (float[32, 32] x) => (float[a, b] y) { y = Gemm (x, w, w) }",
        {"w": SQUARE},
        {"x": dense_array(32, 32)},
    ),
    "the caller": (
        "g (float[n, 32] x) => (float[n, m] y, float[32, 32] w) { y = MatMul (x, w) }",
        {"w": SQUARE},
        {"x": X},
    ),
    "ConvTranspose": (
        "g (float[n, 8, 5, 5] x) => (float[n, 8, h, v] y) { y = ConvTranspose <strides = [2, 2]> (x, w) }",
        {"w": sparse_array(8, 8, 3, 3)},
        {"x": dense_array(2, 8, 5, 5)},
    ),
    "LSTM": recurrent("LSTM", 4),
    "GRU": recurrent("GRU", 3),
    "RNN": recurrent("RNN", 1),
    "Einsum": (
        'g (float[n, 32] x) => (float[n, m] y) { y = Einsum <equation = "nj,kj->nk"> (x, w) }',
        {"w": SQUARE},
        {"x": X},
    ),
    "double": (
        "g (double[n, 32] x) => (double[n, m] y) { t = Transpose (w) y = MatMul (x, t) }",
        {"w": SQUARE.astype("f8")},
        {"x": X.astype("f8")},
    ),
    "int8 behind DequantizeLinear": (
        """g (float[n, 32] x) => (float[n, m] y) {
            t = DequantizeLinear (w, s) y = MatMul (x, t)
        }""",
        {"w": np.where(SQUARE != 0, 20 * np.sign(SQUARE), 0).astype("i1"), "s": np.float32(0.05)},
        {"x": X},
    ),
    "uint8 of an integer product": (
        "g (uint8[n, 32] x) => (int32[n, m] y) { y = MatMulInteger (x, w) }",
        {"w": np.where(SQUARE != 0, 77, 0).astype("u1")},
        {"x": np.arange(96, dtype="u1").reshape(3, 32)},
    ),
    "the bodies of an If": (
        """g (float[n, 32] x, bool c) => (float[n, 32] y) {
            y = If (c) <
                then_branch = t () => (float[n, 32] a) { s = Transpose (w) a = MatMul (x, s) },
                else_branch = e () => (float[n, 32] b) { b = MatMul (x, w) }
            >
        }""",
        {"w": SQUARE},
        {"x": X, "c": np.array(True)},
    ),
}


def encoded_of(proto, values="fp32"):
    model = ir.from_proto(proto)
    stored = to_ops(model, find_weights(model).all, values)
    return ir.to_proto(model), stored


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@pytest.mark.parametrize("name", READERS)
def test_a_weight_is_decoded_for_whatever_reads_it_to_the_bit(name, opset):
    text, constants, inputs = READERS[name]
    if (opset < 12 and name == "Einsum") or (opset < 13 and "int8" in name):
        pytest.skip("a later operator")
    dense = parse(text, opset=opset, ir_version=8 if opset < 19 else 10, **constants)
    encoded, stored = encoded_of(dense)
    assert [outcome.format for outcome in stored] == ["ops"] * len(stored)
    assert op_types(encoded.graph).count("SparseWeight") == len(stored)
    assert sum(outcome.bytes for outcome in stored) < sum(array.nbytes for array in constants.values()) * 0.6
    assert_same_outputs(dense, encoded, **inputs)
    model = ir.from_proto(encoded)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


@pytest.mark.parametrize("name", READERS)
def test_inlined_by_onnx_it_is_plain_operators(name):
    text, constants, inputs = READERS[name]
    dense = parse(text, **constants)
    inlined = onnx.inliner.inline_local_functions(encoded_of(dense)[0])
    assert not inlined.functions
    for expected, got in zip(run(dense, **inputs), run(inlined, **inputs), strict=True):
        np.testing.assert_array_equal(got, expected)


@needs_kernels
@pytest.mark.parametrize("name", READERS)
def test_with_the_library_it_is_the_same_function(name):
    text, constants, inputs = READERS[name]
    dense = parse(text, **constants)
    encoded, _ = encoded_of(dense)
    for expected, got in zip(run(dense, **inputs), kernel_session(encoded).run(None, inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_of_two_weights_of_one_node_the_second_is_decoded_in_front():
    text = "g (float[16, 16] x) => (float[16, 16] y) { z = MatMul (v, w) y = Add (x, z) }"
    dense = parse(text, v=sparse_array(16, 16), w=sparse_array(16, 16, seed=5))
    encoded, stored = encoded_of(dense)
    assert [outcome.format for outcome in stored] == ["ops", "ops"]
    assert sorted(op_types(encoded.graph)) == ["Add", "SparseMatMulLeft", "SparseWeight"]
    assert_same_outputs(dense, encoded, x=dense_array(16, 16))
    model = ir.from_proto(encoded)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


def test_what_follows_a_product_is_not_folded_into_a_weight_that_others_read():
    text = """g (float[n, 32] x) => (float[n, 32] y, float[a, b] z) {
        m = MatMul (x, w) y = Mul (m, s) z = Transpose (w)
    }"""
    dense = parse(text, w=SQUARE, s=dense_array(32))
    encoded, (outcome,) = encoded_of(dense)
    assert not outcome.folded
    assert_same_outputs(dense, encoded, x=X)


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_values_are_rounded_as_those_of_sparse_nodes(values):
    text, constants, inputs = READERS["ConvTranspose"]
    dense = parse(text, **constants)
    encoded, (outcome,) = encoded_of(dense, values)
    assert outcome.values == values
    np.testing.assert_allclose(run(encoded, **inputs)[0], run(dense, **inputs)[0], atol=0.1)
    model = ir.from_proto(encoded)
    from_ops(model)
    restored = numpy_helper.to_array(ir.to_proto(model).graph.initializer[0])
    np.testing.assert_allclose(restored, constants["w"], atol=0.02)


def test_a_constant_node_comes_back_as_one():
    text = """g (float[n, 32] x) => (float[n, m] y) {
        w = Constant <value = float[1] {0}> () t = Transpose (w) y = MatMul (x, t)
    }"""
    dense = parse(text)
    dense.graph.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(SQUARE, "w"))
    encoded, (outcome,) = encoded_of(dense)
    assert outcome.format == "ops" and not encoded.graph.initializer
    assert_same_outputs(dense, encoded, x=X)
    model = ir.from_proto(encoded)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (np.where(SQUARE != 0, 99, 7).astype("u1"), "uint8, with a zero point that is not 0"),
        (dense_array(32, 32), "sparse it takes"),
    ],
)
def test_what_stays_dense_says_why(weight, reason):
    if weight.dtype == np.uint8:
        text = "g (float[n, 32] x) => (float[n, m] y) { t = DequantizeLinear (w, s, z) y = MatMul (x, t) }"
        constants = {"w": weight, "s": np.float32(0.1), "z": np.uint8(7)}
    else:
        text, constants = READERS["Transpose"][0], {"w": weight}
    dense = parse(text, **constants)
    encoded, (outcome,) = encoded_of(dense)
    assert outcome.format == "dense" and reason in outcome.reason
    assert canonical(encoded) == canonical(dense)


def lstm(seed=0):
    text = "g (float[t, n, 16] x) => (float[t, d, n, 8] y) { y = LSTM <hidden_size = 8> (x, w, r) }"
    return written(text, {"w": normal(1, 32, 16, seed=seed), "r": normal(1, 32, 8, seed=seed + 1)})


def test_a_pruned_lstm_is_small_and_every_command_reads_it(tmp_path):
    path, again = tmp_path / "pruned.onnx", tmp_path / "again.onnx"
    first = onnxprune.prune(lstm(), path, rate=0.9)
    assert {layer.format for layer in first.report.layers} == {"ops"}
    assert sum(layer.bytes_after for layer in first.report.layers) < 0.2 * 4 * 32 * 24
    found = onnxprune.inspect(path)
    assert [(weight.name, weight.op_type, weight.nonzero) for weight in found.weights] == [
        ("w", "LSTM", 51),
        ("r", "LSTM", 26),
    ]
    onnxprune.prune(path, again, rate=0.95)
    assert [weight.nonzero for weight in onnxprune.inspect(again).weights] == [26, 13]
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    dense = onnxprune.prune(lstm(), rate=0.9, format="dense").model
    assert np.array_equal(session.run(None, {"x": SEQUENCE})[0], run(dense, x=SEQUENCE)[0])
    assert not any(output.mismatched for output in onnxprune.compare(path, dense).outputs)


def test_it_is_fine_tuned_again_with_zeros_that_stay(tmp_path):
    pytest.importorskip("torch")
    path, out = tmp_path / "pruned.onnx", tmp_path / "out.onnx"
    onnxprune.prune(written(*READERS["Transpose"][:2]), path, rate=0.95, remove_dead=False)
    data = {"x": normal(40, 32), "labels": normal(40, 32, seed=4)}
    onnxprune.retrain(path, out, data=data, epochs=1, remove_dead=False)
    before, after = (
        onnxprune.prune(each, rate=0.0, format="dense", remove_dead=False).model for each in (path, out)
    )
    first, second = (numpy_helper.to_array(each.graph.initializer[0]) for each in (before, after))
    assert not second[first == 0].any() and not np.array_equal(first, second)


def test_an_included_embedding_makes_the_file_as_small_as_asked():
    text = "g (int64[n, 5] x) => (float[n, 5, 4] y) { h = Gather (e, x) y = MatMul (h, w) }"
    model = written(text, {"e": normal(1000, 16), "w": normal(16, 4)})
    result = onnxprune.prune(model, bytes=20_000, include="e", remove_dead=False)
    assert 18_000 < result.report.pruned.bytes <= 20_000
    assert {layer.name: layer.format for layer in result.report.layers}["e"] == "ops"


def test_the_record_names_what_stays_dense():
    nodes = "t = DequantizeLinear (q, s, z) h = MatMul (x, t) y = MatMul (h, w)"
    text = f"g (float[n, 32] x) => (float[n, 2] y) {{ {nodes} }}"
    table = np.random.default_rng(0).integers(0, 255, (32, 32)).astype("u1")
    model = written(text, {"q": table, "s": np.float32(0.1), "z": np.uint8(7), "w": normal(32, 2)})
    layers = onnxprune.prune(model, rate=0.5, remove_dead=False).report.layers
    notes = {layer.name: layer.note for layer in layers}
    assert notes["q"] == "it is uint8, with a zero point that is not 0"
    assert notes["w"].startswith("sparse it takes")


def test_there_is_nothing_to_tune_where_no_kernel_runs(tmp_path):
    path = tmp_path / "pruned.onnx"
    onnxprune.prune(lstm(), path, rate=0.9)
    with pytest.raises(NothingToPruneError, match="no Gemm, MatMul or Conv"):
        onnxprune.tune(path, tmp_path / "out.onnx")


def damaged(change):
    proto, _ = encoded_of(parse(READERS["ConvTranspose"][0], **READERS["ConvTranspose"][1]))
    change(proto.graph)
    return proto


def of_type_int64(graph):
    next(each for each in graph.node[0].attribute if each.name == "dtype").i = onnx.TensorProto.INT64


def without_shape(graph):
    del graph.node[0].input[2:]


def with_a_gap_of_zero(graph):
    gaps = next(each for each in graph.initializer if each.name == "w.gaps")
    gaps.raw_data = b"\0" + gaps.raw_data[1:]


@pytest.mark.parametrize(
    ("change", "message"),
    [(of_type_int64, "int8 or uint8"), (without_shape, "not constant"), (with_a_gap_of_zero, "gap 0 is 0")],
)
def test_a_broken_weight_is_refused(change, message):
    with pytest.raises(ModelFileError, match=message):
        from_ops(ir.from_proto(damaged(change)))
