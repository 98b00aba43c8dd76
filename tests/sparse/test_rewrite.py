import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnxprune.errors import ModelFileError
from onnxprune.model.constants import set_constant
from onnxprune.model.weights import find_weights
from onnxprune.sparse.encode import encode
from onnxprune.sparse.functions import BASE_OPS
from onnxprune.sparse.restore import from_ops
from onnxprune.sparse.rewrite import to_ops
from tests.sparse.graphs import dense_array, op_types, parse, run, sparse, sparse_array

OPSETS = range(11, onnx.defs.onnx_opset_version() + 1)

# Node -> operator it becomes, shapes of x, of the weight and of the bias.
NODES = {
    "Gemm (x, w, b)": ("SparseGemm", (3, 32), (32, 16), (16,)),
    "Gemm (x, w)": ("SparseGemm", (3, 32), (32, 16), None),
    "Gemm <transB: int = 1> (x, w, b)": ("SparseGemm", (3, 32), (16, 32), (16,)),
    "Gemm <alpha: float = 0.5, beta: float = 2.0, transA: int = 1> (x, w, b)": (
        "SparseGemm",
        (32, 3),
        (32, 16),
        (3, 1),
    ),
    "Gemm (w, x, b)": ("SparseGemmLeft", (32, 3), (16, 32), (3,)),
    "Gemm <alpha: float = 0.5, transA: int = 1, transB: int = 1> (w, x)": (
        "SparseGemmLeft",
        (3, 32),
        (32, 16),
        None,
    ),
    "MatMul (x, w)": ("SparseMatMul", (2, 3, 32), (32, 16), None),
    "MatMul(x, w)": ("SparseMatMul", (4, 3, 32), (4, 32, 16), None),
    "MatMul (w, x)": ("SparseMatMulLeft", (2, 32, 3), (16, 32), None),
    "Conv (x, w, b)": ("SparseConv", (1, 8, 9, 9), (16, 8, 3, 3), (16,)),
    "Conv (x, w)": ("SparseConvNoBias", (1, 8, 9, 9), (16, 8, 3, 3), None),
    "Conv (x, w, absent)": ("SparseConv", (1, 8, 9, 9), (16, 8, 3, 3), None),
    "Conv <strides: ints = [2, 1], pads: ints = [1, 0, 2, 1], kernel_shape: ints = [3, 3]> (x, w, b)": (
        "SparseConv",
        (1, 8, 9, 9),
        (16, 8, 3, 3),
        (16,),
    ),
    "Conv <dilations: ints = [2, 2], group: int = 4> (x, w, b)": (
        "SparseConv",
        (1, 16, 9, 9),
        (16, 4, 3, 3),
        (16,),
    ),
    'Conv <auto_pad: string = "SAME_UPPER", strides: ints = [2, 2]> (x, w, b)': (
        "SparseConv",
        (1, 8, 9, 8),
        (16, 8, 3, 3),
        (16,),
    ),
    'Conv <auto_pad: string = "SAME_LOWER"> (x, w)': ("SparseConvNoBias", (1, 8, 9, 8), (16, 8, 2, 2), None),
    'Conv <auto_pad: string = "VALID"> (x, w)': ("SparseConvNoBias", (1, 8, 9, 8), (16, 8, 2, 2), None),
    "Conv <pads: ints = [2, 2]> (x, w, b)": ("SparseConv", (2, 8, 20), (16, 8, 5), (16,)),
    "Conv <strides: ints = [1, 2, 1]> (x, w)": ("SparseConvNoBias", (1, 4, 5, 6, 7), (8, 4, 3, 3, 3), None),
}


def weighted_model(node, dtype=np.float32, opset=13):
    """x -> node -> Relu -> y, and the x to run it with; the Relu is there to be fused.

    The sparse node takes it in, unless its weight is on the left.
    """
    _, x_shape, w_shape, b_shape = NODES[node]
    name = {np.float32: "float", np.float16: "float16", np.float64: "double"}[dtype]
    dims = ", ".join(map(str, x_shape))
    out_dims = ", ".join("abcde"[: max(len(x_shape), len(w_shape))])
    constants = {"w": sparse_array(*w_shape, dtype=dtype)}
    if b_shape:
        constants["b"] = dense_array(*b_shape, dtype=dtype)
    text = f"g ({name}[{dims}] x) => ({name}[{out_dims}] y) {{ z = {node} y = Relu (z) }}"
    proto = parse(text, opset=opset, **constants)
    inputs = proto.graph.node[0].input
    inputs[:] = ["" if name == "absent" else name for name in inputs]
    return proto, dense_array(*x_shape, dtype=dtype, seed=2)


def assert_same_outputs(dense, encoded, **inputs):
    """The checker passes; outputs are equal to the bit, and without optimisations to rounding.

    Unoptimised, the weight is computed at run time and cannot be packed at load: another kernel multiplies.
    """
    onnx.checker.check_model(encoded, full_check=True)
    for expected, got in zip(run(dense, **inputs), run(encoded, **inputs), strict=True):
        assert expected.dtype == got.dtype
        assert expected.tobytes() == got.tobytes()
    unoptimized = [run(model, optimized=False, **inputs) for model in (dense, encoded)]
    for expected, got in zip(*unoptimized, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3 if got.dtype == np.float16 else 1e-5)


def canonical(proto):
    """The model's bytes, whatever the order of initializers and the IR version."""
    copy = ir.to_proto(ir.from_proto(proto))
    copy.ir_version = 0

    def sort(graph):
        for field in (graph.initializer, graph.value_info):
            entries = sorted(field, key=lambda entry: entry.name)
            del field[:]
            field.extend(entries)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    sort(attribute.g)

    sort(copy.graph)
    return copy.SerializeToString(deterministic=True)


@pytest.mark.parametrize("node", NODES)
def test_outputs_of_the_sparse_node_equal_the_dense_ones_to_the_bit(node):
    dense, x = weighted_model(node)
    encoded, stored = sparse(dense)
    name = NODES[node][0]
    assert op_types(encoded.graph) == ([name, "Relu"] if name.endswith("Left") else [f"{name}Relu"])
    assert [outcome.format for outcome in stored] == ["ops"]
    assert_same_outputs(dense, encoded, x=x)


@pytest.mark.parametrize("node", NODES)
def test_from_ops_undoes_to_ops(node):
    dense, _ = weighted_model(node)
    model = ir.from_proto(sparse(dense)[0])
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_from_11_on_passes_the_checker_and_runs(opset):
    text = """g (float[1, 4, 8, 8] x) => (float[a, b] y) {
        features = Conv <strides: ints = [2, 2]> (x, conv, bias)
        flat = Flatten (features)
        hidden = Gemm (flat, gemm, bias)
        y = MatMul (hidden, matmul)
    }"""
    dense = parse(
        text,
        opset=opset,
        ir_version=8 if opset < 19 else 10,
        conv=sparse_array(16, 4, 3, 3),
        gemm=sparse_array(144, 16),
        matmul=sparse_array(16, 10),
        bias=dense_array(16),
    )
    x = dense_array(1, 4, 8, 8)
    try:
        run(dense, x=x)
    except Exception as error:
        pytest.skip(f"this onnxruntime does not run opset {opset}: {error}")
    encoded, _ = sparse(dense)
    assert op_types(encoded.graph) == ["SparseConv", "Flatten", "SparseGemm", "SparseMatMul"]
    assert_same_outputs(dense, encoded, x=x)


@pytest.mark.parametrize(
    ("node", "dtype"),
    [
        ("Gemm (x, w, b)", np.float16),
        ("MatMul (x, w)", np.float16),
        ("Conv (x, w, b)", np.float16),
        ("Conv (x, w)", np.float16),
        ("Gemm (x, w, b)", np.float64),
        ("MatMul (x, w)", np.float64),
    ],
)
def test_weights_of_other_float_types_keep_their_type(node, dtype):
    dense, x = weighted_model(node, dtype)
    encoded, _ = sparse(dense)
    values = next(tensor for tensor in encoded.graph.initializer if tensor.name == "w.values")
    assert numpy_helper.to_array(values).dtype == dtype
    assert_same_outputs(dense, encoded, x=x)


def test_a_bfloat16_weight_stays_dense():
    proto = parse("g (bfloat16[n, 64] x) => (bfloat16[n, 64] y) { y = MatMul (x, w) }")
    proto.graph.initializer.append(
        onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, (64, 64), np.zeros(64 * 64, np.float32))
    )
    encoded, (outcome,) = sparse(proto)
    assert (outcome.format, outcome.bytes) == ("dense", 8192)
    assert "bfloat16" in outcome.reason
    assert op_types(encoded.graph) == ["MatMul"]


def test_values_stored_in_half_precision_are_cast_to_the_type_of_the_weight():
    dense, x = weighted_model("Gemm (x, w, b)")
    rounded = sparse_array(32, 16).astype(np.float16)
    dense.graph.initializer[0].CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), "w"))
    model = ir.from_proto(sparse(dense)[0])
    values = model.graph.initializers["w.values"]
    set_constant(values, values.const_value.numpy().astype(np.float16), ir.DataType.FLOAT16)
    values.type = ir.TensorType(ir.DataType.FLOAT16)
    assert_same_outputs(dense, ir.to_proto(model), x=x)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


def test_a_weight_of_zeros_runs():
    dense, x = weighted_model("Gemm (x, w, b)")
    dense.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((32, 16), np.float32), "w"))
    encoded, (outcome,) = sparse(dense)
    assert outcome.bytes == 4 + 1 + 2 * 8
    assert_same_outputs(dense, encoded, x=x)


def test_nan_and_infinity_in_a_weight_are_kept():
    dense, x = weighted_model("Gemm (x, w, b)")
    weight = sparse_array(32, 16)
    weight[3, 4], weight[5, 6] = np.inf, np.nan
    dense.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    assert_same_outputs(dense, sparse(dense)[0], x=x)


def value_names(graph):
    """Names of the initializers of a graph and its subgraphs."""
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [tensor.name for tensor in graph.initializer] + [
        name for body in bodies for name in value_names(body)
    ]


IF_TEXT = """g (float[n, 32] x, bool c) => (float[n, 16] y) {
    y = If (c) <
        then_branch: graph = yes () => (float[n, 16] y1) { y1 = MatMul (x, w) },
        else_branch: graph = no () => (float[n, 16] y2) { y2 = Gemm (x, w) }
    >
}"""


def if_model(*, inside):
    """An If whose branches multiply by `w`: the outer graph's, or each its own under the same name."""
    proto = parse(IF_TEXT, **({} if inside else {"w": sparse_array(32, 16)}))
    if inside:
        for seed, attribute in enumerate(proto.graph.node[0].attribute):
            attribute.g.initializer.append(numpy_helper.from_array(sparse_array(32, 16, seed=seed), "w"))
    return proto


@pytest.mark.parametrize("inside", [True, False], ids=["weights inside", "weight outside"])
def test_weights_read_in_branches_of_an_if_become_sparse_in_place(inside):
    dense = if_model(inside=inside)
    encoded, stored = sparse(dense)
    assert op_types(encoded.graph) == ["If", "SparseMatMul", "SparseGemm"]
    assert len(stored) == (2 if inside else 1)
    assert bool(encoded.graph.initializer) != inside
    names = [name for name in value_names(encoded.graph) if ".values" in name]
    assert names == (["w.values", "w.values_2"] if inside else ["w.values"])
    for condition in (True, False):
        assert_same_outputs(dense, encoded, x=dense_array(3, 32), c=np.array(condition))
    model = ir.from_proto(encoded)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


def test_a_weight_in_a_loop_body_becomes_sparse():
    text = """g (float[2, 16] x) => (float[2, 16] y) {
        trips = Constant <value: tensor = int64 {3}> ()
        y = Loop (trips, , x) <body: graph = body (int64 i, bool go, float[2, 16] state)
            => (bool going, float[2, 16] next) {
            going = Identity (go)
            next = MatMul (state, w)
        }>
    }"""
    dense = parse(text, w=sparse_array(16, 16))
    encoded, _ = sparse(dense)
    assert "SparseMatMul" in op_types(encoded.graph)
    assert_same_outputs(dense, encoded, x=dense_array(2, 16))


def test_a_shared_weight_is_stored_once():
    text = "g (float[n, 32] x) => (float[n, 32] y) { z = Gemm <transB: int = 1> (x, w) y = MatMul (z, w) }"
    dense = parse(text, w=sparse_array(32, 32))
    encoded, stored = sparse(dense)
    assert op_types(encoded.graph) == ["SparseGemm", "SparseMatMul"]
    assert [tensor.name for tensor in encoded.graph.initializer] == ["w.values", "w.gaps", "w.shape"]
    assert len(stored) == 1
    assert_same_outputs(dense, encoded, x=dense_array(3, 32))
    model = ir.from_proto(encoded)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


def test_a_constant_node_becomes_three_of_its_name_and_is_restored():
    dense = parse("g (float[n, 32] x) => (float[n, 16] y) { y = MatMul (x, w) }")
    constant = onnx.helper.make_node(
        "Constant", [], ["w"], name="const_3", value=numpy_helper.from_array(sparse_array(32, 16), "w")
    )
    constant.metadata_props.add(key="scope", value="encoder")
    dense.graph.node.insert(0, constant)
    encoded, _ = sparse(dense)
    assert [node.name for node in encoded.graph.node] == [
        "const_3.values",
        "const_3.gaps",
        "const_3.shape",
        "",
    ]
    assert_same_outputs(dense, encoded, x=dense_array(3, 32))
    model = ir.from_proto(encoded)
    from_ops(model)
    restored = ir.to_proto(model)
    assert restored.graph.node[0].name == "const_3"
    assert restored.graph.node[0].metadata_props[0].value == "encoder"
    assert canonical(restored) == canonical(dense)


def test_names_metadata_and_order_of_nodes_stay():
    dense, _ = weighted_model("Gemm <transB: int = 1> (x, w, b)")
    dense.graph.node[1].op_type = "Softmax"
    node = dense.graph.node[0]
    node.name, node.doc_string = "fc1", "the first layer"
    node.metadata_props.add(key="scope", value="head")
    encoded, _ = sparse(dense)
    after = encoded.graph.node[0]
    assert (after.name, after.doc_string, list(after.output)) == ("fc1", "the first layer", ["z"])
    assert after.metadata_props[0].value == "head"
    assert list(after.input) == ["x", "w.values", "w.gaps", "w.shape", "b"]
    assert [node.name for node in encoded.graph.node] == [node.name for node in dense.graph.node]


def test_the_model_declares_what_its_sparse_nodes_need():
    dense, _ = weighted_model("Gemm (x, w, b)")
    dense.ir_version = 7
    encoded, _ = sparse(dense)
    assert encoded.ir_version == 8
    assert {entry.domain: entry.version for entry in encoded.opset_import} == {"": 13, "onnxprune": 1}
    assert [function.name for function in encoded.functions] == ["SparseGemmRelu", "SparseWeight"]
    assert {entry.domain: entry.version for entry in encoded.functions[0].opset_import} == {
        "": 13,
        "onnxprune": 1,
    }
    assert [entry.version for entry in encoded.functions[1].opset_import] == [13]


def test_a_later_ir_version_stays():
    dense, _ = weighted_model("Gemm (x, w, b)")
    dense.ir_version = 10
    assert sparse(dense)[0].ir_version == 10


def test_the_standard_domain_may_be_spelled_out():
    dense, x = weighted_model("Gemm (x, w, b)")
    dense.opset_import[0].domain = "ai.onnx"
    encoded, _ = sparse(dense)
    assert op_types(encoded.graph) == ["SparseGemmRelu"]
    np.testing.assert_array_equal(run(encoded, x=x)[0], run(dense, x=x)[0])


def test_a_weight_that_callers_can_override_stays_dense():
    dense, _ = weighted_model("Gemm (x, w, b)")
    dense.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (32, 16)))
    encoded, (stored,) = sparse(dense)
    assert [value.name for value in encoded.graph.input] == ["x", "w"]
    assert (stored.format, stored.reason) == (
        "dense",
        "it is an input of the graph too, which callers can override",
    )


def test_initializers_that_ir_3_made_list_as_inputs_stay_constant():
    dense, x = weighted_model("Conv (x, w, b)")
    dense.ir_version = 3
    for tensor in dense.graph.initializer:
        dense.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    encoded, _ = sparse(dense)
    assert [value.name for value in encoded.graph.input] == ["x"]
    assert_same_outputs(dense, encoded, x=x)


def test_names_that_are_taken_are_numbered_and_restored():
    dense = parse(
        "g (float[n, 32] x) => (float[n, 16] y) { w_gaps = MatMul (x, w) y = Softmax (w_gaps) }",
        w=sparse_array(32, 16),
    )
    for node in dense.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = name.replace("w_gaps", "w.gaps")
    encoded, _ = sparse(dense)
    assert list(encoded.graph.node[0].input) == ["x", "w.values_2", "w.gaps_2", "w.shape_2"]
    assert_same_outputs(dense, encoded, x=dense_array(3, 32))
    model = ir.from_proto(encoded)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


@pytest.mark.parametrize("density", [0.81, 1.0])
def test_a_weight_that_gains_nothing_stays_as_it_was(density):
    dense = parse(
        "g (float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }",
        w=sparse_array(64, 64, density=density),
    )
    encoded, (outcome,) = sparse(dense)
    assert (outcome.format, outcome.bytes) == ("dense", 64 * 64 * 4)
    assert outcome.reason.endswith("bytes, names included, dense 16,384")
    assert canonical(encoded) == canonical(dense)


def test_a_weight_that_only_the_names_make_larger_stays_as_it_was():
    dense = parse(
        "g (float[n, 8] x) => (float[n, 8] y) { y = MatMul (x, w) }", w=sparse_array(8, 8, density=0.3)
    )
    _, (outcome,) = sparse(dense)
    assert encode(sparse_array(8, 8, density=0.3)).nbytes < 256
    assert outcome.format == "dense"


def test_fillers_count_when_the_form_is_chosen():
    weight = np.zeros((1, 512), np.float16)
    weight[0, -1] = 1
    dense = parse("g (float16[n, 1] x) => (float16[n, 512] y) { y = MatMul (x, w) }", w=weight)
    assert [outcome.bytes for outcome in sparse(dense)[1]] == [3 * 3 + 2 * 8]


def test_only_the_weights_that_were_given_become_sparse():
    dense = parse(
        "g (float[n, 32] x) => (float[n, 32] y) { z = MatMul (x, v) y = MatMul (z, w) }",
        v=sparse_array(32, 32),
        w=sparse_array(32, 32),
    )
    model = ir.from_proto(dense)
    to_ops(model, find_weights(model).prunable[1:])
    assert op_types(ir.to_proto(model).graph) == ["MatMul", "SparseMatMul"]


def test_below_opset_11_weights_stay_dense():
    dense, _ = weighted_model("Gemm (x, w, b)", opset=9)
    encoded, (outcome,) = sparse(dense)
    assert outcome.reason == "sparse nodes need opset 11, the model's is 9"
    assert canonical(encoded) == canonical(dense)


@pytest.mark.parametrize("node", NODES)
def test_inlining_the_functions_gives_standard_operators(node):
    dense, x = weighted_model(node)
    encoded, _ = sparse(dense)
    plain = onnx.inliner.inline_local_functions(encoded)
    assert not plain.functions
    assert {node.domain for node in plain.graph.node} == {""}
    np.testing.assert_array_equal(run(plain, x=x)[0], run(dense, x=x)[0])


def test_every_operator_has_a_case_here():
    assert {case[0] for case in NODES.values()} == {op.name for op in BASE_OPS}


@pytest.mark.parametrize("node", ["Gemm (x, w, b)", "Conv (x, w)"])
def test_stock_onnxruntime_loads_the_file_without_a_warning(node, capfd):
    dense, x = weighted_model(node)
    run(sparse(dense)[0], x=x)
    assert capfd.readouterr().err == ""


def test_from_ops_leaves_other_models_as_they_are():
    dense, _ = weighted_model("Gemm (x, w, b)")
    model = ir.from_proto(dense)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


def test_a_weight_whose_name_was_taken_since_gets_a_number():
    dense, _ = weighted_model("Gemm (x, w, b)")
    encoded, _ = sparse(dense)
    encoded.graph.node.add(op_type="Identity", input=["x"], output=["w"])
    model = ir.from_proto(encoded)
    from_ops(model)
    assert list(ir.to_proto(model).graph.node[0].input) == ["x", "w_2", "b"]


def test_parts_of_a_weight_that_another_node_reads_stay():
    dense, _ = weighted_model("Gemm (x, w, b)")
    encoded, _ = sparse(dense)
    encoded.graph.node.add(op_type="Identity", input=["w.shape"], output=["s"])
    model = ir.from_proto(encoded)
    from_ops(model)
    assert set(model.graph.initializers) == {"w", "b", "w.shape"}


def test_metadata_of_a_weight_follows_its_values_and_is_restored():
    dense, _ = weighted_model("Gemm (x, w, b)")
    entry = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (32, 16), "the weight")
    entry.metadata_props.add(key="origin", value="checkpoint")
    dense.graph.value_info.append(entry)
    encoded, _ = sparse(dense)
    about = {entry.name: entry for entry in encoded.graph.value_info}["w.values"]
    assert (about.doc_string, about.metadata_props[0].value) == ("the weight", "checkpoint")
    model = ir.from_proto(encoded)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


def tensor_named(proto, name):
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def cut_short(proto):
    tensor_named(proto, "w.values").raw_data = b"\0" * 3


def gap_of_zero(proto):
    gaps = tensor_named(proto, "w.gaps")
    gaps.raw_data = b"\0" + gaps.raw_data[1:]


def not_constant(proto):
    proto.graph.initializer.remove(tensor_named(proto, "w.gaps"))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w.gaps", onnx.TensorProto.UINT8, ["n"]))


def no_dtype(proto):
    node = proto.graph.node[0]
    node.attribute.remove(next(attribute for attribute in node.attribute if attribute.name == "dtype"))


def unknown_operator(proto):
    proto.graph.node[0].op_type = "SparseLSTM"


def later_version(proto):
    next(entry for entry in proto.opset_import if entry.domain == "onnxprune").version = 2


def inputs_missing(proto):
    del proto.graph.node[0].input[2:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_short, "'w.values' holds other data"),
        (gap_of_zero, "sparse weight 'w' cannot be decoded: gap 0 is 0"),
        (not_constant, "weight of SparseGemm node 'fc' is not constant"),
        (inputs_missing, "weight of SparseGemm node 'fc' is not constant"),
        (no_dtype, "'fc' has no float type"),
        (unknown_operator, "onnxprune::SparseLSTM, which this onnxprune does not know"),
        (later_version, "version 2 of the onnxprune operators"),
    ],
)
def test_from_ops_refuses_a_broken_file_in_a_sentence(damage, message):
    dense, _ = weighted_model("Gemm (x, w, b)")
    dense.graph.node[0].name = "fc"
    encoded, _ = sparse(dense)
    damage(encoded)
    with pytest.raises(ModelFileError, match=message):
        from_ops(ir.from_proto(encoded))
