"""Reading any ONNX file. Its weights are never all in memory at once: they are mapped until they are changed."""

from __future__ import annotations

import hashlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxprune.errors import ModelFileError, first_line
from onnxprune.model.constants import constant_tensor, constants, put_tensor
from onnxprune.model.files import aside, coo
from onnxprune.model.files.check import check_model
from onnxprune.model.files.external import external_place
from onnxprune.model.files.protos import all_tensors
from onnxprune.model.files.wire import NotProtobufError, outline
from onnxprune.model.functions import inline_weighted
from onnxprune.model.listed import unlist

# Smaller tensors stay in the model file when weights go to external data.
EXTERNAL_THRESHOLD_BYTES = 1024

ModelLike = str | os.PathLike | onnx.ModelProto | ir.Model


@dataclass(frozen=True)
class Source:
    """The origin of a model: its file or the model in memory, SHA-256 of the model file, bytes on disk."""

    file: Path | onnx.ModelProto
    sha256: str
    file_bytes: int
    data_files: frozenset[Path]
    """The external data files with weights."""
    inlined: tuple[str, ...] = ()
    """The model-local functions that were inlined because they have weights."""
    listed: tuple[str, ...] = ()
    """The initializers that the file lists among its inputs, as older exporters do, and that are constants here."""
    original: Path | None = None
    """The file that was given, if `file` is a copy of it on another machine."""

    @property
    def external(self) -> bool:
        return bool(self.data_files)

    @property
    def path(self) -> Path | None:
        return self.original or (self.file if isinstance(self.file, Path) else None)

    @property
    def name(self) -> str:
        return str(self.file) if isinstance(self.file, Path) else "the model"


class MappedTensor(ir.ExternalTensor):
    """A tensor in a file, mapped by each call of `numpy()`: it uses memory only while the array exists."""

    def numpy(self) -> np.ndarray:
        array = super().numpy()
        self._array = self.raw = None
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype)

    def tobytes(self) -> bytes:
        return np.ascontiguousarray(self.numpy()).tobytes()


def load(source: ModelLike) -> tuple[ir.Model, Source]:
    """Read an ONNX model from a path, or copy one from memory.

    Large tensors are memory-mapped; `sparse_initializer` becomes dense; nodes are sorted topologically; functions with
    weights are inlined; initializers that are listed as inputs by habit become constants.

    Raises:
        ModelFileError: it is neither of these, there is no such file, it is not ONNX, or it is cut short, broken or
            hostile.
    """
    if isinstance(source, onnx.ModelProto | ir.Model):
        given = ir.to_proto(source) if isinstance(source, ir.Model) else source
        content = given.SerializeToString()
        proto = _parse(content, "the model")
        model, data_files, inlined = _model(proto, Path("model.onnx"), "the model")
        digest, size = hashlib.sha256(content).hexdigest(), len(content)
        return model, Source(given, digest, size, data_files, inlined, unlist(model))
    if not isinstance(source, str | os.PathLike):
        raise ModelFileError(
            f"a model is a path, a ModelProto or an onnx_ir.Model, and not {type(source).__name__}: give one of these "
            "(of bytes, onnx.load_from_string)"
        )
    file = Path(source)
    proto, digest = _read(file)
    model, data_files, inlined = _model(proto, file, str(file))
    file_bytes = sum(part.stat().st_size for part in {file, *data_files})
    return model, Source(file, digest, file_bytes, data_files, inlined, unlist(model))


def _read(file: Path) -> tuple[onnx.ModelProto, str]:
    """The model in a file, large tensors as references to it, and the file's SHA-256."""
    try:
        if not file.exists():
            raise ModelFileError(f"there is no file {file}: check the path of the model")
        if not file.is_file():
            raise ModelFileError(f"{file} cannot be read: it is not a file; give an ONNX file")
        with file.open("rb") as stream:
            if not os.fstat(stream.fileno()).st_size:
                raise ModelFileError(f"{file} is not an ONNX model: it is empty; download or export it again")
            with (
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
                memoryview(content) as view,
            ):
                return _parse(view, str(file)), hashlib.sha256(view).hexdigest()
    except OSError as error:
        raise ModelFileError(f"{file} cannot be read: {error.strerror}; give an ONNX file") from None


def _parse(content: bytes | memoryview, name: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content if isinstance(content, bytes) else outline(content))
    except (DecodeError, NotProtobufError):
        raise ModelFileError(
            f"{name} is not an ONNX model, or the file is cut short: download or export it again"
        ) from None
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelFileError(f"{name} is not an ONNX model: it has no graph; export it again")
    return proto


def _model(
    proto: onnx.ModelProto, file: Path, name: str
) -> tuple[ir.Model, frozenset[Path], tuple[str, ...]]:
    """The checked model, its external data files, and the inlined functions."""
    check_model(proto, file, name)
    coo.densify(proto)
    data_files = _resolve(proto, file)
    aside.trim_outputs(proto)
    kept = aside.set_aside(proto)
    try:
        model = ir.from_proto(proto)
        aside.keep(model, kept)
        model.graph.sort()
        inlined = inline_weighted(model)
    except Exception as error:
        raise ModelFileError(
            f"{name} is not a valid ONNX model: {first_line(error)}; export it again"
        ) from error
    for value in constants(model):
        tensor = constant_tensor(value)
        if isinstance(tensor, ir.ExternalTensor):
            put_tensor(value, _mapped(tensor))
    return model, data_files, inlined


def _mapped(tensor: ir.ExternalTensor) -> MappedTensor:
    return MappedTensor(
        tensor.location,
        tensor.offset,
        tensor.nbytes,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _resolve(proto: onnx.ModelProto, file: Path) -> frozenset[Path]:
    """Make the paths of external data absolute, and read tensors that are not mapped (small, or not constants)."""
    data_files = set()
    for tensor, mappable in all_tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        path = external_place(tensor, file)
        if path != file:
            data_files.add(path)
        entries = {entry.key: entry for entry in tensor.external_data}
        entries["location"].value = os.path.abspath(path)
        lying = ir.serde.deserialize_tensor(tensor)
        if not mappable or lying.nbytes <= EXTERNAL_THRESHOLD_BYTES:
            data = lying.tobytes()
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = data
    return frozenset(data_files)
