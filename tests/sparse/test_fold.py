import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.model.weights import find_weights
from onnxprune.sparse.fold import Folded, folding_notes
from onnxprune.sparse.restore import from_ops
from onnxprune.sparse.rewrite import to_ops
from tests.runtime.sessions import kernel_session, needs_kernels
from tests.sparse.graphs import dense_array, op_types, parse, run, sparse, sparse_array
from tests.sparse.test_rewrite import canonical

NORMALIZE = "y = BatchNormalization (z, scale, shift, mean, variance)"


def statistics(channels=16, dtype=np.float32):
    """The parameters of a BatchNormalization; one scale is negative, and one 0."""
    rng = np.random.default_rng(7)
    scale = rng.uniform(0.5, 2, channels)
    scale[:2] = -1.5, 0
    return {
        "scale": scale.astype(dtype),
        "shift": rng.standard_normal(channels).astype(dtype),
        "mean": rng.standard_normal(channels).astype(dtype),
        "variance": rng.uniform(0.5, 2, channels).astype(dtype),
    }


def model_of(
    nodes, x_shape, w_shape, *, outputs="float[a, b, c, d] y", dtype=np.float32, opset=15, **constants
):
    """x -> nodes, which read `w` and of the other constants those that they name, -> y."""
    known = {
        "w": sparse_array(*w_shape, dtype=dtype),
        "bias": dense_array(16, dtype=dtype),
        "row": dense_array(1, 16, dtype=dtype, seed=3),
        "channels": dense_array(1, 16, 1, 1, dtype=dtype, seed=4),
        "more": dense_array(16, 1, 1, dtype=dtype, seed=5),
        "half": np.array([0.5], dtype),
        "axes": np.array([1, 2]),
        **statistics(dtype=dtype),
        **constants,
    }
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    name = {np.float32: "float", np.float16: "float16"}[dtype]
    outputs = outputs.replace("float[", f"{name}[")
    text = f"g ({name}[{', '.join(map(str, x_shape))}] x) => ({outputs}) {{ {nodes} }}"
    return parse(text, opset=opset, **{key: array for key, array in known.items() if key in words})


def assert_close(dense, encoded, x, tolerance=1e-5):
    """The checker passes, and outputs differ by rounding, of the largest; optimizations on and off."""
    onnx.checker.check_model(encoded, full_check=True)
    for optimized in (True, False):
        results = (run(model, optimized=optimized, x=x) for model in (dense, encoded))
        for expected, got in zip(*results, strict=True):
            assert (expected.dtype, expected.shape) == (got.dtype, got.shape)
            assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def restored(encoded):
    model = ir.from_proto(encoded)
    from_ops(model)
    return ir.to_proto(model)


IMAGE, FILTERS = (2, 8, 18, 9), (16, 8, 3, 3)
ROWS, MATRIX = (3, 32), (32, 16)
PLANE = "float[a, b] y"
# What is folded -> nodes, shapes of x and the weight, outputs, the operators left.
FOLDED = {
    "a convolution": (f"z = Conv (x, w) {NORMALIZE}", IMAGE, FILTERS, None, ["SparseConv"]),
    "one with a bias": (f"z = Conv (x, w, bias) {NORMALIZE}", IMAGE, FILTERS, None, ["SparseConv"]),
    "one with strides": (
        f"z = Conv <strides: ints = [2, 1], pads: ints = [1, 0, 2, 1]> (x, w, bias) {NORMALIZE}",
        IMAGE,
        FILTERS,
        None,
        ["SparseConv"],
    ),
    "groups": (
        f"z = Conv <group: int = 4> (x, w) {NORMALIZE}",
        (1, 16, 9, 9),
        (16, 4, 3, 3),
        None,
        ["SparseConv"],
    ),
    "depthwise": (
        f"z = Conv <group: int = 16> (x, w) {NORMALIZE}",
        (1, 16, 9, 9),
        (16, 1, 5, 5),
        None,
        ["SparseConv"],
    ),
    "one dimension": (
        f"z = Conv (x, w, bias) {NORMALIZE}",
        (2, 8, 20),
        (16, 8, 5),
        "float[a, b, c] y",
        ["SparseConv"],
    ),
    "another epsilon": (
        f"z = Conv (x, w) {NORMALIZE.replace('(', '<epsilon: float = 0.1> (')}",
        IMAGE,
        FILTERS,
        None,
        ["SparseConv"],
    ),
    "what follows": (
        f"z = Conv (x, w) n = {NORMALIZE[4:]} y = Relu (n)",
        IMAGE,
        FILTERS,
        None,
        ["SparseConvRelu"],
    ),
    "scale and shift": (
        f"z = Conv (x, w, bias) n = {NORMALIZE[4:]} t = Mul (n, more) y = Add (channels, t)",
        IMAGE,
        FILTERS,
        None,
        ["SparseConv"],
    ),
    "a constant that is unsqueezed": (
        "z = Conv (x, w) c = Unsqueeze (bias, axes) t = Mul (c, z) a = Add (t, c) y = Relu (a)",
        IMAGE,
        FILTERS,
        None,
        ["SparseConvRelu"],
    ),
    "a scalar": ("z = Conv (x, w, bias) y = Mul (z, half)", IMAGE, FILTERS, None, ["SparseConv"]),
    "no bias needed": ("z = Conv (x, w) y = Mul (z, half)", IMAGE, FILTERS, None, ["SparseConvNoBias"]),
    "a bias of channels": ("z = Conv (x, w) y = Sum (channels, z)", IMAGE, FILTERS, None, ["SparseConv"]),
    "Gemm": (f"z = Gemm (x, w, bias) {NORMALIZE}", ROWS, MATRIX, PLANE, ["SparseGemm"]),
    "Gemm without C": (f"z = Gemm (x, w) {NORMALIZE}", ROWS, MATRIX, PLANE, ["SparseGemm"]),
    "Gemm with a row": (f"z = Gemm (x, w, row) {NORMALIZE}", ROWS, MATRIX, PLANE, ["SparseGemm"]),
    "Gemm with a scalar": (f"z = Gemm (x, w, half) {NORMALIZE}", ROWS, MATRIX, PLANE, ["SparseGemm"]),
    "Gemm transposed": (
        f"z = Gemm <transB: int = 1, alpha: float = 0.5, beta: float = 2.0> (x, w, bias) {NORMALIZE}",
        ROWS,
        (16, 32),
        PLANE,
        ["SparseGemm"],
    ),
    "Gemm scaled": (
        f"z = Gemm <transA: int = 1, alpha: float = 0.5, beta: float = 2.0> (x, w, row) {NORMALIZE}",
        (32, 3),
        MATRIX,
        PLANE,
        ["SparseGemm"],
    ),
    "MatMul": (f"z = MatMul (x, w) {NORMALIZE}", ROWS, MATRIX, PLANE, ["SparseMatMulAdd"]),
    "MatMul, another epsilon": (
        f"z = MatMul (x, w) {NORMALIZE.replace('(', '<epsilon: float = 0.1> (')}",
        ROWS,
        MATRIX,
        PLANE,
        ["SparseMatMulAdd"],
    ),
    "MatMul and its bias": (
        f"p = MatMul (x, w) z = Add (bias, p) n = {NORMALIZE[4:]} y = Relu (n)",
        ROWS,
        MATRIX,
        PLANE,
        ["SparseMatMulAddRelu"],
    ),
    "MatMul of a batch": (
        "z = MatMul (x, w) t = Mul (z, half) y = Add (t, bias)",
        (2, 3, 32),
        MATRIX,
        "float[a, b, c] y",
        ["SparseMatMulAdd"],
    ),
    "MatMul and a factor": (
        "z = MatMul (x, w) y = Mul (bias, z)",
        (2, 3, 32),
        MATRIX,
        "float[a, b, c] y",
        ["SparseMatMul"],
    ),
}


def folded_case(what):
    nodes, x_shape, w_shape, outputs, left = FOLDED[what]
    dense = model_of(nodes, x_shape, w_shape, outputs=outputs or "float[a, b, c, d] y")
    return dense, dense_array(*x_shape, seed=2), left


@pytest.mark.parametrize("what", FOLDED)
def test_what_is_folded_gives_the_same_outputs_and_leaves_no_constants(what):
    dense, x, left = folded_case(what)
    encoded, (outcome,) = sparse(dense)
    assert op_types(encoded.graph) == left
    assert outcome.folded
    names = {tensor.name for tensor in encoded.graph.initializer} - {"w.values", "w.gaps", "w.shape"}
    assert names <= {"bias", "row", "half", "w.bias"} and len(names) <= 1
    assert [value.name for value in encoded.graph.output] == ["y"]
    assert_close(dense, encoded, x)


@pytest.mark.parametrize("what", FOLDED)
def test_from_ops_restores_a_folded_layer_as_one_with_a_bias(what):
    dense, x, _ = folded_case(what)
    again = restored(sparse(dense)[0])
    assert not again.functions
    assert {node.domain for node in again.graph.node} == {""}
    assert "BatchNormalization" not in op_types(again.graph)
    assert_close(dense, again, x)
    assert canonical(restored(sparse(again)[0])) == canonical(again)


@needs_kernels
@pytest.mark.parametrize("what", FOLDED)
def test_kernels_give_the_same_of_what_is_folded(what):
    dense, x, _ = folded_case(what)
    (got,) = kernel_session(sparse(dense)[0]).run(None, {"x": x})
    (expected,) = run(dense, x=x)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


NORMALIZED_CONV = f"z = Conv (x, w) {NORMALIZE}"


@pytest.mark.parametrize(
    ("nodes", "changes"),
    [
        (f"z = Conv (x, w) n = {NORMALIZE[4:]} r = Relu (z) y = Mul (n, r)", {}),
        (NORMALIZED_CONV.replace("(z,", "<training_mode: int = 1> (z,"), {}),
        (NORMALIZED_CONV, {"variance": np.full(16, -1, np.float32)}),
        (NORMALIZED_CONV, {"mean": np.full(16, np.nan, np.float32)}),
        (NORMALIZED_CONV, {"scale": np.full(16, np.inf, np.float32)}),
        (
            NORMALIZED_CONV,
            {"scale": np.full(16, 3e38, np.float32), "variance": np.full(16, 1e-8, np.float32)},
        ),
        (NORMALIZED_CONV, {"w": dense_array(*FILTERS)}),
        ("z = Conv (x, w) y = Mul (z, high)", {"high": dense_array(16, 1)}),
        ("z = Conv (x, w) y = Mul (z, z)", {}),
        ("b = Neg (bias) z = Conv (x, w, b) y = Mul (z, half)", {}),
        ("z = Conv (x, w) y = Add (z, lifted)", {"lifted": np.ones((1, 1, 1, 1, 1), np.float32)}),
    ],
    ids=[
        "read elsewhere",
        "training mode",
        "negative variance",
        "not a number",
        "infinite",
        "overflow",
        "a dense weight",
        "along the height",
        "its own square",
        "a computed bias",
        "a further axis",
    ],
)
def test_what_cannot_be_folded_stays_as_it_was(nodes, changes):
    outputs = "float[a, b, c, d, e] y" if "lifted" in changes else "float[a, b, c, d] y"
    dense = model_of(nodes, IMAGE, FILTERS, outputs=outputs, **changes)
    encoded, (outcome,) = sparse(dense)
    assert outcome.folded == ()
    assert op_types(encoded.graph)[-1] == op_types(dense.graph)[-1]
    assert canonical(restored(encoded)) == canonical(dense)


@pytest.mark.parametrize(
    ("nodes", "x_shape", "w_shape", "outputs"),
    [
        (f"z = MatMul (x, w) {NORMALIZE}", (2, 16, 32), MATRIX, "float[a, b, c] y"),
        (f"z = MatMul (x, w) {NORMALIZE}", (2, 16, 32), (2, 32, 16), "float[a, b, c] y"),
        (f"z = Gemm (w, x) {NORMALIZE}", (32, 16), (16, 32), PLANE),
        (f"z = Gemm (x, w, column) {NORMALIZE}", ROWS, MATRIX, PLANE),
        ("z = MatMul (x, w) y = Add (z, bias)", ROWS, MATRIX, PLANE),
        (f"z = ConvTranspose (x, w) {NORMALIZE}", IMAGE, (8, 16, 3, 3), "float[a, b, c, d] y"),
    ],
)
def test_along_other_axes_and_behind_other_operators_nothing_is_folded(nodes, x_shape, w_shape, outputs):
    dense = model_of(nodes, x_shape, w_shape, outputs=outputs, column=dense_array(3, 1))
    encoded, (outcome,) = sparse(dense)
    assert outcome.folded == ()
    assert canonical(restored(encoded)) == canonical(dense)
    assert_close(dense, encoded, dense_array(*x_shape))


def test_what_has_no_finite_parameters_ends_what_is_folded():
    dense = model_of(
        f"c = Conv (x, w) z = Mul (c, half) {NORMALIZE}", IMAGE, FILTERS, variance=np.full(16, -1, np.float32)
    )
    encoded, (outcome,) = sparse(dense)
    assert [each.op_type for each in outcome.folded] == ["Mul"]
    assert op_types(encoded.graph) == ["SparseConvNoBias", "BatchNormalization"]


def test_an_operator_of_another_domain_is_not_folded():
    dense = model_of("z = Conv (x, w) y = Mul (z, half)", IMAGE, FILTERS)
    dense.graph.node[1].domain = "own"
    dense.opset_import.add(domain="own", version=1)
    function = onnx.parser.parse_function(
        '<domain: "own", opset_import: ["": 15]> Mul (a, b) => (c) { c = Pow (a, b) }'
    )
    dense.functions.append(function)
    encoded, (outcome,) = sparse(dense)
    assert outcome.folded == ()
    assert canonical(restored(encoded)) == canonical(dense)


def test_statistics_that_are_asked_for_keep_a_normalization():
    nodes = NORMALIZED_CONV.replace("y =", "y, m2, v2, m3, v3 =")
    dense = model_of(nodes, IMAGE, FILTERS, opset=13)
    encoded, (outcome,) = sparse(dense)
    assert outcome.folded == ()
    assert canonical(restored(encoded)) == canonical(dense)


def test_what_is_read_in_a_body_is_not_folded_outside_of_it():
    dense = parse(
        f"""g (float[1, 8, 9, 9] x, bool c) => (float[a, b, d, e] y) {{
            z = Conv (x, w)
            y = If (c) <
                then_branch = t () => (float[a, b, d, e] u) {{ {NORMALIZE.replace("y =", "u =")} }},
                else_branch = e () => (float[a, b, d, e] v) {{ v = Identity (x) }}>
        }}""",
        opset=15,
        w=sparse_array(*FILTERS),
        **statistics(),
    )
    encoded, (outcome,) = sparse(dense)
    assert outcome.folded == ()
    assert canonical(restored(encoded)) == canonical(dense)


def test_a_value_that_is_a_graph_output_stays():
    outputs = "float[a, b, c, d] y, float[a, b, c, d] z"
    dense = model_of(NORMALIZED_CONV, IMAGE, FILTERS, outputs=outputs)
    encoded, (outcome,) = sparse(dense)
    assert outcome.folded == ()
    assert_close(dense, encoded, dense_array(*IMAGE))
    ends = f"z = Conv (x, w) n = {NORMALIZE[4:]} y = Mul (n, half)"
    dense = model_of(ends, IMAGE, FILTERS, outputs=outputs.replace(" z", " n"))
    encoded, (outcome,) = sparse(dense)
    assert outcome.folded == (Folded("BatchNormalization", "n"),)
    assert [value.name for value in encoded.graph.output] == ["y", "n"]
    assert_close(dense, encoded, dense_array(*IMAGE))


def declare_as_inputs(dense):
    for tensor in dense.graph.initializer:
        dense.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )


def test_parameters_that_callers_may_give_are_not_folded():
    dense = model_of(NORMALIZED_CONV, IMAGE, FILTERS)
    mean = next(tensor for tensor in dense.graph.initializer if tensor.name == "mean")
    dense.graph.input.append(onnx.helper.make_tensor_value_info("mean", mean.data_type, mean.dims))
    encoded, (outcome,) = sparse(dense)
    assert outcome.folded == ()
    assert [value.name for value in encoded.graph.input] == ["x", "mean"]


def test_those_that_ir_3_made_list_as_inputs_are():
    dense = model_of(NORMALIZED_CONV, IMAGE, FILTERS)
    dense.ir_version = 3
    declare_as_inputs(dense)
    encoded, (outcome,) = sparse(dense)
    assert len(outcome.folded) == 1
    assert [value.name for value in encoded.graph.input] == ["x"]
    assert_close(dense, encoded, dense_array(*IMAGE))


def test_names_and_what_is_written_about_them_stay():
    nodes = f"z = Conv (x, w, bias) n = {NORMALIZE[4:]} y = Softmax (n)"
    dense = model_of(nodes, IMAGE, FILTERS)
    conv, norm, _ = dense.graph.node
    conv.name, norm.name, conv.doc_string = "conv1", "bn1", "the first layer"
    conv.metadata_props.add(key="scope", value="stem")
    entry = onnx.helper.make_tensor_value_info("n", onnx.TensorProto.FLOAT, (2, 16, 16, 7), "normalized")
    entry.metadata_props.add(key="origin", value="export")
    dense.graph.value_info.append(entry)
    encoded, (outcome,) = sparse(dense)
    assert outcome.folded == (Folded("BatchNormalization", "bn1"),)
    node = encoded.graph.node[0]
    assert (node.name, node.doc_string, list(node.output)) == ("conv1", "the first layer", ["n"])
    assert node.metadata_props[0].value == "stem"
    assert list(node.input) == ["x", "w.values", "w.gaps", "w.shape", "bias"]
    about = {info.name: info for info in encoded.graph.value_info}["n"]
    assert (about.doc_string, about.metadata_props[0].value) == ("normalized", "export")


def test_the_bias_behind_a_matmul_keeps_its_names():
    dense = model_of(
        f"p = MatMul (x, w) z = Add (bias, p) n = {NORMALIZE[4:]} y = Softmax (n)",
        ROWS,
        MATRIX,
        outputs=PLANE,
    )
    for node, name in zip(dense.graph.node, ("fc", "fc_bias", "bn", "softmax"), strict=True):
        node.name = name
    again = restored(sparse(dense)[0])
    assert [node.name for node in again.graph.node] == ["fc", "fc_bias", "softmax"]
    assert {tensor.name for tensor in again.graph.initializer} == {"w", "bias"}


def test_the_name_of_a_new_bias_is_numbered_where_it_is_taken():
    dense = model_of(f"z = Conv (x, w) n = {NORMALIZE[4:]} y = Softmax (n)", IMAGE, FILTERS)
    dense.graph.node[2].output[0] = dense.graph.output[0].name = "w.bias"
    encoded, _ = sparse(dense)
    assert encoded.graph.node[0].input[4] == "w.bias_2"


def test_a_bias_that_another_node_reads_keeps_its_value():
    nodes = f"z = Conv (x, w, bias) n = {NORMALIZE[4:]} c = Unsqueeze (bias, axes) y = Pow (n, c)"
    dense = model_of(nodes, IMAGE, FILTERS, bias=np.full(16, 2, np.float32))
    encoded, _ = sparse(dense)
    assert encoded.graph.node[0].input[4] == "w.bias"
    assert_close(dense, encoded, dense_array(*IMAGE))


SHARED = """g (float[1, 8, 9, 9] x) => (float[a, b, c, d] y, float[e, f, g, h] q) {
    z = Conv (x, w)
    y = BatchNormalization (z, scale, shift, mean, variance)
    minus = Neg (x)
    p = Conv <pads: ints = [1, 1, 1, 1]> (minus, w, bias)
    q = BatchNormalization (p, OTHER, shift2, mean, variance)
}"""


@pytest.mark.parametrize("alike", [True, False])
def test_a_shared_weight_is_folded_where_all_its_nodes_scale_it_alike(alike):
    constants = {
        "w": sparse_array(*FILTERS),
        "bias": dense_array(16),
        "shift2": dense_array(16),
        **statistics(),
    }
    if not alike:
        constants["scale2"] = constants["scale"] * 2
    dense = parse(SHARED.replace("OTHER", "scale" if alike else "scale2"), opset=15, **constants)
    encoded, (outcome,) = sparse(dense)
    expected = ["SparseConv", "Neg", "SparseConv"]
    assert op_types(encoded.graph) == (expected if alike else op_types(encoded.graph))
    assert [each.name for each in outcome.folded] == (["y", "q"] if alike else [])
    assert_close(dense, encoded, dense_array(1, 8, 9, 9))
    if not alike:
        assert canonical(restored(encoded)) == canonical(dense)


def test_residual_blocks_become_two_nodes():
    text = """g (float[1, 16, 9, 9] x) => (float[a, b, c, d] y) {
        z = Conv <pads: ints = [1, 1, 1, 1]> (x, w)
        n = BatchNormalization (z, scale, shift, mean, variance)
        r = Relu (n)
        z2 = Conv <pads: ints = [1, 1, 1, 1]> (r, w2)
        n2 = BatchNormalization (z2, scale, shift, mean, variance)
        s = Sum (n2, x)
        y = Relu (s)
    }"""
    weights = {"w": sparse_array(16, 16, 3, 3), "w2": sparse_array(16, 16, 3, 3, seed=9)}
    dense = parse(text, opset=15, **weights, **statistics())
    encoded, outcomes = sparse(dense)
    assert op_types(encoded.graph) == ["SparseConvRelu", "SparseConvAddRelu"]
    assert [len(outcome.folded) for outcome in outcomes] == [1, 1]
    assert len(encoded.graph.initializer) == 8
    assert_close(dense, encoded, dense_array(1, 16, 9, 9))


def as_float(model):
    """A float16 model in float32: onnxruntime's CPU provider does not normalize in float16."""
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del model.graph.value_info[:]
    return model


def test_a_float16_weight_with_float32_statistics_stays_float16():
    dense = model_of(f"z = Conv (x, w, bias) {NORMALIZE}", IMAGE, FILTERS, dtype=np.float16)
    wide = {name: numpy_helper.from_array(array, name) for name, array in statistics().items()}
    for tensor in dense.graph.initializer:
        if tensor.name in wide:
            tensor.CopyFrom(wide[tensor.name])
    encoded, (outcome,) = sparse(dense)
    assert outcome.folded
    types = {tensor.name: tensor.data_type for tensor in encoded.graph.initializer}
    assert types["w.values"] == types["bias"] == onnx.TensorProto.FLOAT16
    exact = model_of(f"z = Conv (x, w, bias) {NORMALIZE}", IMAGE, FILTERS)
    assert_close(exact, as_float(restored(encoded)), dense_array(*IMAGE), 2e-3)


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_weights_are_rounded_after_they_were_folded(values):
    dense = model_of(NORMALIZED_CONV, IMAGE, FILTERS)
    model = ir.from_proto(dense)
    (outcome,) = to_ops(model, find_weights(model).prunable, values)
    assert (outcome.values, len(outcome.folded)) == (values, 1)
    without_channel_1 = np.delete(sparse_array(*FILTERS), 1, axis=0)
    assert outcome.kept <= np.count_nonzero(without_channel_1)
    assert_close(dense, ir.to_proto(model), dense_array(*IMAGE), 2e-3 if values == "fp16" else 2e-2)


def test_a_channel_that_folding_makes_too_small_for_fp16_is_not_folded():
    scale = np.full(16, 1e-6, np.float32)
    for values, folded in (("fp16", 0), ("fp32", 1)):
        model = ir.from_proto(model_of(NORMALIZED_CONV, IMAGE, FILTERS, scale=scale))
        (outcome,) = to_ops(model, find_weights(model).prunable, values)
        assert len(outcome.folded) == folded
        assert outcome.values == ("fp16" if values == "fp16" else "")


def test_constants_of_nodes_are_folded_and_gone():
    dense = model_of(f"z = Conv (x, w) {NORMALIZE}", IMAGE, FILTERS)
    nodes = [
        onnx.helper.make_node("Constant", [], [tensor.name], name=f"const_{tensor.name}", value=tensor)
        for tensor in dense.graph.initializer
    ]
    del dense.graph.initializer[:]
    for node in reversed(nodes):
        dense.graph.node.insert(0, node)
    encoded, _ = sparse(dense)
    assert op_types(encoded.graph) == ["Constant"] * 4 + ["SparseConv"]
    assert_close(dense, encoded, dense_array(*IMAGE))


def test_in_the_body_of_an_if_nodes_are_folded_there():
    dense = parse(
        """g (float[3, 32] x, bool c) => (float[a, b] y) {
            y = If (c) <
                then_branch = t () => (float[a, b] u) {
                    z = Gemm (x, w, bias) n = BatchNormalization (z, scale, shift, mean, variance) u = Relu (n)
                },
                else_branch = e () => (float[a, b] v) { v = Relu (x) }>
        }""",
        opset=15,
        w=sparse_array(32, 32),
        bias=dense_array(32),
        **statistics(32),
    )
    encoded, (outcome,) = sparse(dense)
    assert op_types(encoded.graph) == ["If", "SparseGemmRelu", "Relu"]
    assert outcome.folded == (Folded("BatchNormalization", "n"),)
    assert len(encoded.graph.initializer) == 4
    onnx.checker.check_model(encoded, full_check=True)
    x = dense_array(3, 32)
    for condition in (True, False):
        results = [run(model, x=x, c=np.array(condition))[0] for model in (dense, encoded)]
        np.testing.assert_allclose(results[1], results[0], rtol=1e-4, atol=1e-5)


def test_the_notes_say_what_is_gone_and_how_to_keep_it():
    assert list(folding_notes([])) == []
    (note,) = folding_notes([Folded("BatchNormalization", "bn1")])
    assert note.startswith("1 BatchNormalization node was folded into the sparse layers before them (bn1): ")
    assert note.endswith("--format dense keeps them.")
    many = [Folded("BatchNormalization", f"bn{n}") for n in range(1200)] + [Folded("Add", "add")]
    (note,) = folding_notes(many)
    assert note.startswith("1,201 BatchNormalization and Add nodes were folded into")
    assert "(bn0, bn1, bn2, bn3 and 1,197 more)" in note


def test_only_files_of_sparse_nodes_are_folded_and_their_reports_say_so():
    dense = model_of(
        f"z = Conv (x, w) n = {NORMALIZE[4:]} y = Relu (n)", IMAGE, FILTERS, w=dense_array(*FILTERS)
    )
    for form, operators in (
        ("ops", ["SparseConvRelu"]),
        ("dense", ["Conv", "BatchNormalization", "Relu"]),
        ("coo", ["Conv", "BatchNormalization", "Relu"]),
    ):
        result = onnxprune.prune(dense, rate=0.9, format=form)
        assert op_types(result.model.graph) == operators
        assert [value.name for value in result.model.graph.output] == ["y"]
        told = any("BatchNormalization node was folded" in note for note in result.report.notes)
        assert told == (form == "ops")
