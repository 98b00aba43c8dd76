"""Model files: reading any ONNX file, and writing one that replaces the target atomically.

The weights are never all in memory at once: those of a file are memory-mapped until they are changed, and are written
one after the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxprune.errors import ModelFileError, OutputError, first_line
from onnxprune.model import aside, coo
from onnxprune.model.check import check_model
from onnxprune.model.constants import constant_tensor, constants, put_tensor
from onnxprune.model.external import external_place
from onnxprune.model.finite import check_finite
from onnxprune.model.functions import inline_weighted
from onnxprune.model.listed import unlist
from onnxprune.model.protos import all_tensors
from onnxprune.model.replace import copy, data_names, own_data, readers, replace, working_folder
from onnxprune.model.wire import (
    IN_THIS_FILE,
    LARGE_BYTES,
    NotProtobufError,
    outline,
    write_inline,
    write_tensor,
)

# Protobuf rejects messages of 2 GiB; the margin is for the graph around the weights.
INLINE_LIMIT_BYTES = 2**31 - 2**26
# Read at once when a file is hashed.
HASHED_BYTES = 1 << 20
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
        ModelFileError: there is no such file, it is not ONNX, or it is cut short, broken or hostile.
    """
    if isinstance(source, onnx.ModelProto | ir.Model):
        given = ir.to_proto(source) if isinstance(source, ir.Model) else source
        content = given.SerializeToString()
        proto = _parse(content, "the model")
        model, data_files, inlined = _model(proto, Path("model.onnx"), "the model")
        digest, size = hashlib.sha256(content).hexdigest(), len(content)
        return model, Source(given, digest, size, data_files, inlined, unlist(model))
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


class Staging:
    """A model file before it replaces the target: written beside it, evaluated there, then moved atomically.

    Without a target it is in the system's temporary folder and is never moved.
    """

    def __init__(self, folder: Path, target: Path | None, source: Source | None = None):
        self.target = target
        self._source = source
        self.path = folder / (target.name if target else "model.onnx")
        self._data = folder / next(data_names(self.path))
        self.notes: tuple[str, ...] = ()
        """What the last `write` left out."""

    def write(
        self, model: ir.Model, *, external: bool | None = None, sparse_names: Container[str] = frozenset()
    ) -> dict[str, int]:
        """Write the model; initializers named in `sparse_names` become `sparse_initializer` if that is smaller.

        `external`: whether weights go to a data file; by default, if one file would be too large for protobuf.
        Returns the bytes of each tensor that became sparse, by name.

        Raises:
            OutputError: the disk is full, the folder became unwritable, or the model is too large for one file.
            NotFiniteError: a constant holds NaN or infinity that the source did not.
        """
        check_finite(model, lambda: None if self._source is None else load(self._source.file)[0])
        too_large = _weight_bytes(model) > INLINE_LIMIT_BYTES
        if too_large and external is False:
            raise OutputError(
                f"{self.target or 'the model'} would exceed the 2 GB limit of an ONNX file: give --external-data auto "
                "or always"
            )
        changed = aside.outgrown(model)
        if changed:
            self.notes = (f"training_info was left out: it does not fit the new {', '.join(changed)}.",)
        proto, apart = _outlined(model, bool(external or too_large), self._data.name, sparse_names)
        sparse_bytes = coo.sparsify(proto, sparse_names)
        _drop_initializer_types(proto.graph)
        try:
            with self.path.open("wb") as stream:
                if external or too_large:
                    with self._data.open("wb") as data:
                        for tensor in apart:
                            write_tensor(data, tensor)
                    stream.write(proto.SerializeToString())
                else:
                    write_inline(stream, proto, apart)
        except OSError as error:
            raise self._unwritable(error) from error
        return sparse_bytes

    def copy(self, source: Path) -> None:
        """Copy a model file that onnxprune wrote.

        Raises:
            OutputError: it cannot be read, or the disk is full.
        """
        try:
            copy(source, self.path, self._data)
        except OSError as error:
            raise self._unwritable(error) from error

    def annotate(self, properties: Mapping[str, str]) -> None:
        """Add model metadata without reading the weights again: protobuf merges messages that are concatenated.

        Raises:
            OutputError: the disk is full.
        """
        extra = onnx.ModelProto()
        onnx.helper.set_model_props(extra, dict(properties))
        try:
            with self.path.open("ab") as file:
                file.write(extra.SerializeToString())
        except OSError as error:
            raise self._unwritable(error) from error

    def sha256(self) -> str:
        """SHA-256 of the model file, without external data."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(HASHED_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def file_bytes(self) -> int:
        """Bytes on disk, external data included."""
        return sum(file.stat().st_size for file in self.path.parent.iterdir())

    def commit(self) -> None:
        """Move the model and its data to the target, both or neither.

        Raises:
            OutputError: the target cannot be replaced.
        """
        assert self.target is not None
        try:
            replace(self.path, self._data if self._data.exists() else None, self.target)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.target or self.path} cannot be written: {error.strerror}")


@contextlib.contextmanager
def staging(target: Path | None, source: Source | None = None) -> Iterator[Staging]:
    """A temporary place beside the target to write to; it is deleted at the end unless it was committed.

    Raises:
        OutputError: the target is a folder or the input itself, or its folder does not exist or is not writable.
    """
    if target is not None:
        _check_target(target, source)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(working_folder(target.parent if target else None))
        except OSError as error:
            raise OutputError(
                f"{target} cannot be written: {error.strerror} in {target.parent}; give another output file"
                if target
                else f"the temporary folder cannot be written: {error.strerror}; set TMPDIR to another one"
            ) from None
        yield Staging(folder, target, source)


def _check_target(target: Path, source: Source | None) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a folder: give an output file, for example {target / 'pruned.onnx'}")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} is not a regular file: give an output file, for example pruned.onnx")
    if not target.parent.is_dir():
        raise OutputError(f"{target} cannot be written: there is no folder {target.parent}; create it first")
    # An empty file, or one that is no model, may be overwritten, but not the weights of a model.
    if target.is_file() and (others := readers(target)):
        raise OutputError(f"{target} has the weights of {others[0]}: give another output file")
    if source is None:
        return
    if source.path is not None and _same_file(target, source.path):
        raise OutputError(
            f"{target} is the input itself, which is never overwritten: give another output file"
        )
    if any(_same_file(target, file) for file in source.data_files):
        raise OutputError(f"{target} has the weights of the input: give another output file")
    if any(_same_file(old, file) for old in own_data(target) for file in source.data_files):
        raise OutputError(f"{target} shares its weights with the input: give another output file")


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and os.path.samefile(one, other)


def _outlined(
    model: ir.Model, external: bool, data_name: str, sparse_names: Container[str]
) -> tuple[onnx.ModelProto, list[ir.TensorProtocol]]:
    """The model's protobuf with references instead of large tensors, and these tensors in order.

    `external`: all large initializers, in the order of the data file; otherwise those of the main graph that are not
    in memory as protobuf already.
    """
    apart: list[ir.TensorProtocol] = []
    replaced: list[tuple[ir.Value, ir.TensorProtocol]] = []
    end = 0
    try:
        for value in constants(model):
            tensor = constant_tensor(value)
            assert tensor is not None
            stays = (value.name in sparse_names and coo.saves_bytes(tensor)) or value.producer() is not None
            if not stays and _goes_apart(value, tensor, model, external):
                place = (data_name, end) if external else (IN_THIS_FILE, 0)
                stand_in: ir.TensorProtocol = _reference(tensor, *place, value.name or "")
                apart.append(tensor)
                end += tensor.nbytes
            elif isinstance(tensor, ir.ExternalTensor):
                stand_in = ir.Tensor(
                    tensor.numpy(), dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string
                )
            else:
                continue
            replaced.append((value, tensor))
            put_tensor(value, stand_in)
        return aside.serialized(model), apart
    finally:
        for value, tensor in replaced:
            put_tensor(value, tensor)


def _goes_apart(value: ir.Value, tensor: ir.TensorProtocol, model: ir.Model, external: bool) -> bool:
    if tensor.dtype == ir.DataType.STRING:
        return False
    if external:
        return tensor.nbytes > EXTERNAL_THRESHOLD_BYTES
    in_protobuf = isinstance(tensor, ir.serde.TensorProtoTensor)
    return value.graph is model.graph and not in_protobuf and tensor.nbytes > LARGE_BYTES


def _reference(tensor: ir.TensorProtocol, location: str, offset: int, name: str) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        location,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _drop_initializer_types(graph: onnx.GraphProto) -> None:
    """Remove the redundant value_info that onnx_ir adds for every initializer."""
    names = {tensor.name for tensor in graph.initializer}
    others = [info for info in graph.value_info if info.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(others)


def _weight_bytes(model: ir.Model) -> int:
    tensors = [constant_tensor(value) for value in constants(model)]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
