import copy

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxprune.errors import ModelFileError
from onnxprune.sparse.functions import FUSED_OPS
from onnxprune.sparse.restore import from_ops
from tests.sparse.graphs import dense_array, op_types, parse, run, sparse, sparse_array
from tests.sparse.test_rewrite import assert_same_outputs, canonical

# What the sparse operator's name ends in -> nodes that make y of z, and the opset that brought them.
TAILS = {
    "Relu": ("y = Relu (z)", 11),
    "Clip": ("y = Clip (z, nought, six)", 11),
    "LeakyRelu": ("y = LeakyRelu <alpha: float = 0.2> (z)", 11),
    "Sigmoid": ("y = Sigmoid (z)", 11),
    "SigmoidMul": ("gate = Sigmoid (z) y = Mul (z, gate)", 11),
    "Swish": ("y = Swish (z)", 24),
    "HardSwish": ("y = HardSwish (z)", 14),
    "HardSigmoidMul": ("gate = HardSigmoid <alpha: float = 0.1666667> (z) y = Mul (z, gate)", 11),
    "AddClipDivMul": (
        "a = Add (z, three) c = Clip (a, nought, six) gate = Div (c, six) y = Mul (z, gate)",
        11,
    ),
    "AddClipMulDiv": ("a = Add (z, three) c = Clip (a, nought, six) m = Mul (z, c) y = Div (m, six)", 11),
}
# Name -> nodes that make z, shapes of x and of the weight, the output's shape.
SUMS = {
    "SparseGemm": ("z = Gemm (x, w, b)", (3, 32), (32, 16), (3, 16)),
    "SparseMatMul": ("z = MatMul (x, w)", (2, 3, 32), (32, 16), (2, 3, 16)),
    "SparseConv": ("z = Conv (x, w, b)", (2, 8, 9, 9), (16, 8, 3, 3), (2, 16, 7, 7)),
    "SparseConvNoBias": ("z = Conv (x, w)", (2, 8, 9, 9), (16, 8, 3, 3), (2, 16, 7, 7)),
}


def followed(sum_name, tail, *, addend=False, opset=13, dtype="float"):
    """A model of one of SUMS and what follows it, and its inputs."""
    made, x_shape, w_shape, y_shape = SUMS[sum_name]
    if addend:
        made = made.replace("z =", "p =") + " z = Add (p, r)"
    if not tail:
        made = made.replace("z = Add", "y = Add")

    def declare(name, shape):
        return f"{dtype}[{', '.join(map(str, shape))}] {name}"

    rest = f", {declare('r', y_shape)}" if addend else ""
    text = f"g ({declare('x', x_shape)}{rest}) => ({declare('y', y_shape)}) {{ {made} {tail} }}"
    array_type = {"float": "float32", "float16": "float16", "double": "float64"}[dtype]
    constants = {
        "w": sparse_array(*w_shape, dtype=array_type),
        "b": dense_array(16, dtype=array_type),
        "nought": np.array(0, array_type),
        "three": np.array(3, array_type),
        "six": np.array(6, array_type),
    }
    used = {name: array for name, array in constants.items() if f" {name}" in text.replace("(", " ")}
    inputs = {"x": dense_array(*x_shape, dtype=array_type)}
    if addend:
        inputs["r"] = dense_array(*y_shape, dtype=array_type, seed=4)
    return parse(text, opset=opset, ir_version=10 if opset > 18 else 8, **used), inputs


def runs(model, inputs):
    try:
        run(model, **inputs)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("addend", [False, True], ids=["alone", "with an addend"])
@pytest.mark.parametrize("tail", ["", *TAILS])
@pytest.mark.parametrize("sum_name", SUMS)
def test_a_sparse_node_fuses_what_follows_and_is_restored(sum_name, tail, addend):
    if not tail and not addend:
        pytest.skip("nothing follows")
    text, since = TAILS.get(tail, ("", 11))
    dense, inputs = followed(sum_name, text, addend=addend, opset=max(since, 13))
    if not runs(dense, inputs):
        pytest.skip(f"this onnxruntime does not run opset {since}")
    encoded, _ = sparse(dense)
    assert op_types(encoded.graph) == [f"{sum_name}{'Add' if addend else ''}{tail}"]
    assert_same_outputs(dense, encoded, **inputs)
    model = ir.from_proto(encoded)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)


def test_every_activation_has_a_case_here():
    assert {op.activation.name for op in FUSED_OPS} - {""} == set(TAILS)


def optimized_ops(model, path):
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return sorted(op_types(onnx.load(path).graph))


@pytest.mark.parametrize("tail", ["Relu", "Clip", "LeakyRelu", "Sigmoid", "SigmoidMul", "HardSigmoidMul"])
@pytest.mark.parametrize("addend", [False, True], ids=["alone", "with an addend"])
@pytest.mark.parametrize("sum_name", SUMS)
def test_stock_onnxruntime_fuses_the_inlined_nodes_as_it_fuses_the_dense_ones(
    sum_name, tail, addend, tmp_path
):
    dense, _ = followed(sum_name, TAILS[tail][0], addend=addend)
    encoded, _ = sparse(dense)
    assert optimized_ops(encoded, tmp_path / "o.onnx") == optimized_ops(dense, tmp_path / "o.onnx")


def test_inlined_by_onnx_the_operators_are_standard_ones():
    dense, inputs = followed("SparseConv", TAILS["Relu"][0], addend=True)
    plain = onnx.inliner.inline_local_functions(sparse(dense)[0])
    assert {node.domain for node in plain.graph.node} == {""}
    assert run(plain, **inputs)[0].tobytes() == run(dense, **inputs)[0].tobytes()


def test_an_added_constant_row_is_the_bias_of_a_matmul():
    dense = parse(
        "g (float[n, m, 32] x) => (float[a, b, c] y) { p = MatMul (x, w) z = Add (b, p) y = Relu (z) }",
        w=sparse_array(32, 16),
        b=dense_array(16),
    )
    encoded, _ = sparse(dense)
    assert op_types(encoded.graph) == ["SparseMatMulAddRelu"]
    assert_same_outputs(dense, encoded, x=dense_array(2, 3, 32))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("tail", ["", "Relu", "SigmoidMul"])
def test_a_sum_of_two_is_an_addition_and_comes_back_as_one(tail, swapped):
    dense, inputs = followed("SparseConv", TAILS[tail][0] if tail else "", addend=True)
    added = copy.deepcopy(dense)
    node = dense.graph.node[1]
    node.op_type, node.name = "Sum", "residual"
    if swapped:
        node.input.insert(0, node.input.pop())
    encoded, _ = sparse(dense)
    assert op_types(encoded.graph) == [f"SparseConvAdd{tail}"]
    assert_same_outputs(added, encoded, **inputs)
    model = ir.from_proto(encoded)
    from_ops(model)
    added.graph.node[1].name = "residual"
    assert canonical(ir.to_proto(model)) == canonical(added)


@pytest.mark.parametrize("others", ["r, r2", "", "row"], ids=["of three", "of one", "broadcast"])
def test_other_sums_stay_as_they_are(others):
    declared = "".join(f", float[2, 3, 16] {name}" for name in ("r", "r2"))
    sums = ", ".join(name for name in ("z", others) if name)
    dense = parse(
        f"g (float[2, 3, 32] x{declared}) => (float[2, 3, 16] y) {{ z = MatMul (x, w) y = Sum ({sums}) }}",
        w=sparse_array(32, 16),
        row=dense_array(1, 1, 16),
    )
    encoded, _ = sparse(dense)
    assert op_types(encoded.graph) == ["SparseMatMul", "Sum"]


@pytest.mark.parametrize(
    ("outputs", "nodes"),
    [
        ("float[a, b, c] y, float[d, e, f] z", "z = MatMul (x, w) y = Relu (z)"),
        ("float[a, b, c] y, float[d, e, f] v", "z = MatMul (x, w) y = Relu (z) v = Tanh (z)"),
        ("float[a, b, c] y", "z = MatMul (x, w) y = Clip (z, low)"),
        ("float[a, b, c] y", "z = MatMul (x, w) y = Clip (z, moving, low)"),
        ("float[a, b, c] y", "z = MatMul (x, w) y = Add (z, z)"),
        ("float[a, b, c] y", "z = MatMul (x, w) s = Sigmoid (z) t = Sigmoid (z) y = Mul (s, t)"),
        # Broadcast, or perhaps so.
        ("float[a, b, c] y", "z = MatMul (x, w) y = Add (z, row)"),
        ("float[a, b, c] y", "z = MatMul (x, w) y = Add (z, low)"),
        ("float[a, b, c] y", "z = MatMul (x, w) y = Add (z, other)"),
    ],
)
def test_a_value_read_elsewhere_or_broadcast_is_not_fused(outputs, nodes):
    names = [name for name in ("moving", "other") if name in nodes]
    declared = {"moving": ", float moving", "other": ", float[p, q, 16] other"}
    dense = parse(
        f"g (float[n, m, 32] x{''.join(declared[name] for name in names)}) => ({outputs}) {{ {nodes} }}",
        w=sparse_array(32, 16),
        low=dense_array(),
        row=dense_array(1, 1, 1, 16),
    )
    encoded, _ = sparse(dense)
    assert op_types(encoded.graph) == ["SparseMatMul", *op_types(dense.graph)[1:]]


def test_of_two_sparse_sums_that_are_added_one_fuses_the_other():
    text = """g (float[1, 8, 9, 9] x) => (float[1, 16, 9, 9] y) {
        main = Conv <pads: ints = [1, 1, 1, 1]> (x, v)
        short = Conv (x, w)
        z = Add (main, short)
        y = Relu (z)
    }"""
    dense = parse(text, v=sparse_array(16, 8, 3, 3), w=sparse_array(16, 8, 1, 1, density=0.3))
    for node, name in zip(dense.graph.node, ["conv1", "shortcut", "add", "relu"], strict=True):
        node.name = name
    dense.graph.node[0].metadata_props.add(key="scope", value="block")
    encoded, _ = sparse(dense)
    assert sorted(op_types(encoded.graph)) == ["SparseConvNoBias", "SparseConvNoBiasAddRelu"]
    assert_same_outputs(dense, encoded, x=dense_array(1, 8, 9, 9))
    model = ir.from_proto(encoded)
    from_ops(model)
    restored = ir.to_proto(model)
    assert {(node.name, *node.output) for node in restored.graph.node} == {
        (node.name, *node.output) for node in dense.graph.node
    }
    metadata = {entry.value for node in restored.graph.node for entry in node.metadata_props}
    assert metadata == {"block"}


def test_without_the_old_names_the_nodes_are_still_restored():
    dense, inputs = followed("SparseConv", TAILS["AddClipDivMul"][0], addend=True)
    encoded, _ = sparse(dense)
    del encoded.graph.node[0].metadata_props[:]
    model = ir.from_proto(encoded)
    from_ops(model)
    restored = ir.to_proto(model)
    assert op_types(restored.graph) == op_types(dense.graph)
    assert run(restored, **inputs)[0].tobytes() == run(dense, **inputs)[0].tobytes()


def test_a_fused_node_that_lacks_an_input_is_refused():
    dense, _ = followed("SparseMatMul", TAILS["Clip"][0])
    encoded, _ = sparse(dense)
    encoded.graph.node[0].input.pop()
    with pytest.raises(ModelFileError, match="lacks inputs of its operator"):
        from_ops(ir.from_proto(encoded))


def test_a_sum_in_a_branch_of_an_if_fuses_what_follows_there():
    dense = parse(
        """g (float[3, 32] x, bool c) => (float[a, b] y) {
            y = If (c) <
                then_branch = t () => (float[a, b] u) { z = MatMul (x, w) u = Relu (z) },
                else_branch = e () => (float[a, b] v) { z = MatMul (x, w) v = Sigmoid (z) }>
        }""",
        w=sparse_array(32, 16),
    )
    encoded, _ = sparse(dense)
    assert op_types(encoded.graph) == ["If", "SparseMatMulRelu", "SparseMatMulSigmoid"]
    model = ir.from_proto(encoded)
    from_ops(model)
    assert canonical(ir.to_proto(model)) == canonical(dense)
