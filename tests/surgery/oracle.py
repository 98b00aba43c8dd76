"""The oracle of surgery: the same outputs in onnxruntime, and a model that the checker takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

from onnxprune.pruning.channels import Choice, choose_channels
from onnxprune.surgery import SurgeryReport, UnitGroups, remove_dead_units, unit_groups, zero_units

RELATIVE_TOLERANCE = 1e-5
SYMBOLIC_SIZE = 3
SINCE = 17  # the opset that has LayerNormalization; onnxruntime's optimizer writes it in models of others too


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
    operated = _read(proto)
    report = remove_dead_units(operated)
    after = ir.to_proto(operated)
    assert_same(proto, after, tolerance)
    return after, report


@dataclass(frozen=True)
class Pruned:
    """A model without the units chosen, the groups that there were, and what was chosen of them."""

    model: onnx.ModelProto
    groups: UnitGroups
    choice: Choice
    report: SurgeryReport


def prune_channels(
    proto: onnx.ModelProto,
    rate: float = 0.5,
    tolerance: float = RELATIVE_TOLERANCE,
    *,
    alone: bool = True,
    **settings: Any,
) -> Pruned:
    """Remove the fraction `rate` of the weights in whole channels: the same as with those channels at zero.

    Units that are dead from the first go before. `alone`: no other unit dies of it.
    """
    model = _read(operate(proto, tolerance)[0])
    proto = ir.to_proto(model)
    groups = unit_groups(model)
    assert ir.to_proto(model) == round_trip(proto), "looking changes nothing"
    choice = choose_channels(groups.positions, groups.weights, rate, **settings)
    masks = zero_units(model, groups, choice.chosen)
    zeroed = ir.to_proto(model)
    report = remove_dead_units(model)
    after = ir.to_proto(model)
    assert_same(zeroed, after, tolerance)
    left = sum(array.size for array in unit_groups(model).weights.values())
    kept = choice.kept + sum(choice.stuck.values())
    assert left == kept or not alone, "what was chosen is gone, and nothing else"
    assert set(masks) >= {name for index in choice.chosen for name, _ in groups.positions[index]}
    return Pruned(after, groups, choice, report)


def assert_same(proto: onnx.ModelProto, after: onnx.ModelProto, tolerance: float) -> None:
    """Both models have the same inputs and outputs and say the same, and the second is valid."""
    onnx.checker.check_model(known_to_onnx(after), full_check=True)
    onnx.shape_inference.infer_shapes(known_to_onnx(after), check_type=True, strict_mode=True, data_prop=True)
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
        assert np.isfinite(expected).all(), name
        assert difference <= tolerance * max(np.abs(expected).max(initial=0), 1), (name, difference)


def known_to_onnx(proto: onnx.ModelProto) -> onnx.ModelProto:
    """For the checker, with onnxruntime's own operators of the standard domain in a domain of their own."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    own = {"SimplifiedLayerNormalization"}
    if all(opset.version < SINCE for opset in proto.opset_import if not opset.domain):
        own.add("LayerNormalization")
    for node in proto.graph.node:
        if node.op_type in own:
            node.domain = "com.microsoft"
    return proto


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


def _read(proto: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))


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
