"""Reading and writing ONNX files without their large tensors in memory.

Protobuf needs twice the size of a message to parse it, and most of an ONNX file is weights. So the file is mapped, and
each large `raw_data` is replaced by a reference to the file itself, in the format of ONNX's external data. Writing does
the reverse.
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

from onnxprune.model.files.protos import all_tensors

# Smaller tensors are parsed with the rest.
LARGE_BYTES = 1 << 16
# The location of a tensor whose data is in the model file itself.
IN_THIS_FILE = "\0"

# The fields of each message that may contain a large tensor.
_PATHS: dict[str, tuple[str, ...]] = {
    "ModelProto": ("graph",),
    "GraphProto": ("node", "initializer"),
    "NodeProto": ("attribute",),
    "AttributeProto": ("t", "g"),
}
_LENGTH_DELIMITED = 2
# Protobuf's own limit on nested messages.
_MAX_DEPTH = 100
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_DATA_LOCATION = onnx.TensorProto.DESCRIPTOR.fields_by_name["data_location"].number


def outline(content: memoryview) -> bytes:
    """The serialized model with a reference instead of each large `raw_data`.

    Raises:
        NotProtobufError: the bytes are not a protobuf message.
    """
    return b"".join(_pieces(content, 0, len(content), onnx.ModelProto.DESCRIPTOR, 0))


def with_data_apart(file: Path) -> onnx.ModelProto:
    """The model in a file, with large tensors as external data; those in the file itself refer to it by its name.

    Raises:
        OSError, DecodeError, NotProtobufError: it is not a model file.
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
    """Write a model, replacing its `IN_THIS_FILE` references, which are in the order of `tensors`, by the data.

    The initializers are written last in the graph; `proto` loses its graph.
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
    """Write the bytes of a tensor, from file to file if it is in one."""
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
    """The bytes are not a protobuf message of the expected type."""


def _pieces(content: memoryview, start: int, end: int, message: Any, depth: int) -> Iterator[bytes]:
    if depth > _MAX_DEPTH:
        raise NotProtobufError("messages are nested too deeply")
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
