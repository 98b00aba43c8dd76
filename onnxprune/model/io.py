"""Model files: reading any ONNX file whole, and replacing the target whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxprune.errors import ModelFileError, OutputError, first_line
from onnxprune.model import coo

# Protobuf refuses messages of 2 GiB; the margin is for the graph around the weights.
INLINE_LIMIT_BYTES = 2**31 - 2**26
# Smaller tensors stay in the model file when weights go to external data.
EXTERNAL_THRESHOLD_BYTES = 1024

ModelLike = str | os.PathLike | onnx.ModelProto | ir.Model


@dataclass(frozen=True)
class Source:
    """Where a model came from: its file or the model in memory, SHA-256 of the model file, bytes on disk."""

    file: Path | onnx.ModelProto
    sha256: str
    file_bytes: int
    external: bool
    """Weights lie in external data files."""

    @property
    def path(self) -> Path | None:
        return self.file if isinstance(self.file, Path) else None

    @property
    def name(self) -> str:
        return str(self.file) if isinstance(self.file, Path) else "the model"


def load(source: ModelLike) -> tuple[ir.Model, Source]:
    """Read an ONNX model from a path, or take one from memory without changing it.

    Tensors of external data stay mapped; `sparse_initializer` becomes dense.

    Raises:
        ModelFileError: there is no such file, it is not ONNX, or it is cut short.
    """
    file: Path | onnx.ModelProto
    if isinstance(source, onnx.ModelProto | ir.Model):
        file = ir.to_proto(source) if isinstance(source, ir.Model) else source
        content, base, name = file.SerializeToString(), Path(), "the model"
    else:
        file = Path(source)
        content, base, name = _read(file), file.parent, str(file)
    proto = _parse(content, name)
    coo.densify(proto)
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        raise ModelFileError(
            f"{name} is not a valid ONNX model: {first_line(error)}; export it again"
        ) from error
    ir.external_data.set_base_dir(model.graph, base)
    data_files = _external_files(model, name)
    digest = hashlib.sha256(content).hexdigest()
    file_bytes = len(content) + sum(file.stat().st_size for file in data_files)
    return model, Source(file, digest, file_bytes, bool(data_files))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"there is no file {path}: check the path of the input model") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}; give an ONNX file") from None


def _parse(content: bytes, name: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise ModelFileError(
            f"{name} is not an ONNX model, or the file is cut short: download or export it again"
        ) from None
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelFileError(
            f"{name} is not an ONNX model: it holds no graph; give a file that an exporter wrote"
        )
    return proto


def _external_files(model: ir.Model, name: str) -> set[Path]:
    files = set()
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                tensor = value.const_value
                file = Path(tensor.path)
                size = file.stat().st_size if file.is_file() else -1
                if size < (tensor.offset or 0) + (tensor.length or 0):
                    state = "missing" if size < 0 else "cut short"
                    raise ModelFileError(
                        f"{name} keeps {value.name!r} in {file}, which is {state}: put that file beside the model"
                    )
                files.add(file)
    return files


class Staging:
    """A model file on its way to the target: written beside it, judged there, then moved into place whole.

    With no target it lives in the system's temporary folder and is never moved.
    """

    def __init__(self, folder: Path, target: Path | None):
        self.target = target
        self.path = folder / (target.name if target else "model.onnx")

    def write(
        self, model: ir.Model, *, external: bool, sparse_names: Container[str] = frozenset()
    ) -> dict[str, int]:
        """Write the model; initializers named in `sparse_names` become `sparse_initializer` where that is smaller.

        Returns the bytes of those that became sparse, by name.

        Raises:
            OutputError: the disk is full, or the folder became unwritable.
        """
        external = external or _weight_bytes(model) > INLINE_LIMIT_BYTES
        data_name = f"{self.path.name}.data"
        sparse_bytes: dict[str, int] = {}
        try:
            if external and not sparse_names:
                model = ir.external_data.unload_from_model(
                    model, self.path.parent, data_name, size_threshold_bytes=EXTERNAL_THRESHOLD_BYTES
                )
            else:
                ir.external_data.load_to_model(model)
            proto = ir.to_proto(model)
            _drop_initializer_types(proto.graph)
            if sparse_names:
                sparse_bytes = coo.sparsify(proto, sparse_names)
            onnx.save_model(
                proto,
                self.path,
                save_as_external_data=external and bool(sparse_names),
                location=data_name,
                size_threshold=EXTERNAL_THRESHOLD_BYTES,
            )
        except OSError as error:
            raise OutputError(f"{self.target or self.path} cannot be written: {error.strerror}") from error
        return sparse_bytes

    def annotate(self, properties: Mapping[str, str]) -> None:
        """Add model metadata without reading the weights again: protobuf merges messages that are concatenated."""
        extra = onnx.ModelProto()
        onnx.helper.set_model_props(extra, dict(properties))
        with self.path.open("ab") as file:
            file.write(extra.SerializeToString())

    def file_bytes(self) -> int:
        """Bytes on disk, external data included."""
        return sum(file.stat().st_size for file in self.path.parent.iterdir())

    def commit(self) -> None:
        """Move the model into place, external data first.

        Raises:
            OutputError: the target cannot be replaced.
        """
        assert self.target is not None
        try:
            for file in sorted(self.path.parent.iterdir(), key=lambda file: file == self.path):
                os.replace(file, self.target.parent / file.name)
        except OSError as error:
            raise OutputError(f"{self.target} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def staging(target: Path | None, source: Source | None = None) -> Iterator[Staging]:
    """A place beside the target to write to; whatever was not committed is gone afterwards.

    Raises:
        OutputError: the target is a folder, is the input itself, or its folder does not exist or is not writable.
    """
    if target is not None:
        _check_target(target, source)
    try:
        folder = tempfile.mkdtemp(prefix=".onnxprune-", dir=target.parent if target else None)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {error.strerror} in {target.parent if target else 'the temporary folder'}; "
            "name another output file"
        ) from None
    try:
        yield Staging(Path(folder), target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_target(target: Path, source: Source | None) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a folder: name an output file, for example {target / 'pruned.onnx'}")
    if not target.parent.is_dir():
        raise OutputError(f"{target} cannot be written: there is no folder {target.parent}; make it first")
    if (
        source is not None
        and source.path is not None
        and target.exists()
        and os.path.samefile(target, source.path)
    ):
        raise OutputError(
            f"{target} is the input itself, which is never overwritten: name another output file"
        )


def _drop_initializer_types(graph: onnx.GraphProto) -> None:
    """Take out the value_info that onnx_ir adds for every initializer, whose tensor says the same."""
    names = {tensor.name for tensor in graph.initializer}
    others = [info for info in graph.value_info if info.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(others)


def _weight_bytes(model: ir.Model) -> int:
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
