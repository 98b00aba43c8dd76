"""Sessions of sparse models with the kernels, and what dense onnxruntime makes of the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxprune import runtime
from onnxprune.sparse.encode import encode
from onnxprune.sparse.functions import DOMAIN

ISAS = ("portable", "avx2", "avx512", "neon")
# Of the largest output; a sum's terms are added in another order than dense.
TOLERANCE = 1e-5

needs_kernels = pytest.mark.skipif(not runtime.available(), reason=runtime.available().reason or "-")


def kernel_session(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    """A session that uses the kernels."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    assert runtime.register(options)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_kernels(model: onnx.ModelProto, x: np.ndarray, threads: int = 1) -> np.ndarray:
    return kernel_session(model, threads).run(None, {"x": x})[0]


def use_isa(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have kernels made from now on use this instruction set; skip the test where the CPU has it not."""
    monkeypatch.setenv("ONNXPRUNE_ISA", isa)
    try:
        run_kernels(sparse_model("SparseMatMul", np.ones((1, 1), np.float32)), np.ones((1, 1), np.float32))
    except Exception as error:
        if "but this machine has" not in str(error):
            raise
        pytest.skip(f"this CPU has no {isa}")


def sparse_model(
    op_type: str,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    parts: dict[str, np.ndarray] | None = None,
    **attributes: object,
) -> onnx.ModelProto:
    """x -> `op_type` node 'sparse' -> y, the node alone; `parts` replaces what encodes the weight."""
    encoded = encode(weight)._asdict() | (parts or {})
    constants = encoded | ({} if bias is None else {"bias": bias})
    element_type = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
    node = onnx.helper.make_node(
        op_type, ["x", *constants], ["y"], "sparse", domain=DOMAIN, dtype=element_type, **attributes
    )
    graph = onnx.helper.make_graph(
        [node],
        "graph",
        [onnx.helper.make_tensor_value_info("x", element_type, None)],
        [onnx.helper.make_tensor_value_info("y", element_type, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(DOMAIN, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run_dense(
    op_type: str, weight: np.ndarray, x: np.ndarray, bias: np.ndarray | None = None, **attributes: object
) -> np.ndarray:
    """What onnxruntime's own `op_type` makes of the same weight, zeros and all."""
    constants = {"w": weight} | ({} if bias is None else {"b": bias})
    element_type = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op_type, ["x", *constants], ["y"], **attributes)],
        "graph",
        [onnx.helper.make_tensor_value_info("x", element_type, None)],
        [onnx.helper.make_tensor_value_info("y", element_type, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def assert_close(got: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if expected.size:
        scale = max(float(np.abs(expected).max()), 1e-30)
        assert np.abs(got.astype(float) - expected).max() <= tolerance * scale
