import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.model.weights import find_weights
from onnxprune.sparse.opset import raise_opset
from onnxprune.sparse.rewrite import to_ops
from tests.sparse.graphs import dense_array, op_types, parse, run, sparse_array

# Upsample and Dropout are replaced or rewritten on the way to opset 13, ReduceMean and Gemm come through.
TEXT = """g (float[n, 4, 8, 8] x) => (float[n, 16] y) {
    a = Conv <pads: ints = [1, 1, 1, 1]> (x, conv, bias)
    b = Relu (a)
    c = Upsample (b, scales)
    d = Dropout <ratio: float = 0.5> (c)
    e = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (d)
    y = Gemm (e, gemm, bias)
}"""


def old_model(ir_version=6):
    proto = parse(
        TEXT,
        opset=9,
        ir_version=ir_version,
        conv=sparse_array(16, 4, 3, 3),
        gemm=sparse_array(16, 16),
        bias=dense_array(16),
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    for node in proto.graph.node:
        node.name = f"{node.op_type} 1"
        node.doc_string = f"about {node.op_type}"
        node.metadata_props.add(key="scope", value=node.op_type)
    proto.graph.metadata_props.add(key="traced", value="yes")
    proto.metadata_props.add(key="author", value="someone")
    proto.graph.initializer[0].doc_string = "trained"
    return proto


def same_in_onnxruntime(before, after):
    x = dense_array(2, 4, 8, 8)
    first, second = (run(ir.to_proto(model), x=x)[0] for model in (before, after))
    return np.allclose(first, second, rtol=1e-4, atol=1e-5)


def never_asked(before, after):
    raise AssertionError("no model was converted")


@pytest.mark.parametrize("opset", [11, 13, 20])
def test_a_model_that_can_hold_sparse_nodes_is_returned_as_it_is(opset):
    model = ir.from_proto(parse("g (float[n] x) => (float[n] y) { y = Relu (x) }", opset=opset))
    assert raise_opset(model, never_asked) == (model, None)


def test_an_old_model_is_converted_to_opset_13_and_can_hold_sparse_nodes():
    model = ir.from_proto(old_model())
    converted, reason = raise_opset(model, same_in_onnxruntime)
    assert reason is None
    assert converted.opset_imports == {"": 13}
    assert {outcome.format for outcome in to_ops(converted, find_weights(converted).prunable)} == {"ops"}
    proto = ir.to_proto(converted)
    onnx.checker.check_model(proto, full_check=True)
    x = dense_array(2, 4, 8, 8)
    np.testing.assert_allclose(run(proto, x=x)[0], run(old_model(), x=x)[0], rtol=1e-4, atol=1e-5)


def test_what_the_converter_drops_is_put_back():
    before = old_model()
    converted, _ = raise_opset(ir.from_proto(before), same_in_onnxruntime)
    after = ir.to_proto(converted)
    nodes = {node.name: node for node in after.graph.node}
    for node in before.graph.node:
        restored = nodes[node.name]
        assert list(restored.output) == list(node.output)
        assert restored.doc_string == node.doc_string
        assert restored.metadata_props[0].value == node.op_type
    assert nodes["Upsample 1"].op_type == "Resize"
    assert after.graph.metadata_props[0].value == "yes"
    assert after.metadata_props[0].value == "someone"
    assert next(t for t in after.graph.initializer if t.name == "conv").doc_string == "trained"
    assert {value.name for value in after.graph.value_info} <= {"conv", "gemm", "bias", "scales"}


def test_a_node_that_became_three_gives_its_name_to_one_only():
    proto = parse("g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax <axis: int = 1> (x) }", opset=9)
    proto.graph.node[0].name = "softmax"
    converted, _ = raise_opset(ir.from_proto(proto), lambda before, after: True)
    assert [node.op_type for node in converted.graph if node.name == "softmax"] == ["Softmax"]
    x = dense_array(2, 3, 4)
    np.testing.assert_allclose(run(ir.to_proto(converted), x=x)[0], run(proto, x=x)[0], rtol=1e-5)


def test_weights_are_shared_not_copied():
    model = ir.from_proto(old_model())
    converted, _ = raise_opset(model, same_in_onnxruntime)
    assert converted.graph.initializers["conv"].const_value is model.graph.initializers["conv"].const_value


def test_the_model_that_was_given_is_not_changed():
    model = ir.from_proto(old_model())
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    raise_opset(model, same_in_onnxruntime)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_inputs_stay_inputs_even_where_initializers_are_listed_among_them():
    proto = old_model(ir_version=3)
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    converted, reason = raise_opset(ir.from_proto(proto), same_in_onnxruntime)
    assert reason is None
    assert [value.name for value in converted.graph.inputs] == ["x", "conv", "gemm", "bias", "scales"]
    assert set(converted.graph.initializers) == {"conv", "gemm", "bias", "scales"}


def test_weights_in_external_files_stay_there(tmp_path):
    path = tmp_path / "old.onnx"
    onnx.save_model(old_model(), path, save_as_external_data=True, location="old.data", size_threshold=0)
    converted, reason = raise_opset(ir.load(path), lambda before, after: True)
    assert reason is None
    assert isinstance(converted.graph.initializers["conv"].const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(
        converted.graph.initializers["conv"].const_value.numpy(), sparse_array(16, 4, 3, 3)
    )
    assert converted.graph.initializers["scales"].const_value.numpy().tolist() == [1, 1, 2, 2]


def test_names_inside_if_bodies_are_put_back():
    proto = parse(
        """g (float[1, 1, 2, 2] x, bool c) => (float[1, 1, 4, 4] y) {
            y = If (c) <
                then_branch: graph = yes () => (float[1, 1, 4, 4] y1) { u = Upsample (x, scales) y1 = Relu (u) },
                else_branch: graph = no () => (float[1, 1, 4, 4] y2) { y2 = Upsample (x, scales) }
            >
        }""",
        opset=9,
        ir_version=6,
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    for attribute in proto.graph.node[0].attribute:
        attribute.g.node[0].name = f"upsample in {attribute.g.name}"
    converted, reason = raise_opset(ir.from_proto(proto), lambda before, after: True)
    assert reason is None
    names = {node.name: node.op_type for node in converted.graph.all_nodes() if node.name}
    assert names == {"upsample in yes": "Resize", "upsample in no": "Resize"}
    after = ir.to_proto(converted)
    for condition in (True, False):
        inputs = {"x": dense_array(1, 1, 2, 2), "c": np.array(condition)}
        np.testing.assert_array_equal(run(after, **inputs)[0], run(proto, **inputs)[0])


def test_a_conversion_that_changes_outputs_is_not_taken():
    model = ir.from_proto(old_model())
    kept, reason = raise_opset(model, lambda before, after: False)
    assert kept is model
    assert reason == "the model's opset is 9, and converted to 13 it computes something else"


def test_a_model_that_cannot_be_converted_is_kept_with_the_reason():
    proto = old_model()
    proto.graph.node[1].op_type = "NoSuchOperator"
    model = ir.from_proto(proto)
    kept, reason = raise_opset(model, never_asked)
    assert kept is model
    assert reason.startswith("the model's opset is 9, and ONNX cannot convert it to 13: ")
    assert "\n" not in reason


def test_a_model_with_functions_is_kept():
    proto = old_model()
    function = onnx.parser.parse_function(
        '<domain: "local", opset_import: ["" : 9]> Twice (a) => (b) { b = Add (a, a) }'
    )
    proto.functions.append(function)
    model = ir.from_proto(proto)
    kept, reason = raise_opset(model, never_asked)
    assert kept is model
    assert "functions" in reason


def test_operators_of_other_domains_are_kept_by_the_conversion():
    proto = parse(
        "g (float[n, 4] x) => (float[n, 4] y) { h = MatMul (x, w) y = com.microsoft.Gelu (h) }",
        opset=9,
        w=sparse_array(4, 4),
    )
    proto.opset_import.add(domain="com.microsoft", version=1)
    converted, reason = raise_opset(ir.from_proto(proto), lambda before, after: True)
    assert reason is None
    assert op_types(ir.to_proto(converted).graph) == ["MatMul", "Gelu"]
