"""Damage to model files: of their bytes, and of what the protobuf says."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, -(2**31), -(2**63))
TEXTS = (
    "",
    "x",
    "y",
    "w",
    "nothing",
    "\0",
    "../x",
    "/etc/passwd",
    "é" * 300,
    "If",
    "Loop",
    "MatMul",
    "Conv",
    "Add",
)
OPERATORS = (
    *(
        "MatMul",
        "Gemm",
        "Conv",
        "ConvTranspose",
        "Reshape",
        "Transpose",
        "Concat",
        "Split",
        "Slice",
        "Gather",
    ),
    *(
        "If",
        "Loop",
        "Scan",
        "LSTM",
        "Einsum",
        "Expand",
        "ConstantOfShape",
        "Resize",
        "Pad",
        "Tile",
        "Constant",
    ),
    *(
        "Softmax",
        "LayerNormalization",
        "BatchNormalization",
        "DequantizeLinear",
        "Cast",
        "Shape",
        "SparseGemm",
    ),
)


def mutated(model: onnx.ModelProto, chance: random.Random) -> bytes:
    """The bytes of a model with one to four things wrong."""
    if chance.random() < 0.35:
        return damaged_bytes(model.SerializeToString(), chance)
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    for _ in range(chance.randint(1, 4)):
        # Of messages that are nested too deep to be copied, the first part of the damage will do.
        with contextlib.suppress(DecodeError):
            chance.choice(DAMAGES)(broken, chance)
    return broken.SerializeToString()


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, parts cut out, doubled, moved or overwritten."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((1, 1, 2, 8, 64, 1000)))
        part = data[start:end]
        kind = chance.randrange(6)
        if kind == 0:
            data = data[:start]
        elif kind == 1:
            data[start:end] = b""
        elif kind == 2:
            data[start:start] = part
        elif kind == 3:
            data[start:end] = bytes(chance.randrange(256) for _ in part)
        elif kind == 4:
            data[start:start] = b"\xff" * chance.randint(1, 9)
        elif part:
            data[start] ^= 1 << chance.randrange(8)
    return bytes(data)


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from _messages(inner)


def _of_kind(model: onnx.ModelProto, chance: random.Random, kind: type) -> Any:
    found = [message for message in _messages(model) if isinstance(message, kind)]
    return chance.choice(found) if found else None


def _change_field(model: onnx.ModelProto, chance: random.Random) -> None:
    """Any field of any message gets another value, is cleared, doubled or shuffled."""
    message = chance.choice(list(_messages(model)))
    field = chance.choice(list(message.DESCRIPTOR.fields))
    if field.message_type is not None:
        if not field.is_repeated:
            message.ClearField(field.name)
            return
        values = getattr(message, field.name)
        if len(values):
            _change_list(values, chance)
        return
    value = _value(field, chance)
    if field.is_repeated:
        values = getattr(message, field.name)
        if len(values) and chance.random() < 0.7:
            values[chance.randrange(len(values))] = value
        else:
            values.append(value)
    else:
        setattr(message, field.name, value)


def _value(field: FieldDescriptor, chance: random.Random) -> Any:
    if field.enum_type is not None:
        return chance.choice([value.number for value in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice((b"", b"\0", b"\xff" * 7, chance.choice(TEXTS).encode()))
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return chance.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    number = chance.choice(NUMBERS)
    if field.type == FieldDescriptor.TYPE_UINT64:
        return abs(number)
    if field.type == FieldDescriptor.TYPE_INT32:
        return max(-(2**31), min(2**31 - 1, number))
    return number


def _change_list(values: Any, chance: random.Random) -> None:
    """An entry goes, comes twice, or changes its place."""
    index = chance.randrange(len(values))
    kind = chance.randrange(3)
    if kind == 1:
        values.add().CopyFrom(values[index])
        return
    entry = type(values[index])()
    entry.CopyFrom(values[index])
    del values[index]
    if kind == 2:
        values.insert(chance.randrange(len(values) + 1), entry)


def _change_nodes(model: onnx.ModelProto, chance: random.Random) -> None:
    graph = _of_kind(model, chance, onnx.GraphProto)
    if graph is not None and len(graph.node):
        _change_list(graph.node, chance)


def _change_operator(model: onnx.ModelProto, chance: random.Random) -> None:
    node = _of_kind(model, chance, onnx.NodeProto)
    if node is None:
        return
    node.op_type = chance.choice(OPERATORS)
    node.domain = chance.choice(("", "", "", "onnxprune", "local", "com.microsoft"))


def _change_wire(model: onnx.ModelProto, chance: random.Random) -> None:
    """A node reads or makes another value of the model, or one input more or less."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    node = _of_kind(model, chance, onnx.NodeProto)
    if node is None or not names:
        return
    ends = chance.choice((node.input, node.output))
    kind = chance.randrange(3)
    if kind == 0 or not len(ends):
        ends.append(chance.choice(names))
    elif kind == 1:
        del ends[chance.randrange(len(ends))]
    else:
        ends[chance.randrange(len(ends))] = chance.choice((*names, ""))


def _change_dims(model: onnx.ModelProto, chance: random.Random) -> None:
    tensor = _of_kind(model, chance, onnx.TensorProto)
    if tensor is None:
        return
    kind = chance.randrange(4)
    if kind == 0 and len(tensor.dims):
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(NUMBERS)
    elif kind == 1:
        tensor.dims.append(chance.choice(NUMBERS))
    elif kind == 2:
        tensor.raw_data = tensor.raw_data[: chance.randrange(len(tensor.raw_data) + 1)]
    else:
        tensor.data_type = chance.randrange(27)


def _change_numbers(model: onnx.ModelProto, chance: random.Random) -> None:
    """The elements of an integer tensor, such as a shape, become others."""
    tensor = _of_kind(model, chance, onnx.TensorProto)
    if tensor is not None and tensor.data_type == onnx.TensorProto.INT64 and len(tensor.raw_data) >= 8:
        start = 8 * chance.randrange(len(tensor.raw_data) // 8)
        number = chance.choice(NUMBERS).to_bytes(8, "little", signed=True)
        tensor.raw_data = tensor.raw_data[:start] + number + tensor.raw_data[start + 8 :]


def _make_external(model: onnx.ModelProto, chance: random.Random) -> None:
    tensor = _of_kind(model, chance, onnx.TensorProto)
    if tensor is None:
        return
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    places = ("w.bin", "../w.bin", "/dev/zero", "/dev/stdin", ".", "", "link", "pipe", "\0", "in.onnx")
    tensor.external_data.add(key="location", value=chance.choice(places))
    for key in ("offset", "length"):
        if chance.random() < 0.5:
            tensor.external_data.add(key=key, value=str(chance.choice((*NUMBERS, "", "many", "9" * 30))))


def _nest(model: onnx.ModelProto, chance: random.Random) -> None:
    """A node becomes one with bodies, one in the other."""
    depth = chance.choice((1, 3, 10, 30, 45))
    for _ in range(depth):
        body = onnx.GraphProto()
        body.CopyFrom(model.graph)
        del body.initializer[:]
        del model.graph.node[:]
        node = model.graph.node.add(op_type=chance.choice(("If", "Loop", "Scan")), name="nest")
        node.output.extend(value.name for value in model.graph.output)
        for name in ("then_branch", "else_branch", "body")[: chance.randint(1, 3)]:
            attribute = node.attribute.add(name=name, type=onnx.AttributeProto.GRAPH)
            attribute.g.CopyFrom(
                body if depth < 10 or name == "then_branch" else onnx.GraphProto(name="empty")
            )
        if model.ByteSize() > 1_000_000:
            return


DAMAGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    *(_change_field,) * 6,
    *(_change_nodes, _change_operator, _change_wire, _change_dims) * 2,
    *(_change_numbers, _make_external, _nest),
)
