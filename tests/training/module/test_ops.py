"""Every operator of the table against the operator cases that ship with ONNX, and older opsets against onnxruntime."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from onnxprune.training.module.graph import UnsupportedOperatorError, to_torch
from onnxprune.training.module.ops import find_lowering, lowered_operators

# What passes of the cases of ONNX 1.23 (opset 28); older versions of onnx ship fewer cases.
PASSING_CASES = 1487

KNOWN_FAILURES = {
    "test_batchnorm_epsilon_training_mode": "batch normalization runs in inference form",
    "test_batchnorm_example_training_mode": "batch normalization runs in inference form",
    **{
        f"test_bernoulli{name}{form}": "random"
        for name in ("", "_double", "_seed")
        for form in ("", "_expanded")
    },
    "test_maxunpool_export_with_output_shape": "places are those in the output, as in onnxruntime",
    "test_bitwise_not_3d": "uint16 is held in int32, whose complement is negative",
    "test_reduce_max_empty_set": "torch has no maximum of nothing",
    "test_reduce_max_empty_set_bool": "torch has no maximum of nothing",
    "test_reduce_min_empty_set": "torch has no minimum of nothing",
    "test_training_dropout": "dropout is the identity",
    "test_training_dropout_default": "dropout is the identity",
    "test_training_dropout_default_mask": "dropout is the identity",
    "test_training_dropout_mask": "dropout is the identity",
}

# Types that torch has no arithmetic for: the table refuses them in one sentence.
REFUSED_TYPES = ("FLOAT4E2M1", "UINT2", "INT2", "FLOAT8", "string", "STRING")

# Cases in a type narrower than float32 are computed in float32, so they differ by that type's rounding.
NARROW_TOLERANCE = {"rtol": 2e-2, "atol": 1e-2}


def node_cases() -> list[Any]:
    """ONNX's operator cases with tensors of numbers only: (name, model, data sets, tolerances)."""
    loader = pytest.importorskip("onnx.backend.test.loader")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = loader.load_model_tests(kind="node")
    return [case for case in cases if all(map(holds_numbers, case.data_sets))]


def holds_numbers(data_set: tuple[list[Any], list[Any]]) -> bool:
    arrays = [*data_set[0], *data_set[1]]
    return all(array is not None and not isinstance(array, list | tuple) for array in arrays) and all(
        np.asarray(array).dtype.kind not in "OUS" for array in arrays
    )


def tensor_of(array: Any) -> torch.Tensor:
    """The array as torch holds it; what numpy knows through ml_dtypes only is widened."""
    array = np.asarray(array)
    widened = {"int4": np.int8, "uint4": np.uint8}.get(array.dtype.name)
    if widened is None and (array.dtype.kind == "V" or array.dtype.name in ("float16", "bfloat16")):
        widened = np.float32
    return torch.from_numpy(np.array(array if widened is None else array.astype(widened)))


def narrow_inputs(model: onnx.ModelProto) -> bool:
    names = {
        TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        for value in (*model.graph.input, *model.graph.output)
    }
    return any(name.startswith(("FLOAT16", "BFLOAT16", "FLOAT8")) for name in names)


def assert_case_holds(case: Any) -> None:
    module = to_torch(ir.from_proto(case.model))
    tolerance = (
        NARROW_TOLERANCE if narrow_inputs(case.model) else {"rtol": case.rtol, "atol": max(case.atol, 1e-5)}
    )
    for inputs, expected in case.data_sets:
        for result, wanted in zip(module(*map(tensor_of, inputs)), map(tensor_of, expected), strict=True):
            assert result.shape == wanted.shape
            np.testing.assert_allclose(result.detach().numpy(), wanted.numpy(), **tolerance)


def test_the_operator_cases_of_onnx_pass_but_for_the_known_ones() -> None:
    passed, failed, refused = [], {}, {}
    for case in node_cases():
        try:
            assert_case_holds(case)
            passed.append(case.name)
        except UnsupportedOperatorError as error:
            refused[case.name] = str(error)
        except Exception as error:
            failed[case.name] = repr(error)
    translated = len(passed) + len(failed)
    print(f"{len(passed)} of {translated} translated operator cases pass, {len(refused)} are refused")
    assert {name: error for name, error in failed.items() if name not in KNOWN_FAILURES} == {}
    if onnx.defs.onnx_opset_version() >= 28:
        assert len(passed) >= PASSING_CASES
    in_table = {op_type for domain, op_type in lowered_operators() if not domain}
    unexpected = {
        name: error
        for name, error in refused.items()
        if error.split(" (")[0] in in_table and not any(kind in error for kind in REFUSED_TYPES)
    }
    assert unexpected == {}


def run_both(
    op_type: str,
    opset: int,
    inputs: dict[str, np.ndarray],
    constants: dict[str, np.ndarray],
    outputs: int = 1,
    **attributes: Any,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outputs of a model of one node in onnxruntime and in torch."""
    names = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op_type, [*inputs, *constants], names, "node", **attributes)
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in inputs.items()
    ]
    graph = helper.make_graph(
        [node],
        "one_node",
        infos,
        [helper.make_empty_tensor_value_info(name) for name in names],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    module = to_torch(ir.from_proto(model))
    results = module(*(torch.from_numpy(array) for array in inputs.values()))
    return session.run(None, inputs), [result.detach().numpy() for result in results]


def assert_same(op_type: str, opset: int, *arguments: Any, **attributes: Any) -> None:
    expected, results = run_both(op_type, opset, *arguments, **attributes)
    for wanted, result in zip(expected, results, strict=True):
        assert wanted.dtype == result.dtype
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CHANGED_MEANINGS: dict[str, tuple[Any, ...]] = {
    "softmax over all later axes": ("Softmax", 11, {"x": numbers(2, 3, 4)}, {}, {"axis": 1}),
    "log softmax over all later axes": ("LogSoftmax", 7, {"x": numbers(2, 3, 4)}, {}, {}),
    "hardmax over all later axes": ("Hardmax", 11, {"x": numbers(2, 3, 4)}, {}, {"axis": 1}),
    "softmax over one axis": ("Softmax", 13, {"x": numbers(2, 3, 4)}, {}, {"axis": 1}),
    "clip by attributes": ("Clip", 7, {"x": numbers(5)}, {}, {"min": -0.5, "max": 0.5}),
    "clip by inputs": ("Clip", 13, {"x": numbers(5)}, {"min": np.float32(-0.5)}, {}),
    "squeeze by attribute": ("Squeeze", 11, {"x": numbers(2, 1, 3, 1)}, {}, {"axes": [1, -1]}),
    "squeeze by input": ("Squeeze", 13, {"x": numbers(2, 1, 3, 1)}, {"axes": integers(1)}, {}),
    "unsqueeze by attribute": ("Unsqueeze", 11, {"x": numbers(2, 3)}, {}, {"axes": [0, 3]}),
    "unsqueeze by input": ("Unsqueeze", 13, {"x": numbers(2, 3)}, {"axes": integers(-1, 1)}, {}),
    "pad by attribute": ("Pad", 7, {"x": numbers(2, 3)}, {}, {"pads": [0, 1, 0, 2], "value": 1.5}),
    "pad by input": ("Pad", 13, {"x": numbers(3, 4)}, {"pads": integers(1, 2, 0, 3)}, {"mode": "reflect"}),
    "slice by attributes": ("Slice", 9, {"x": numbers(4, 5)}, {}, {"starts": [1, -3], "ends": [4, 5], "axes": [0, 1]}),
    "slice by inputs": (
        "Slice", 13, {"x": numbers(4, 5)}, {"s": integers(4), "e": integers(0), "a": integers(1), "t": integers(-2)}, {}
    ),
    "sum over attribute axes": ("ReduceSum", 11, {"x": numbers(2, 3, 4)}, {}, {"axes": [-1], "keepdims": 0}),
    "sum over input axes": ("ReduceSum", 13, {"x": numbers(2, 3, 4)}, {"axes": integers(0, 2)}, {}),
    "mean over attribute axes": ("ReduceMean", 13, {"x": numbers(2, 3, 4)}, {}, {"axes": [1]}),
    "mean over input axes": ("ReduceMean", 18, {"x": numbers(2, 3, 4)}, {"axes": integers(1)}, {}),
    "top k by attribute": ("TopK", 9, {"x": numbers(3, 6)}, {}, {"k": 2, "outputs": 2}),
    "top k by input": ("TopK", 11, {"x": numbers(3, 6)}, {"k": integers(2)}, {"axis": 0, "largest": 0, "outputs": 2}),
    "split by attribute": ("Split", 11, {"x": numbers(6, 2)}, {}, {"split": [1, 5], "outputs": 2}),
    "split into unequal parts": ("Split", 18, {"x": numbers(7, 2)}, {}, {"num_outputs": 3, "outputs": 3}),
    "upsample by attribute": ("Upsample", 7, {"x": numbers(1, 2, 3, 3)}, {}, {"scales": [1.0, 1.0, 2.0, 2.0]}),
    "resize by scales alone": ("Resize", 10, {"x": numbers(1, 2, 3, 3)}, {"s": np.array([1, 1, 2, 2], np.float32)}, {}),
    "group norm scaled by group": (
        "GroupNormalization", 18, {"x": numbers(2, 4, 3)}, {"s": numbers(2), "b": numbers(2, seed=1)}, {"num_groups": 2}
    ),
    "dropout by attribute": ("Dropout", 7, {"x": numbers(3)}, {}, {"ratio": 0.5}),
    "batch norm with spatial": (
        "BatchNormalization",
        7,
        {"x": numbers(2, 3, 4)},
        {"s": numbers(3), "b": numbers(3, seed=1), "m": numbers(3, seed=2), "v": numbers(3, seed=3) ** 2},
        {"epsilon": 1e-3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED_MEANINGS)
def test_an_operator_means_what_it_meant_in_the_opset_of_the_model(name: str) -> None:
    op_type, opset, inputs, constants, attributes = CHANGED_MEANINGS[name]
    assert_same(op_type, opset, inputs, constants, **attributes)


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 9), (4, 3, 3), {"pads": [1, 1], "strides": [2]}),
    ((2, 4, 7, 8), (6, 2, 3, 3), {"group": 2, "dilations": [2, 1]}),
    ((1, 2, 7, 8), (3, 2, 3, 2), {"pads": [0, 1, 2, 0]}),
    ((1, 2, 7, 8), (3, 2, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    ((1, 2, 7, 8), (3, 2, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    ((1, 2, 7, 8), (3, 2, 4, 3), {"auto_pad": "VALID"}),
    ((1, 2, 5, 5, 5), (2, 2, 2, 2, 2), {"strides": [1, 2, 1], "pads": [1, 0, 0, 0, 0, 1]}),
]


@pytest.mark.parametrize(("x", "weight", "attributes"), CONVOLUTIONS)
def test_a_convolution_equals_that_of_onnxruntime(
    x: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    assert_same(
        "Conv", 11, {"x": numbers(*x)}, {"w": numbers(*weight), "b": numbers(weight[0])}, **attributes
    )


@pytest.mark.parametrize(
    ("x", "weight", "attributes"),
    [
        ((2, 3, 9), (3, 4, 3), {"pads": [1, 1], "strides": [2]}),
        ((1, 4, 5, 5), (4, 2, 3, 3), {"group": 2, "strides": [2, 2], "output_padding": [1, 1]}),
        ((1, 2, 5, 5), (2, 2, 3, 3), {"pads": [1, 0, 0, 2]}),
        ((1, 2, 5, 5), (2, 2, 3, 3), {"strides": [2, 2], "output_shape": [10, 12]}),
        ((1, 2, 5, 5), (2, 2, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ],
)
def test_a_transposed_convolution_equals_that_of_onnxruntime(
    x: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    assert_same("ConvTranspose", 11, {"x": numbers(*x)}, {"w": numbers(*weight)}, **attributes)


POOLS: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("MaxPool", (2, 3, 9), {"kernel_shape": [3], "strides": [2]}),
    ("MaxPool", (1, 2, 7, 8), {"kernel_shape": [3, 2], "pads": [0, 1, 2, 0]}),
    ("MaxPool", (1, 2, 8, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", (1, 2, 8, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", (1, 2, 8, 8), {"kernel_shape": [3, 3], "dilations": [2, 2], "outputs": 2}),
    ("AveragePool", (1, 2, 8, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", (1, 2, 8, 8), {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0], "count_include_pad": 1}),
    ("AveragePool", (1, 2, 8, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("AveragePool", (1, 2, 6, 6, 6), {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}),
    ("LpPool", (1, 2, 8, 8), {"kernel_shape": [3, 3], "p": 3, "strides": [2, 2]}),
    ("GlobalAveragePool", (2, 3, 4, 5), {}),
    ("GlobalMaxPool", (2, 3, 4), {}),
    ("GlobalLpPool", (2, 3, 4, 5), {"p": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("op_type", "x", "attributes"), POOLS)
def test_a_pool_equals_that_of_onnxruntime(
    op_type: str, x: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    assert_same(op_type, 13, {"x": numbers(*x)}, {}, **attributes)


@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("scales", [{}, {"alpha": 0.5}, {"beta": 2.0}])
@pytest.mark.parametrize("bias", [None, (4,), (1, 4), (3, 1), ()])
def test_gemm_equals_that_of_onnxruntime(
    transposed: tuple[int, int], scales: dict[str, float], bias: tuple[int, ...] | None
) -> None:
    a, b = (
        numbers(5, 3) if transposed[0] else numbers(3, 5),
        numbers(4, 5) if transposed[1] else numbers(5, 4),
    )
    constants = {"b": b} if bias is None else {"b": b, "c": np.asarray(numbers(*bias), np.float32)}
    assert_same("Gemm", 13, {"a": a}, constants, transA=transposed[0], transB=transposed[1], **scales)


RECURRENCES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("op_type", RECURRENCES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("given", ["weights alone", "lengths", "clip"])
def test_a_recurrent_layer_equals_that_of_onnxruntime(op_type: str, direction: str, given: str) -> None:
    time, batch, width, hidden = 5, 2, 3, 4
    directions, gates = 1 + (direction == "bidirectional"), RECURRENCES[op_type]
    constants = {
        "w": numbers(directions, gates * hidden, width),
        "r": numbers(directions, gates * hidden, hidden, seed=1),
        "b": numbers(directions, 2 * gates * hidden, seed=2),
    }
    attributes: dict[str, Any] = {"direction": direction, "hidden_size": hidden}
    if given == "lengths":
        constants["lengths"] = np.array([5, 3], np.int32)
    if given == "clip":
        attributes["clip"] = 0.5
    outputs = 3 if op_type == "LSTM" else 2
    assert_same(op_type, 14, {"x": numbers(time, batch, width)}, constants, outputs=outputs, **attributes)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("sizes", [(6, 9), (2, 3)])
def test_resize_equals_that_of_onnxruntime(mode: str, coordinates: str, sizes: tuple[int, int]) -> None:
    x = numbers(1, 1, 4, 5)
    constants = {
        "roi": np.zeros(0, np.float32),
        "scales": np.zeros(0, np.float32),
        "sizes": integers(1, 1, *sizes),
    }
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    assert_same("Resize", 13, {"x": x}, constants, **attributes)


def test_the_newest_entry_that_the_opset_knows_is_taken() -> None:
    softmax = {opset: find_lowering("", "Softmax", opset) for opset in (11, 12, 13, 24)}
    assert all(softmax.values())
    assert [entry.since for entry in softmax.values() if entry] == [1, 1, 13, 13]
    assert find_lowering("", "Gemm", 6) is None
    assert find_lowering("ai.onnx", "Gemm", 13) is find_lowering("", "Gemm", 13)


def test_an_output_shape_of_max_unpool_is_that_of_the_places() -> None:
    x, places = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 2, 2), np.array([[[[5, 7], [13, 15]]]])
    expected, found = run_both(
        "MaxUnpool",
        13,
        {"x": x, "places": places},
        {"shape": np.array([1, 1, 5, 5])},
        kernel_shape=[2, 2],
        strides=[2, 2],
    )
    np.testing.assert_array_equal(found[0], expected[0])
