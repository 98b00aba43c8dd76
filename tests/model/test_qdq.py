"""Quantized layers between DequantizeLinear and QuantizeLinear give what the operators of integers give."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.model.memory import peak_activation_bytes
from onnxprune.model.qdq import to_qdq
from tests.builders import cnn, mlp

RNG = np.random.default_rng(0)
SCALE, ZERO = np.array(0.02, np.float32), np.array(128, np.uint8)


def quantized(op, shape, constants, names, domain="", **attributes):
    """x uint8 -> the operator -> y uint8; `names`: its inputs, "x" and those of `constants`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.UINT8, [None] * len(shape))]
    node = helper.make_node(op, names, ["y"], "layer", domain=domain, **attributes)
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(model, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


OPERANDS = {"xs": SCALE, "xz": ZERO, "ys": np.array(0.07, np.float32), "yz": np.array(100, np.uint8)}
MS = "com.microsoft"
BIAS = RNG.integers(-3000, 3000, 5).astype(np.int32)


def weight(*shape, scales):
    return {
        "w": RNG.integers(-127, 128, shape).astype(np.int8),
        "ws": RNG.uniform(0.001, 0.01, scales).astype(np.float32),
        "wz": np.zeros(scales, np.int8),
        "b": BIAS,
    }


NAMES = ["x", "xs", "xz", "w", "ws", "wz"]
CASES = {
    "conv": ("QLinearConv", [2, 3, 6, 6], weight(5, 3, 3, 3, scales=5), [*NAMES, "ys", "yz", "b"], "", {}),
    "matmul": ("QLinearMatMul", [2, 8], weight(8, 5, scales=5), [*NAMES, "ys", "yz"], "", {}),
    "gemm": ("QGemm", [2, 8], weight(5, 8, scales=5), [*NAMES, "b", "ys", "yz"], MS, {"transB": 1}),
    "gemm, not transposed": ("QGemm", [2, 8], weight(8, 5, scales=5), [*NAMES, "b", "ys", "yz"], MS, {}),
    "add": ("QLinearAdd", [2, 8], {}, ["x", "xs", "xz", "x", "xs", "xz", "ys", "yz"], MS, {}),
    "sigmoid": ("QLinearSigmoid", [2, 8], {}, ["x", "xs", "xz", "ys", "yz"], MS, {}),
    "pool": (
        "QLinearGlobalAveragePool", [2, 3, 4, 4], {}, ["x", "xs", "xz", "ys", "yz"], MS, {"channels_last": 0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_layer_gives_the_integers_of_its_operator_within_one(case):
    op, shape, constants, names, domain, attributes = CASES[case]
    given = quantized(op, shape, OPERANDS | constants, names, domain, **attributes)
    model = ir.from_proto(given)
    assert to_qdq(model) == ()
    plain = ir.to_proto(model)
    onnx.checker.check_model(plain)
    assert {node.domain for node in plain.graph.node} == {""} and len(plain.opset_import) == 1
    x = RNG.integers(0, 256, shape).astype(np.uint8)
    expected, found = run(given, x).astype(int), run(plain, x).astype(int)
    # Sums are rounded in floats.
    assert np.abs(expected - found).max() <= 1 and np.mean(expected != found) < 0.02
    assert len(np.unique(expected)) > 3


def test_what_has_no_standard_form_is_left_and_named():
    names = ["x", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"]
    model = ir.from_proto(quantized("QGemm", [2, 8], OPERANDS | weight(8, 5, scales=5), names, MS, alpha=0.5))
    assert to_qdq(model) == ("QGemm",) and [node.op_type for node in model.graph] == ["QGemm"]


@pytest.mark.parametrize("make", [mlp, cnn])
def test_a_quantized_job_and_an_export_give_standard_operators(make, tmp_path):
    shape = (64, 8) if make is mlp else (64, 1, 8, 8)
    x = RNG.random(shape, dtype=np.float32)
    settings = {"rate": 0.5, "calibration_data": {"x": x}, "quantize": "int8", "format": "dense"}
    whole = onnxprune.prune(make(), tmp_path / "qdq.onnx", **settings, quantize_form="qdq")
    onnxprune.prune(make(), tmp_path / "integers.onnx", **settings)
    onnxprune.export(tmp_path / "integers.onnx", tmp_path / "exported.onnx")
    sessions = []
    for name in ("qdq", "exported", "integers"):
        kinds = {node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node}
        assert {"Gemm", "DequantizeLinear"} <= kinds or name == "integers"
        assert not (kinds & {"QLinearConv", "QGemm"}) or name == "integers"
        sessions.append(ort.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"]))
    outputs = [session.run(None, {"x": x})[0] for session in sessions]
    for other in outputs[:2]:
        np.testing.assert_allclose(other, outputs[2], atol=np.ptp(outputs[2]) / 100)
    assert whole.report.pruned.bytes < 40_000
    peaks = [
        peak_activation_bytes(ir.load(tmp_path / f"{name}.onnx"), {"x": (1, *shape[1:])})
        for name in ("qdq", "integers")
    ]
    assert peaks[0] == peaks[1]
