"""Writing a model file that replaces the target atomically; its weights are written one after the other."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxprune.errors import OutputError
from onnxprune.model.constants import constant_tensor, constants, put_tensor
from onnxprune.model.files import aside, coo
from onnxprune.model.files.finite import check_finite
from onnxprune.model.files.io import EXTERNAL_THRESHOLD_BYTES, Source, load
from onnxprune.model.files.replace import (
    copy,
    data_names,
    followed,
    own_data,
    readers,
    replace,
    working_folder,
)
from onnxprune.model.files.wire import IN_THIS_FILE, LARGE_BYTES, write_inline, write_tensor

# Protobuf rejects messages of 2 GiB; the margin is for the graph around the weights.
INLINE_LIMIT_BYTES = 2**31 - 2**26
# The name of a model's file, and how protobuf starts one: with the version of ONNX IR.
SUFFIX, FIRST_BYTE = ".onnx", b"\x08"
# The folder of the files of a model in the cache of Hugging Face, named by their content.
BLOBS = "blobs"
# Read at once when a file is hashed.
HASHED_BYTES = 1 << 20


class Staging:
    """A model file before it replaces the target: written beside it, evaluated there, then moved atomically.

    Without a target it is in the system's temporary folder and is never moved. `place`: where the target leads if it is
    a link, which stays.
    """

    def __init__(
        self, folder: Path, target: Path | None, source: Source | None = None, place: Path | None = None
    ):
        self.target = target
        self._place = place or target
        self._source = source
        self.path = folder / (self._place.name if self._place else "model.onnx")
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
            OutputError: the target cannot be replaced, or is a link through which no runtime finds the data.
        """
        assert self._place is not None and self.target is not None
        if self._data.exists():
            _check_data_beside(self.target, self._place)
        try:
            replace(self.path, self._data if self._data.exists() else None, self._place)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.target or self.path} cannot be written: {error.strerror}")


@contextlib.contextmanager
def staging(
    target: Path | None, source: Source | None = None, *, external: bool | None = None
) -> Iterator[Staging]:
    """A temporary place beside the target to write to; it is deleted at the end unless it was committed.

    `external`: what `Staging.write` will be told, where it is known before the work.

    Raises:
        OutputError: the target is a folder, the input itself or a file of another kind, a link through which no runtime
            finds external data, or its folder does not exist or is not writable.
    """
    place = None if target is None else followed(target)
    if target is not None and place is not None:
        if place != target and place.parent.name == BLOBS:
            raise OutputError(
                f"{target} is a link into the cache of Hugging Face, whose files several links may share: give another "
                "output file, or delete the link first"
            )
        _check_target(place, source)
        _check_replaced(place)
        if external:
            _check_data_beside(target, place)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(working_folder(place.parent if place else None))
        except OSError as error:
            raise OutputError(
                f"{target} cannot be written: {error.strerror} in {place.parent}; give another output file"
                if place
                else f"the temporary folder cannot be written: {error.strerror}; set TMPDIR to another one"
            ) from None
        yield Staging(folder, target, source, place)


def _check_data_beside(target: Path, place: Path) -> None:
    """Refuse a link to a file in another folder: runtimes look for the data beside the link, and find none."""
    if os.path.realpath(target.parent) != os.path.realpath(place.parent):
        raise OutputError(
            f"{target} is a link into another folder, and runtimes look for the external data of a model beside the "
            f"link: give {place} itself, or delete the link first"
        )


def _check_replaced(target: Path) -> None:
    """Whatever has another name than models, and starts otherwise, is kept: samples, a table, a picture."""
    if target.suffix == SUFFIX or not target.is_file():
        return
    with target.open("rb") as file:
        first = file.read(1)
    if first not in (b"", FIRST_BYTE):
        raise OutputError(
            f"{target} is there already, and is no model: give another output file, such as "
            f"{target.with_suffix(SUFFIX)}, or delete it first"
        )


def _check_target(target: Path, source: Source | None) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a folder: give an output file, for example {target / 'pruned.onnx'}")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} is not a regular file: give an output file, for example pruned.onnx")
    if not target.parent.is_dir():
        raise OutputError(f"{target} cannot be written: there is no folder {target.parent}; create it first")
    if str(target) == "-":
        raise OutputError(
            "- is no file, and models are not written to stdout: give an output file, such as out.onnx"
        )
    # A file that is named as a model may be overwritten whatever it holds, but not the weights of a model.
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
