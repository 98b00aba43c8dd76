import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import onnxprune
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import ModelFileError, SettingError
from onnxprune.model.weights import find_weights
from onnxprune.sparse import coding
from onnxprune.sparse.encode import encode, halved, halves, pack_gaps, quantize, unhalved, unpack_gaps
from onnxprune.sparse.restore import from_ops
from onnxprune.sparse.rewrite import to_ops
from tests.sparse.graphs import dense_array, op_types, parse, run, sparse_array
from tests.sparse.test_rewrite import NODES, OPSETS, canonical, weighted_model

FLOAT32 = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=8), elements=st.floats(-1e6, 1e6, width=32)
)


def stored(proto, values):
    """The model with its weights stored sparse, and the outcomes."""
    model = ir.from_proto(proto)
    outcomes = to_ops(model, find_weights(model).prunable, values)
    return ir.to_proto(model), outcomes


def with_dense_weights(proto):
    """The same model with the weights that the file really holds."""
    model = ir.from_proto(proto)
    from_ops(model)
    return ir.to_proto(model)


@pytest.mark.parametrize("density", [0.1, 0.5])
@pytest.mark.parametrize("values", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("node", NODES)
def test_outputs_equal_those_of_the_weights_that_the_file_holds_to_the_bit(node, values, density):
    dense, x = weighted_model(node)
    shape = NODES[node][2]
    weight = sparse_array(*shape, density=density)
    dense.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    encoded, (outcome,) = stored(dense, values)
    onnx.checker.check_model(encoded, full_check=True)
    assert (outcome.format, outcome.values) == ("ops", values)
    held = with_dense_weights(encoded)
    held_weight = onnx.numpy_helper.to_array(held.graph.initializer[-1])
    assert outcome.kept == np.count_nonzero(held_weight) <= np.count_nonzero(weight)
    assert (
        np.abs(held_weight - weight).max()
        <= np.abs(weight).max() / {"int4": 14, "int8": 254, "fp16": 2048}[values] * 1.001
    )
    assert run(encoded, x=x)[0].tobytes() == run(held, x=x)[0].tobytes()
    dense.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(held_weight, "w"))
    assert canonical(held) == canonical(dense)


@pytest.mark.parametrize("opset", OPSETS)
def test_the_functions_in_front_run_at_every_opset(opset):
    dense = parse(
        "g (float[3, 64] x) => (float[3, 64] y) { y = MatMul (x, w) }",
        opset=opset,
        ir_version=8 if opset < 19 else 10,
        w=sparse_array(64, 64, density=0.5),
    )
    x = dense_array(3, 64)
    try:
        run(dense, x=x)
    except Exception as error:
        pytest.skip(f"this onnxruntime does not run opset {opset}: {error}")
    encoded, _ = stored(dense, "int8")
    assert op_types(encoded.graph) == ["Unpack", "Dequantize", "SparseMatMul"]
    onnx.checker.check_model(encoded, full_check=True)
    assert run(encoded, x=x)[0].tobytes() == run(with_dense_weights(encoded), x=x)[0].tobytes()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_other_float_types_are_computed_in_their_own(dtype, values):
    dense, x = weighted_model("Gemm (x, w, b)", dtype)
    encoded, (outcome,) = stored(dense, values)
    assert outcome.format == "ops"
    held = with_dense_weights(encoded)
    assert onnx.numpy_helper.to_array(held.graph.initializer[-1]).dtype == dtype
    assert run(encoded, x=x)[0].tobytes() == run(held, x=x)[0].tobytes()


def test_weights_in_constant_nodes_and_branches_of_an_if_are_rounded_in_place():
    text = """g (float[3, 32] x, bool c) => (float[a, b] y) {
        y = If (c) <
            then_branch = t () => (float[a, b] u) { u = MatMul (x, w) },
            else_branch = e () => (float[a, b] v) { z = MatMul (x, w) v = Tanh (z) }>
    }"""
    dense = parse(text, w=sparse_array(32, 16, density=0.4))
    constant = onnx.helper.make_node("Constant", [], ["w"], name="k", value=dense.graph.initializer[0])
    inner = parse(text)
    inner.graph.node.insert(0, constant)
    for model in (dense, inner):
        encoded, _ = stored(model, "int8")
        held = with_dense_weights(encoded)
        assert op_types(held.graph) == op_types(model.graph)
        for condition in (True, False):
            inputs = {"x": dense_array(3, 32), "c": np.array(condition)}
            assert run(encoded, **inputs)[0].tobytes() == run(held, **inputs)[0].tobytes()


@given(FLOAT32)
def test_int8_keeps_the_largest_of_each_channel_and_is_off_by_half_a_step_at_most(weight):
    rounded = quantize(weight, 0, 127)
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)))
    if rounded is None:
        assert ((largest > 0) & (largest < 1e-35)).any()
        return
    quantized, scales = rounded
    back = quantized.astype(np.float32) * scales.reshape(-1, *[1] * (weight.ndim - 1))
    assert (back[weight == 0] == 0).all()
    np.testing.assert_allclose(np.abs(back).max(axis=tuple(range(1, weight.ndim))), largest, rtol=2e-7)
    assert (np.abs(back - weight) <= 0.5001 * scales.reshape(-1, *[1] * (weight.ndim - 1))).all()


@given(FLOAT32)
def test_fp16_is_off_by_a_2048th_of_the_channels_largest_at_most_or_refused(weight):
    rounded = halves(weight, 0)
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)))
    if rounded is None:
        assert largest.max() > 65504 or ((largest > 0) & (largest < 2**-14)).any()
    else:
        error = np.abs(rounded.astype(np.float32) - weight).max(axis=tuple(range(1, weight.ndim)))
        assert (error <= largest / 2048).all()


@pytest.mark.parametrize(
    ("value", "values"), [(1e5, "fp16"), (1e-6, "fp16"), (np.nan, "int8"), (np.inf, "fp16"), (1e-40, "int8")]
)
def test_a_weight_that_the_type_cannot_hold_keeps_its_values_with_a_note(value, values):
    weight = sparse_array(32, 16)
    weight[:, 3] = 0
    weight[5, 3] = value
    dense = parse("g (float[n, 32] x) => (float[n, 16] y) { y = MatMul (x, w) }", w=weight)
    encoded, (outcome,) = stored(dense, values)
    assert (outcome.values, outcome.kept) == ("", None)
    assert outcome.reason == f"{values} cannot hold its values, which stay float"
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(with_dense_weights(encoded).graph.initializer[0]), weight
    )


WHOLE = {
    "fp16": ["Ones", "SparseMatMul"],
    "int8": ["Ones", "Dequantize", "SparseMatMul"],
    "int4": ["Nibbles", "Ones", "Dequantize", "SparseMatMul"],
}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("values", WHOLE)
def test_where_few_values_are_zero_all_are_stored_without_gaps(values, opset):
    # An odd number of elements.
    w = sparse_array(129, 127, density=0.95)
    dense = parse(
        "g (float[3, 129] x) => (float[3, 127] y) { y = MatMul (x, w) }",
        opset=opset,
        ir_version=8 if opset < 19 else 10,
        w=w,
    )
    x = dense_array(3, 129)
    try:
        run(dense, x=x)
    except Exception as error:
        pytest.skip(f"this onnxruntime does not run opset {opset}: {error}")
    encoded, (outcome,) = stored(dense, values)
    assert op_types(encoded.graph) == WHOLE[values]
    bits = {"fp16": 16, "int8": 8, "int4": 4}[values]
    assert outcome.bytes <= w.size * bits // 8 + 4 * 127 + 64
    onnx.checker.check_model(encoded, full_check=True)
    held = with_dense_weights(encoded)
    assert outcome.kept == np.count_nonzero(onnx.numpy_helper.to_array(held.graph.initializer[-1]))
    assert run(encoded, x=x)[0].tobytes() == run(held, x=x)[0].tobytes()
    assert op_types(held.graph) == op_types(dense.graph)


@pytest.mark.parametrize("change", [lambda packed: packed[:-1], lambda packed: np.append(packed, packed[:1])])
def test_half_bytes_of_another_number_than_there_are_elements_are_refused(change):
    dense = parse(
        "g (float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }", w=sparse_array(64, 64, density=0.95)
    )
    encoded, _ = stored(dense, "int4")
    broken(encoded, "w.halved", change)
    with pytest.raises(ModelFileError, match=r"cannot be decoded .*half bytes"):
        from_ops(ir.from_proto(encoded))


@given(hnp.arrays(np.int8, hnp.array_shapes(max_dims=3, max_side=7), elements=st.integers(-8, 7)))
def test_integers_of_half_bytes_come_back(integers):
    packed = halved(integers)
    assert packed.size == (integers.size + 1) // 2
    back = unhalved(packed, np.array(integers.shape))
    assert back.dtype == np.int8 and np.array_equal(back, integers.reshape(-1))


@given(st.lists(st.integers(1, 15), max_size=40))
def test_unpacking_packed_gaps_gives_the_gaps(gaps):
    array = np.array(gaps, np.uint8)
    packed = pack_gaps(array)
    assert len(packed) == (len(gaps) + 1) // 2
    assert unpack_gaps(packed, len(gaps)).tolist() == gaps


def broken(proto, name, change):
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor)), name))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("w.scales", lambda scales: scales[:-1]),
        ("w.coded", lambda coded: coded[:-2]),
        ("w.layout", lambda layout: layout * 0),
        ("w.layout", lambda layout: layout[:1]),
    ],
)
def test_a_broken_file_is_refused_in_a_sentence(name, change):
    dense = parse(
        "g (float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }", w=sparse_array(64, 64, density=0.5)
    )
    encoded, _ = stored(dense, "int8")
    broken(encoded, name, change)
    with pytest.raises(ModelFileError, match="cannot be decoded"):
        from_ops(ir.from_proto(encoded))


def test_scales_of_another_number_than_there_are_channels_are_refused_by_onnxruntime():
    dense = parse(
        "g (float[n, 32] x) => (float[n, 16] y) { y = MatMul (x, w) }", w=sparse_array(32, 16, density=0.5)
    )
    for change in (lambda scales: scales[:-1], lambda scales: np.append(scales, scales)):
        encoded, _ = stored(dense, "int8")
        broken(encoded, "w.scales", change)
        with pytest.raises(Exception, match=r"[Rr]eshape"):
            run(encoded, x=dense_array(3, 32))


def test_the_job_evaluates_and_records_the_rounded_values_of_the_file(tmp_path):
    dense = parse(
        "g (float[n, 64] x) => (float[n, 64] y) { h = MatMul (x, w) y = Relu (h) }", w=dense_array(64, 64)
    )
    result = onnxprune.prune(dense, tmp_path / "out.onnx", rate=0.5, values="int8")
    (layer,) = result.report.layers
    held = onnx.numpy_helper.to_array(
        with_dense_weights(onnx.load(tmp_path / "out.onnx")).graph.initializer[-1]
    )
    assert (layer.format, layer.values, layer.kept) == ("ops", "int8", np.count_nonzero(held))
    assert result.report.pruned.nonzero == np.count_nonzero(held)
    again = onnxprune.prune(tmp_path / "out.onnx", tmp_path / "again.onnx", rate=0.5, values="int8")
    assert again.report.layers[0].kept <= layer.kept


def test_rounded_values_need_the_ops_format():
    with pytest.raises(SettingError, match="--values int8 is for sparse nodes"):
        PruneConfig(rate=0.5, values="int8", format="dense")


def test_values_and_gaps_as_earlier_versions_stored_them_are_read():
    weight = sparse_array(32, 16, density=0.5)
    dense = parse("g (float[n, 32] x) => (float[n, 16] y) { y = MatMul (x, w) }", w=weight)
    quantized, scales = quantize(weight, 1, 127)
    encoded = encode(quantized, 15)
    parts = {"quantized": encoded.values, "packed": pack_gaps(encoded.gaps), "scales": scales}
    parts |= {"layout": np.array([16, 1]), "shape": encoded.shape}
    text = """<ir_version: 8, opset_import: ["": 13, "onnxprune": 1]>
        g (float[n, 32] x) => (float[n, 16] y) {
            "w.gaps" = onnxprune.UnpackGaps ("w.packed", "w.quantized")
            "w.values" = onnxprune.Dequantize ("w.quantized", "w.gaps", "w.scales", "w.layout")
            y = onnxprune.SparseMatMul <dtype = 1> (x, "w.values", "w.gaps", "w.shape")
        }"""
    old = onnx.parser.parse_model(re.sub(r'"(w\.\w+)"', lambda match: match[1].replace(".", "_"), text))
    for node in old.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("w_", "w.") for name in names]
    old.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, f"w.{name}") for name, array in parts.items()
    )
    held = onnx.numpy_helper.to_array(with_dense_weights(old).graph.initializer[-1])
    np.testing.assert_array_equal(held, quantized * scales)
    assert with_dense_weights(old).graph.initializer[-1].name == "w"
    assert len(with_dense_weights(old).graph.node) == len(dense.graph.node)


def test_an_embedding_that_is_not_pruned_is_rounded_too():
    dense = parse("g (int64[n] x) => (float[n, 32] y) { y = Gather (t, x) }", t=dense_array(200, 32))
    for values, most in (("int8", 1.0), ("int4", 0.6)):
        model = ir.from_proto(dense)
        (outcome,) = to_ops(model, find_weights(model).all, values)
        assert (outcome.format, outcome.values) == ("ops", values)
        assert outcome.bytes < most * 200 * 32 + 1200
        proto, x = ir.to_proto(model), np.arange(0, 200, 7)
        assert run(proto, x=x)[0].tobytes() == run(with_dense_weights(proto), x=x)[0].tobytes()


def test_a_model_with_few_non_zeros_is_not_coded(monkeypatch):
    dense = parse(
        "g (float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }", w=sparse_array(64, 64, density=0.5)
    )
    nonzero = np.count_nonzero(onnx.numpy_helper.to_array(dense.graph.initializer[0]))
    for least, first in ((nonzero, "Unpack"), (nonzero + 1, "UnpackGaps")):
        monkeypatch.setattr(coding, "LEAST_CODED", least)
        encoded, _ = stored(dense, "int8")
        assert op_types(encoded.graph) == [first, "Dequantize", "SparseMatMul"]


def test_the_figures_of_the_pruned_model_leave_out_what_became_zero_by_rounding(tmp_path):
    weight = np.arange(4096, dtype=np.float32).reshape(64, 64) % 61 - 30
    dense = parse("g (float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }", w=weight)
    found = onnxprune.prune(dense, tmp_path / "out.onnx", rate=0, values="int4").report.pruned
    assert found.nonzero < np.count_nonzero(weight)
    assert found.nonzero_multiply_adds == found.nonzero
    assert found.multiply_adds == 4096
