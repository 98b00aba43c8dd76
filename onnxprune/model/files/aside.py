"""What a file holds and onnx_ir does not: types of maps, and training_info. Kept with the graph, and put back."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.files.protos import all_graphs, all_nodes

_KEY = "onnxprune.aside"


@dataclass
class Aside:
    """Types by the name of a value of the main graph; `initializers`: those that training_info updates, with sizes."""

    types: dict[str, onnx.TypeProto] = field(default_factory=dict)
    training: list[onnx.TrainingInfoProto] = field(default_factory=list)
    initializers: dict[str, tuple[int, ...]] = field(default_factory=dict)


def set_aside(proto: onnx.ModelProto) -> Aside:
    """Take what onnx_ir does not hold out of a model, in place."""
    aside = Aside()
    for graph in all_graphs(proto):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if _has_no_counterpart(info.type):
                if graph is proto.graph:
                    aside.types[info.name] = onnx.TypeProto.FromString(info.type.SerializeToString())
                info.ClearField("type")
    aside.training = list(proto.training_info)
    updated = {pair.key for each in aside.training for pair in _bindings(each)}
    aside.initializers = {
        tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer if tensor.name in updated
    }
    proto.ClearField("training_info")
    return aside


def keep(model: ir.Model, aside: Aside) -> None:
    """Remember it with the model's graph."""
    model.graph.meta[_KEY] = aside


def serialized(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf, with what was set aside."""
    proto = ir.to_proto(model)
    aside: Aside | None = model.graph.meta.get(_KEY)
    if aside is None:
        return proto
    for info in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        if info.name in aside.types:
            info.type.CopyFrom(aside.types[info.name])
    if not outgrown(model):
        proto.training_info.extend(aside.training)
    return proto


def outgrown(model: ir.Model) -> list[str]:
    """The initializers that training_info updates and that are gone, or have another shape now."""
    aside: Aside | None = model.graph.meta.get(_KEY)
    tensors = {name: constant_tensor(value) for name, value in model.graph.initializers.items()}
    left = {name: tuple(tensor.shape.numpy()) for name, tensor in tensors.items() if tensor is not None}
    return [] if aside is None else [n for n, dims in aside.initializers.items() if left.get(n) != dims]


def trim_outputs(proto: onnx.ModelProto) -> None:
    """Leave out trailing outputs without a name, in place; those of an If, which has as many as its bodies, get one."""
    taken: set[str] | None = None
    for node in all_nodes(proto):
        count = len(node.output)
        while count and not node.output[count - 1]:
            count -= 1
        if count == len(node.output):
            continue
        if node.op_type != "If":
            del node.output[count:]
            continue
        taken = taken or {name for each in all_nodes(proto) for name in (*each.input, *each.output)}
        for index in range(count, len(node.output)):
            node.output[index] = _free_name(f"{node.name or node.op_type}_unused_{index}", taken)


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _has_no_counterpart(kind: onnx.TypeProto) -> bool:
    for holder in ("sequence_type", "optional_type"):
        if kind.HasField(holder):
            held = getattr(kind, holder)
            return not held.HasField("elem_type") or _has_no_counterpart(held.elem_type)
    return kind.HasField("map_type")


def _bindings(info: onnx.TrainingInfoProto) -> list[onnx.StringStringEntryProto]:
    return [*info.initialization_binding, *info.update_binding]
