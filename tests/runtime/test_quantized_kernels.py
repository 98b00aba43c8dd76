"""The kernels of 8-bit integers against exact sums, and against onnxruntime's own operators."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune.sparse.blocks import encode_blocks
from onnxprune.sparse.functions import DOMAIN
from onnxprune.sparse.quantized_functions import QUANTIZED_OPS
from tests.runtime.sessions import kernel_session, needs_kernels, run_dense, run_kernels
from tests.runtime.test_kernels import convolutions
from tests.sparse.test_blocks import sparse_integers

pytestmark = needs_kernels

DENSITIES = st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0])
DRAWN = settings(
    max_examples=400 if os.environ.get("ONNXPRUNE_LONG") else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
INT64 = np.iinfo(np.int64)


def quantized_model(
    op_type: str, parts: dict[str, np.ndarray], numbers: dict[str, np.ndarray], **attributes: object
) -> onnx.ModelProto:
    """x -> the node 'sparse' -> y, the node alone; `parts` encode the weight, or are the weight itself."""
    own = op_type in QUANTIZED_OPS
    order = ["xs", "xz", *parts, "ws", "wz", "ys", "yz", *(["b"] if "b" in numbers else [])]
    if "QDQ" in op_type and "b" in numbers:
        numbers = numbers | {"bs": np.float32(numbers["xs"] * numbers["ws"])}
        order.append("bs")
    constants = parts | numbers
    node = onnx.helper.make_node(
        op_type, ["x", *order], ["y"], "sparse", domain=DOMAIN if own else "", **attributes
    )
    element_type = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(numbers["xz"]).dtype)
    graph = onnx.helper.make_graph(
        [node],
        "graph",
        [onnx.helper.make_tensor_value_info("x", element_type, None)],
        [onnx.helper.make_tensor_value_info("y", element_type, None)],
        [onnx.numpy_helper.from_array(np.asarray(constants[name]), name) for name in order],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(DOMAIN, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def sparse_model(op_type, weight, numbers, block=4, **attributes):
    axis = QUANTIZED_OPS[op_type].input_axis
    zeros = np.asarray(numbers["wz"])
    blocks = encode_blocks(weight, zeros if zeros.size == 1 else _along(zeros, weight, axis), axis, block)
    return quantized_model(op_type, blocks._asdict(), numbers, **attributes)


def numbers_with(x_zero, y_zero, weight_scales, y_scale, x_scale=0.02):
    """Scales and zero points around a weight of int8 whose zero is 0."""
    scales = np.asarray(weight_scales, np.float32)
    return {
        "xs": np.float32(x_scale),
        "xz": x_zero,
        "ws": scales,
        "wz": np.zeros(scales.shape, np.int8),
        "ys": np.float32(y_scale),
        "yz": y_zero,
    }


def _along(zeros, weight, input_axis):
    return zeros if input_axis == 0 else zeros.reshape(-1, *[1] * (weight.ndim - 1))


def numbers_of(draw, outputs, w_type):
    """Scales and zero points, extreme ones among them, and a bias or none."""
    x_type = draw(st.sampled_from([np.uint8, np.int8] if w_type == np.int8 else [np.uint8]))
    info, w_info = np.iinfo(x_type), np.iinfo(w_type)
    zero = st.sampled_from([int(info.min), int(info.min) + 1, (int(info.min) + int(info.max)) // 2, info.max])
    w_zero = draw(st.sampled_from([0, int(w_info.min), int(w_info.max), (w_info.min + w_info.max + 1) // 2]))
    channels = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    # From outputs that are all saturated to outputs that are all alike.
    y_scale = draw(st.sampled_from([1e-4, 0.05, 2.0, 1e5]))
    numbers = {
        "xs": np.float32(0.037),
        "xz": x_type(draw(zero)),
        "ws": rng.uniform(0.003, 0.2, outputs).astype(np.float32) if channels else np.float32(0.02),
        "wz": np.full(outputs, w_zero, w_type) if channels else w_type(w_zero),
        "ys": np.float32(y_scale),
        "yz": x_type(draw(zero)),
    }
    if draw(st.booleans()):
        numbers["b"] = rng.integers(-(10**5), 10**5, outputs, dtype=np.int32)
    return numbers


def requantized(sums, numbers, axis):
    """What QLinear operators make of exact sums, whose outputs are along `axis`."""
    shape = [-1 if at == axis else 1 for at in range(sums.ndim)]
    total = sums.astype(np.int64)
    if "b" in numbers:
        total = total + numbers["b"].reshape(shape)
    scales = numbers["xs"] * numbers["ws"] / numbers["ys"]
    scaled = total.astype(np.float32) * (scales.reshape(shape) if scales.ndim else scales)
    zero = numbers["yz"]
    info = np.iinfo(zero.dtype)
    kept = np.clip(scaled, np.float32(int(info.min) - int(zero)), np.float32(int(info.max) - int(zero)))
    return (np.rint(kept).astype(np.int64) + int(zero)).astype(zero.dtype)


def exact(op_type, weight, x, numbers, **attributes):
    """The quantized output; sums are small enough for onnxruntime's floats to be exact."""
    w_zero = np.asarray(numbers["wz"]).reshape(-1)[0].astype(np.float32)
    whole = weight.astype(np.float32) - w_zero, x.astype(np.float32) - np.float32(numbers["xz"])
    sums = run_dense(op_type, *whole, **attributes)
    assert np.abs(sums).max(initial=0) < 2**24
    return requantized(sums, numbers, 1 if op_type == "Conv" else sums.ndim - 1)


def random_input(shape, dtype, seed=1):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    return rng.choice([info.min, info.max, *rng.integers(info.min, info.max, 9)], shape).astype(dtype)


@DRAWN
@given(convolutions(), st.sampled_from([np.int8, np.uint8]), st.sampled_from([1, 4]), DENSITIES, st.data())
def test_convolutions_are_exact(isa, case, w_type, block, density, data):
    shape, x, _, attributes = case[0].shape, *case[1:]
    numbers = numbers_of(data.draw, shape[0], w_type)
    weight = sparse_integers(shape, density, np.asarray(numbers["wz"]).reshape(-1)[0], w_type)
    x = random_input(x.shape, numbers["xz"].dtype)
    op_type = "SparseQLinearConv" if "b" in numbers else "SparseQLinearConvNoBias"
    got = run_kernels(sparse_model(op_type, weight, numbers, block, **attributes), x)
    assert np.array_equal(got, exact("Conv", weight, x, numbers, **attributes))


@DRAWN
@given(
    st.sampled_from([(0,), (1,), (3,), (17,), (2, 3), (40,), (200,)]),
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from([np.int8, np.uint8]),
    st.sampled_from([1, 4]),
    DENSITIES,
    st.booleans(),
    st.data(),
)
def test_products_are_exact(isa, rows, inputs, outputs, w_type, block, density, transposed, data):
    numbers = numbers_of(data.draw, outputs, w_type)
    zero = np.asarray(numbers["wz"]).reshape(-1)[0]
    weight = sparse_integers((inputs, outputs), density, zero, w_type)
    x = random_input((*rows, inputs), numbers["xz"].dtype)
    name = f"SparseQGemm{'TransB' if transposed else ''}{'' if 'b' in numbers else 'NoBias'}"
    if "b" not in numbers and not transposed:
        name = "SparseQLinearMatMul"
    stored = np.ascontiguousarray(weight.T) if transposed else weight
    got = run_kernels(sparse_model(name, stored, numbers, block), x)
    assert np.array_equal(got, exact("MatMul", weight, x, numbers))


@pytest.mark.parametrize("name", [name for name in QUANTIZED_OPS if "QDQ" in name])
def test_qdq_forms_are_exact(isa, name):
    outputs = 20
    shape = {0: (24, outputs), 1: (outputs, 24)}[QUANTIZED_OPS[name].input_axis]
    numbers = numbers_with(np.uint8(100), np.uint8(120), np.linspace(0.01, 0.1, outputs), 0.2)
    if QUANTIZED_OPS[name].has_bias:
        numbers["b"] = np.arange(outputs, dtype=np.int32) * 100
    if "Conv" in name:
        weight, x = sparse_integers((outputs, 24, 3, 3), 0.2, 0), random_input((2, 24, 9, 9), np.uint8)
        got = run_kernels(sparse_model(name, weight, numbers, pads=[1] * 4), x)
        assert np.array_equal(got, exact("Conv", weight, x, numbers, pads=[1] * 4))
        return
    weight, x = sparse_integers(shape, 0.2, 0), random_input((5, 24), np.uint8)
    got = run_kernels(sparse_model(name, weight, numbers), x)
    matrix = weight.T if QUANTIZED_OPS[name].input_axis else weight
    assert np.array_equal(got, exact("MatMul", np.ascontiguousarray(matrix), x, numbers))


@pytest.mark.parametrize("side", [(1, 1), (7, 7), (14, 14), (28, 28), (3, 56), (2, 130)])
@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        (1, {}),
        (1, {"strides": [2, 2]}),
        (3, {"pads": [1] * 4}),
        (3, {"pads": [1] * 4, "strides": [2, 2]}),
        (3, {"pads": [2] * 4, "dilations": [2, 2]}),
        (5, {"pads": [0, 4, 4, 0], "strides": [3, 1]}),
    ],
)
@pytest.mark.parametrize("x_type", [np.uint8, np.int8])
def test_maps_equal_onnxruntime_s_own(isa, side, kernel, attributes, x_type):
    # Of 6 bits: onnxruntime's kernels without VNNI add two products in 16 bits, and saturate where weights are larger.
    weight = sparse_integers((20, 9, kernel, kernel), 0.2, 0) // 4
    numbers = numbers_with(x_type(99), x_type(3), np.linspace(0.01, 0.1, 20), 0.2)
    numbers["b"] = np.arange(20, dtype=np.int32) * 50
    x = random_input((3, 9, *side), x_type)
    got = run_kernels(sparse_model("SparseQLinearConv", weight, numbers, **attributes), x)
    dense = quantized_model("QLinearConv", {"w": weight}, numbers, **attributes)
    session = ort.InferenceSession(dense.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.array_equal(got, session.run(None, {"x": x})[0])


@pytest.mark.parametrize("x_type", [np.uint8, np.int8])
def test_products_equal_onnxruntime_s_own(isa, x_type):
    weight = sparse_integers((300, 130), 0.2, 0) // 4
    numbers = numbers_with(x_type(99), x_type(3), np.linspace(0.01, 0.1, 130), 0.9)
    dense = quantized_model("QLinearMatMul", {"w": weight}, numbers)
    session = ort.InferenceSession(dense.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (1, 2, 33, 200):
        x = random_input((rows, 300), x_type)
        got = run_kernels(sparse_model("SparseQLinearMatMul", weight, numbers), x)
        assert np.array_equal(got, session.run(None, {"x": x})[0])


def test_neighboring_products_never_saturate(isa):
    """255 * 127 + 255 * 127 is beyond 16 bits, -255 * 128 * 2 as well."""
    weight = np.array([[127, -128]] * 8, np.int8)
    numbers = numbers_with(np.uint8(0), np.uint8(128), 1, 8 * 255, x_scale=1)
    x = np.full((40, 8), 255, np.uint8)
    got = run_kernels(sparse_model("SparseQLinearMatMul", weight, numbers), x)
    assert got[:, 0].tolist() == [255] * 40
    assert got[:, 1].tolist() == [0] * 40


@pytest.mark.parametrize(("sum_", "rounded"), [(1, 0), (3, 2), (5, 2), (-1, 0), (-3, -2), (7, 4)])
def test_halves_are_rounded_to_even(isa, sum_, rounded):
    numbers = numbers_with(np.int8(0), np.int8(0), 0.5, 1, x_scale=1)
    weight = np.zeros((4, 1), np.int8)
    weight[2] = sum_
    got = run_kernels(sparse_model("SparseQLinearMatMul", weight, numbers), np.ones((1, 4), np.int8))
    assert got.tolist() == [[rounded]]


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_any_number_of_threads_gives_the_same_bits(isa, rows):
    numbers = numbers_with(np.uint8(9), np.uint8(100), 0.02, 0.5)
    conv = sparse_model("SparseQLinearConvNoBias", sparse_integers((600, 32, 3, 3), 0.1, 0), numbers)
    product = sparse_model("SparseQLinearMatMul", sparse_integers((900, 702), 0.1, 0), numbers)
    for model, shape in ((conv, (1, 32, 17, 17)), (product, (rows, 900))):
        x = random_input(shape, np.uint8)
        results = set()
        for threads in (1, 2, 3, 8):
            session = kernel_session(model, threads)
            # The first runs measure how many threads there are.
            results |= {session.run(None, {"x": x})[0].tobytes() for _ in range(4)}
        assert len(results) == 1


WEIGHT = sparse_integers((8, 6), 0.5, 0)
NUMBERS = numbers_with(np.uint8(0), np.uint8(0), 1, 1, x_scale=1)


@pytest.mark.parametrize(
    ("parts", "numbers", "reason"),
    [
        (
            {"gaps": np.array([9, 9], np.uint8), "values": np.ones((2, 4), np.int8)},
            {},
            "value 1 is at position 17 of 12",
        ),
        ({"gaps": np.array([1, 0], np.uint8), "values": np.ones((2, 4), np.int8)}, {}, "gap 1 is 0"),
        ({"gaps": np.ones(3, np.uint8), "values": np.ones((2, 4), np.int8)}, {}, "2 blocks but 3 gaps"),
        ({"gaps": np.ones((1, 2), np.uint8)}, {}, "gaps are not one-dimensional"),
        ({"gaps": np.ones(2, np.uint8), "values": np.ones((2, 3), np.int8)}, {}, "blocks of 3"),
        ({"gaps": np.ones(2, np.uint8), "values": np.ones(2, np.int8)}, {}, "not in blocks"),
        ({"gaps": np.ones(2, np.uint8), "values": np.ones((2, 4), np.float32)}, {}, "neither int8 nor uint8"),
        ({"shape": np.array([-8, -6], np.int64)}, {}, "negative dimension"),
        ({"shape": np.array([INT64.max, 2], np.int64)}, {}, "larger than memory"),
        ({"shape": np.array([8, 2, 3], np.int64)}, {}, "not that of a matrix"),
        ({}, {"wz": np.uint8(0)}, "different types"),
        ({}, {"wz": np.zeros(5, np.int8)}, "5 zero points for 6 outputs"),
        ({}, {"ws": np.ones(5, np.float32)}, "5 scales for 6 outputs"),
        ({}, {"xs": np.ones(2, np.float32)}, "2 scales where one belongs"),
        ({}, {"yz": np.zeros(2, np.uint8)}, "2 zero points where one belongs"),
    ],
)
def test_what_is_malformed_is_refused_by_the_name_of_its_node(parts, numbers, reason):
    whole = encode_blocks(WEIGHT, np.int8(0), 0, 4)._asdict() | parts
    model = quantized_model("SparseQLinearMatMul", whole, NUMBERS | numbers)
    with pytest.raises(Exception, match=f"node 'sparse' cannot run.*{reason}"):
        run_kernels(model, np.ones((3, 8), np.uint8))


@pytest.mark.parametrize("x_shape", [(3, 7), (2, 3, 8, 1), (3, 0)])
def test_an_input_that_does_not_fit_the_weight_is_refused(x_shape):
    with pytest.raises(Exception, match=r"node 'sparse' cannot run.*its input"):
        run_kernels(sparse_model("SparseQLinearMatMul", WEIGHT, NUMBERS), np.zeros(x_shape, np.uint8))


def test_a_convolution_has_one_zero_point():
    weight = sparse_integers((4, 4, 3, 3), 0.5, 0)
    numbers = NUMBERS | {"wz": np.arange(4, dtype=np.int8), "ws": np.ones(4, np.float32)}
    blocks = encode_blocks(weight, np.int8(0), 1, 4)._asdict()
    with pytest.raises(Exception, match=r"node 'sparse' cannot run.*different zero points"):
        run_kernels(
            quantized_model("SparseQLinearConvNoBias", blocks, numbers), np.ones((1, 4, 5, 5), np.uint8)
        )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    values=st.lists(st.integers(-128, 127), max_size=12),
    gaps=st.lists(st.integers(0, 255), max_size=12),
    shape=st.lists(st.sampled_from([0, 1, 3, 8, 255, -1, INT64.max, INT64.min]), max_size=4),
    block=st.sampled_from([1, 2, 4]),
    op_type=st.sampled_from(["SparseQLinearMatMul", "SparseQLinearConvNoBias", "SparseQGemmTransBNoBias"]),
)
def test_whatever_the_file_says_the_answer_is_an_output_or_an_error(values, gaps, shape, block, op_type):
    parts = {
        "values": np.array(values[: len(values) // block * block], np.int8).reshape(-1, block),
        "gaps": np.array(gaps, np.uint8),
        "shape": np.array(shape, np.int64),
    }
    x_shape = (2, shape[1], 9, 9) if "Conv" in op_type and len(shape) > 1 and 0 < shape[1] < 9 else (2, 3)
    try:
        run_kernels(quantized_model(op_type, parts, NUMBERS), np.zeros(x_shape, np.uint8))
    except Exception as error:
        assert "cannot run" in str(error) or "Invalid" in str(error)
