"""Putting files in the place of others, whole or not at all, whatever happens to the process or beside it.

A model with external data is two files, and no system renames two at once. So new data never takes the name that the
model in place refers to: it takes the other one of two, the model is renamed over the old one, and only then the old
data goes. At every moment the model in place refers to data that is whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import onnx
from google.protobuf.message import DecodeError

from onnxprune.model.protos import all_tensors
from onnxprune.model.wire import NotProtobufError, with_data_apart

try:
    import fcntl
except (
    ImportError
):  # Windows has no such locks: there, runs on one target at the same time are not kept apart.
    fcntl = None  # type: ignore[assignment]

_FOLDER_PREFIX = ".onnxprune-"
_open_folders: set[Path] = set()


def data_names(target: Path) -> tuple[str, str]:
    """The two names that the external data of a target may have; the first where it is free."""
    return f"{target.name}.data", f"{target.name}.data2"


def replace(model: Path, data: Path | None, target: Path) -> None:
    """Move a model file and its external data (under the first of `data_names`) to the target.

    Raises:
        OSError: they cannot be moved; the target is whole, old or new.
    """
    names = data_names(target)
    with locked(target.parent):
        in_use = names.index(old) if (old := _data_of(target)) in names else None
        if data is not None:
            name = names[1] if in_use == 0 else names[0]
            if name != data.name:
                _rename_data(model, name)
            os.replace(data, target.parent / name)
        os.replace(model, target)
        if in_use is not None:
            (target.parent / names[in_use]).unlink(missing_ok=True)


def copy(source: Path, model: Path, data: Path) -> None:
    """Copy a model that was written here, and its external data, if any.

    Raises:
        OSError: one of them cannot be read or written.
    """
    shutil.copyfile(source, model)
    name = _data_of(source)
    if name is not None:
        shutil.copyfile(source.parent / name, data)
        _rename_data(model, data.name)


def _data_of(target: Path) -> str | None:
    """The name of the data file that the model in place refers to."""
    try:
        proto = with_data_apart(target)
    except (OSError, ValueError, DecodeError, NotProtobufError):
        return None
    locations = {entry.value for entry in _locations(proto)}
    return next((name for name in data_names(target) if name in locations), None)


def _rename_data(model: Path, name: str) -> None:
    proto = onnx.load(model, load_external_data=False)
    for entry in _locations(proto):
        entry.value = name
    model.write_bytes(proto.SerializeToString())


def _locations(proto: onnx.ModelProto) -> Iterator[onnx.StringStringEntryProto]:
    for tensor, _ in all_tensors(proto):
        yield from (entry for entry in tensor.external_data if entry.key == "location")


@contextlib.contextmanager
def replacing(path: Path, mode: str) -> Iterator[IO[Any]]:
    """A new file, open to be written, that takes the place of `path` once it is whole and on the disk.

    Raises:
        OSError: it cannot be written or moved; what was there is as it was.
    """
    with working_folder(path.parent) as folder:
        with (folder / path.name).open(mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / path.name, path)


@contextlib.contextmanager
def working_folder(parent: Path | None) -> Iterator[Path]:
    """A new folder (in the system's temporary folder without `parent`), gone afterwards.

    Those that killed runs left in `parent` go too.
    """
    if parent is not None:
        _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))
    _open_folders.add(folder)
    try:
        with locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _open_folders.discard(folder)


def remove_working_folders() -> None:
    """Remove those of this process, which is about to end without leaving them."""
    for folder in _open_folders:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the folder's lock, which the system takes back from a killed process; False where another holds it.

    Without `wait` the other one is not waited for.
    """
    if fcntl is None:
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            # Taken, or a file system that knows no locks: then nobody has one.
            yield wait
            return
        yield True
    finally:
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove the working folders of runs that are no more; those of living ones are locked."""
    for folder in parent.glob(f"{_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError), locked(folder, wait=False) as abandoned:
            if abandoned and fcntl is not None:
                shutil.rmtree(folder, ignore_errors=True)
