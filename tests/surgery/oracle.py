"""The oracle of surgery: the same outputs in onnxruntime, and a model that the checker takes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

from onnxprune.surgery import SurgeryReport, remove_dead_units

RELATIVE_TOLERANCE = 1e-5
SYMBOLIC_SIZE = 3


def model(graph: str, *, opset: int = 17, ir_version: int = 8, **weights: np.ndarray) -> onnx.ModelProto:
    """A model from the graph in ONNX's text syntax and its initializers."""
    proto = onnx.helper.make_model(
        onnx.parser.parse_graph(f"g {graph}"),
        ir_version=ir_version,
        opset_imports=[onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)],
    )
    for number, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type.lower()}_{number}"
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return proto


def operate(
    proto: onnx.ModelProto, tolerance: float = RELATIVE_TOLERANCE
) -> tuple[onnx.ModelProto, SurgeryReport]:
    """Remove the dead units of a model; the result is valid, and says the same as before on random inputs."""
    operated = ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    report = remove_dead_units(operated)
    after = ir.to_proto(operated)
    onnx.checker.check_model(after, full_check=True)
    onnx.shape_inference.infer_shapes(after, check_type=True, strict_mode=True, data_prop=True)
    assert [i for i in after.graph.input if i.name not in _initializer_names(after)] == [
        i for i in proto.graph.input if i.name not in _initializer_names(proto)
    ]
    assert after.graph.output == proto.graph.output
    feeds = _random_inputs(proto)
    for name, expected, actual in zip(
        [output.name for output in proto.graph.output], run(proto, feeds), run(after, feeds), strict=True
    ):
        assert expected.shape == actual.shape
        difference = np.abs(expected - actual).max(initial=0)
        assert difference <= tolerance * max(np.abs(expected).max(initial=0), 1), (name, difference)
    return after, report


def round_trip(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model as onnx_ir writes what it read."""
    return ir.to_proto(ir.from_proto(proto))


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs in onnxruntime."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def weight_of(proto: onnx.ModelProto, name: str) -> np.ndarray:
    """An initializer by name."""
    return next(numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if tensor.name == name)


def _initializer_names(proto: onnx.ModelProto) -> set[str]:
    return {tensor.name for tensor in proto.graph.initializer}


def _random_inputs(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds = {}
    for info in proto.graph.input:
        if info.name in _initializer_names(proto):
            continue
        shape = [dim.dim_value or SYMBOLIC_SIZE for dim in info.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        if info.type.tensor_type.elem_type == onnx.TensorProto.BOOL:
            feeds[info.name] = np.array(True)
        else:
            feeds[info.name] = rng.standard_normal(shape).astype(dtype)
    return feeds
