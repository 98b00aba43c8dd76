"""The kernels between sparse nodes against onnxruntime's own operators, to the bit."""

from __future__ import annotations

import platform

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from onnxprune.sparse.between import BETWEEN
from onnxprune.sparse.functions import DOMAIN
from tests.runtime.sessions import kernel_session, needs_kernels
from tests.runtime.test_quantized_kernels import DRAWN, random_input

pytestmark = needs_kernels
# On others, onnxruntime adds in fixed point: results may differ by one.
X86 = platform.machine().lower() in ("x86_64", "amd64")
needs_x86 = pytest.mark.skipif(not X86, reason="onnxruntime computes otherwise")

MICROSOFT = "com.microsoft"
SHAPES = [((5,), (5,)), ((), (3,)), ((2, 3, 70), (70,)), ((2, 3, 70), (3, 1)), ((1, 4, 1), (5, 1, 67))]


def node_model(
    name: str,
    domain: str,
    inputs: dict[str, np.ndarray],
    constants: dict[str, np.ndarray],
    **attributes: object,
) -> onnx.ModelProto:
    """The node 'between' alone, whose inputs are those of `inputs` and `constants` in the order of its operator."""
    given_inputs = {**inputs, **constants}
    node = helper.make_node(
        name,
        [part for part in BETWEEN[name].inputs if part in given_inputs],
        ["out"],
        "between",
        domain=domain,
        **attributes,
    )
    first = next(iter(inputs.values()))
    element_type = helper.np_dtype_to_tensor_dtype(first.dtype)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(part, element_type, array.shape) for part, array in inputs.items()],
        [helper.make_tensor_value_info("out", element_type, None)],
        [numpy_helper.from_array(array, part) for part, array in constants.items()],
    )
    opsets = [helper.make_opsetid(*pair) for pair in (("", 17), (MICROSOFT, 1), (DOMAIN, 1))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def both(
    name: str,
    inputs: dict[str, np.ndarray],
    constants: dict[str, np.ndarray],
    threads: int = 1,
    **attributes: object,
) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel makes, and onnxruntime's own operator."""
    session = kernel_session(node_model(name, DOMAIN, inputs, constants, **attributes), threads)
    own = node_model(name, BETWEEN[name].domain, inputs, constants, **attributes)
    dense = ort.InferenceSession(own.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0], dense.run(None, inputs)[0]


def sum_constants(draw, dtype):
    info = np.iinfo(dtype)
    zero = st.sampled_from([int(info.min), (int(info.min) + int(info.max)) // 2, int(info.max)])
    # Powers of two, where many sums lie between two steps; and from all saturated to all alike. Beyond 2^31 steps,
    # onnxruntime saturates to the wrong end.
    scale = st.sampled_from([2.0**-5, 3 * 2.0**-7, 0.01, 0.037, 1.3, 5e-4, 30.0])
    return {
        f"{part}_{kind}": np.float32(draw(scale)) if kind == "scale" else dtype(draw(zero))
        for part in "ABC"
        for kind in ("scale", "zero_point")
    }


@needs_x86
@DRAWN
@given(st.sampled_from(SHAPES), st.booleans(), st.sampled_from([np.uint8, np.int8]), st.data())
def test_sums_equal_onnxruntime_s_own(isa, shapes, turned, dtype, data):
    first, second = shapes[::-1] if turned else shapes
    inputs = {"A": random_input(first, dtype, 1), "B": random_input(second, dtype, 2)}
    got, expected = both("QLinearAdd", inputs, sum_constants(data.draw, dtype))
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@needs_x86
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("zeros", [(0, 0, 0), (7, 100, 90)])
def test_every_pair_of_bytes_is_added_alike(isa, dtype, zeros):
    bytes_ = np.arange(256).astype(np.uint8).view(dtype)
    a, b = (each.ravel() for each in np.meshgrid(bytes_, bytes_))
    for scales in ((0.02, 0.03, 0.04), (2.0**-5, 3 * 2.0**-7, 2.0**-5), (0.0173, 0.0091, 0.0234)):
        constants = {
            name: number
            for part, scale, zero in zip("ABC", scales, zeros, strict=True)
            for name, number in ((f"{part}_scale", np.float32(scale)), (f"{part}_zero_point", dtype(zero)))
        }
        got, expected = both("QLinearAdd", {"A": a, "B": b}, constants)
        assert np.array_equal(got, expected)


@needs_x86
@DRAWN
@given(
    st.sampled_from([(1, 2), (3, 5), (9, 64), (2, 3, 128), (5, 200), (4, 1), (2, 3, 4, 17)]),
    st.sampled_from([0.001, 0.02, 0.1, 0.9]),
    st.sampled_from([1 / 256, 1 / 255, 0.002, 0.05]),
    st.sampled_from([0, 3, 255]),
    st.integers(0, 3),
    st.data(),
)
def test_softmax_equals_onnxruntime_s_own(isa, shape, x_scale, y_scale, y_zero, seed, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    constants = {
        "X_scale": np.float32(x_scale),
        "x_zero_point": np.uint8(7),
        "y_scale": np.float32(y_scale),
        "y_zero_point": np.uint8(y_zero),
    }
    # Of few numbers, shares often lie between two bytes.
    few = [0, 200, 255]
    x = {"X": np.random.default_rng(seed).choice(few if seed % 2 else 256, shape).astype(np.uint8)}
    got, expected = both("QLinearSoftmax", x, constants, axis=axis, opset=13)
    assert np.array_equal(got, expected)


@DRAWN
@given(
    st.sampled_from([(1, 1, 1, 1), (1, 3, 7, 9), (2, 5, 12, 33), (1, 2, 112, 112)]),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([np.uint8, np.int8]),
    st.data(),
)
def test_pools_equal_onnxruntime_s_own(isa, shape, kernel, strides, dtype, data):
    pads = [data.draw(st.integers(0, size - 1)) for size in (*kernel, *kernel)]
    given_pads = {"pads": pads} if data.draw(st.booleans()) else {}
    pads = given_pads.get("pads", [0] * 4)
    if any(shape[axis + 2] + pads[axis] + pads[axis + 2] < kernel[axis] for axis in range(2)):
        return
    got, expected = both(
        "MaxPool", {"X": random_input(shape, dtype)}, {}, kernel_shape=kernel, strides=strides, **given_pads
    )
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


def test_any_number_of_threads_gives_the_same_bits(isa):
    scales = {f"{part}_scale": np.float32(0.02) for part in "ABC"}
    constants = scales | {f"{part}_zero_point": np.uint8(9) for part in "ABC"}
    soft = {"X_scale": np.float32(0.1), "x_zero_point": np.uint8(0)}
    soft |= {"y_scale": np.float32(1 / 256), "y_zero_point": np.uint8(0)}
    x = random_input((1, 9, 120, 121), np.uint8)
    cases = (
        ("QLinearAdd", {"A": x, "B": random_input((121,), np.uint8)}, constants, {}),
        ("QLinearAdd", {"A": x, "B": x}, constants, {}),
        ("QLinearSoftmax", {"X": x}, soft, {"axis": -1, "opset": 13}),
        ("QLinearSoftmax", {"X": x}, soft, {"axis": 2, "opset": 13}),
        ("MaxPool", {"X": x}, {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
    )
    for name, inputs, numbers, attributes in cases:
        model = node_model(name, DOMAIN, inputs, numbers, **attributes)
        results = {kernel_session(model, count).run(None, inputs)[0].tobytes() for count in (1, 2, 3)}
        assert len(results) == 1


@pytest.mark.parametrize(
    ("name", "inputs", "attributes", "reason"),
    [
        ("QLinearAdd", {"A": (2, 3), "B": (2, 4)}, {}, r"shapes \[2, 3\] and \[2, 4\]"),
        ("QLinearSoftmax", {"X": (2, 3)}, {"axis": 2, "opset": 13}, "no axis 2"),
        ("MaxPool", {"X": (1, 2, 3)}, {"kernel_shape": [2, 2]}, "not that of images"),
        ("MaxPool", {"X": (1, 1, 2, 2)}, {"kernel_shape": [3, 3]}, "window is larger"),
        ("MaxPool", {"X": (1, 1, 2, 2)}, {"kernel_shape": [2]}, "kernel_shape are"),
        ("MaxPool", {"X": (1, 1, 2, 2)}, {"kernel_shape": [2, 2], "pads": [2, 0, 0, 0]}, "no window"),
        ("MaxPool", {"X": (1, 1, 2, 2)}, {"kernel_shape": [2, 2], "strides": [0, 1]}, "strides are"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_its_node(name, inputs, attributes, reason):
    constants = {
        part: np.float32(0.1) if part.endswith("scale") else np.uint8(3)
        for part in BETWEEN[name].inputs
        if part not in inputs
    }
    arrays = {part: np.zeros(shape, np.uint8) for part, shape in inputs.items()}
    model = node_model(name, DOMAIN, arrays, constants, **attributes)
    with pytest.raises(Exception, match=f"node 'between' cannot run.*{reason}"):
        kernel_session(model, 1).run(None, arrays)
