"""ONNX files read and written without their large tensors in memory.

Protobuf holds a message twice while it parses one, and weights are most of an ONNX file. So the file is mapped, the
fields on the way to a tensor's `raw_data` are walked, and a large one becomes a reference to the file itself, in the
terms of ONNX's external data; and the other way round when a file is written.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.model.protos import all_tensors

# Smaller tensors are parsed with the rest.
LARGE_BYTES = 1 << 16
# What stands as the location of a tensor that lies in the model file itself.
IN_THIS_FILE = "\0"

# The fields, by message, that lead to a tensor whose data may be large.
_PATHS: dict[str, tuple[str, ...]] = {
    "ModelProto": ("graph",),
    "GraphProto": ("node", "initializer"),
    "NodeProto": ("attribute",),
    "AttributeProto": ("t", "g"),
}
_LENGTH_DELIMITED = 2
# Protobuf's own limit on messages in messages.
_MAX_DEPTH = 100
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_DATA_LOCATION = onnx.TensorProto.DESCRIPTOR.fields_by_name["data_location"].number


def outline(content: memoryview) -> bytes:
    """The serialized model with a reference in the place of each large `raw_data`.

    Raises:
        NotProtobufError: the bytes on the way there are none.
    """
    return b"".join(_pieces(content, 0, len(content), onnx.ModelProto.DESCRIPTOR, 0))


def with_data_apart(file: Path) -> onnx.ModelProto:
    """The model in a file, its large tensors as external data: those in the file itself refer to it, by its name.

    Raises:
        OSError, DecodeError, NotProtobufError: it is no model file.
    """
    with (
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        proto = onnx.ModelProto.FromString(outline(view))
    for tensor, _ in all_tensors(proto):
        for entry in tensor.external_data:
            if entry.value == IN_THIS_FILE:
                entry.value = file.name
    return proto


def write_inline(stream: BinaryIO, proto: onnx.ModelProto, tensors: Iterable[ir.TensorProtocol]) -> None:
    """Write a model that holds `IN_THIS_FILE` references, in the order of `tensors`, with the data in their place.

    The initializers come last in the graph; `proto` loses its graph.
    """
    parts: list[bytes | ir.TensorProtocol] = []
    data = iter(tensors)
    for initializer in proto.graph.initializer:
        locations = [entry.value for entry in initializer.external_data if entry.key == "location"]
        if locations != [IN_THIS_FILE]:
            parts.append(_field(_INITIALIZER, initializer.SerializeToString()))
            continue
        tensor = next(data)
        initializer.ClearField("external_data")
        initializer.ClearField("data_location")
        head = initializer.SerializeToString() + _head(_RAW_DATA, tensor.nbytes)
        parts += [_head(_INITIALIZER, len(head) + tensor.nbytes) + head, tensor]
    del proto.graph.initializer[:]
    parts.insert(0, proto.graph.SerializeToString())
    proto.ClearField("graph")
    graph_bytes = sum(len(part) if isinstance(part, bytes) else part.nbytes for part in parts)
    stream.write(proto.SerializeToString() + _head(_GRAPH, graph_bytes))
    for part in parts:
        if isinstance(part, bytes):
            stream.write(part)
        else:
            write_tensor(stream, part)


def write_tensor(stream: BinaryIO, tensor: ir.TensorProtocol) -> None:
    """Write the bytes of a tensor, from file to file where it lies in one."""
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(stream)
        return
    array = tensor.numpy()
    if array.nbytes == tensor.nbytes and sys.byteorder == "little":
        stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    else:
        stream.write(tensor.tobytes())


def _field(number: int, payload: bytes) -> bytes:
    return _head(number, len(payload)) + payload


def _head(number: int, length: int) -> bytes:
    """Tag and length of a field whose payload of `length` bytes follows."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


class NotProtobufError(Exception):
    """The bytes are no protobuf message of the kind that they should be."""


def _pieces(content: memoryview, start: int, end: int, message: Any, depth: int) -> Iterator[bytes]:
    if depth > _MAX_DEPTH:
        raise NotProtobufError("messages are nested too deep")
    followed = {
        message.fields_by_name[name].number: message.fields_by_name[name].message_type
        for name in _PATHS.get(message.name, ())
    }
    is_tensor = message.name == "TensorProto"
    copied = position = start
    while position < end:
        tag, after_tag = _read_varint(content, position, end)
        number, kind = tag >> 3, tag & 7
        length = 0
        body = after_tag
        if kind == _LENGTH_DELIMITED:
            length, body = _read_varint(content, after_tag, end)
        following = body + length if kind == _LENGTH_DELIMITED else _skip(content, kind, after_tag, end)
        if following > end:
            raise NotProtobufError("a field is longer than its message")
        large = kind == _LENGTH_DELIMITED and length > LARGE_BYTES
        if large and (number in followed or (is_tensor and number == _RAW_DATA)):
            yield bytes(content[copied:position])
            if number in followed:
                inner = b"".join(_pieces(content, body, following, followed[number], depth + 1))
                yield _field(number, inner)
            else:
                yield _reference(body, length)
            copied = following
        position = following
    yield bytes(content[copied:end])


def _reference(offset: int, length: int) -> bytes:
    entries = {"location": IN_THIS_FILE, "offset": str(offset), "length": str(length)}
    tensor = onnx.TensorProto()
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    external = _varint(_DATA_LOCATION << 3) + _varint(onnx.TensorProto.EXTERNAL)
    return tensor.SerializeToString() + external


def _skip(content: memoryview, kind: int, position: int, end: int) -> int:
    """The position after a field that is not length-delimited."""
    if kind == 0:
        return _read_varint(content, position, end)[1]
    if kind in (1, 5):
        return position + (8 if kind == 1 else 4)
    raise NotProtobufError(f"there is no wire type {kind} in ONNX")


def _read_varint(content: memoryview, position: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while position < end and shift < 64:
        byte = content[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
    raise NotProtobufError("a number does not end")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
