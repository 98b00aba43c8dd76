"""Replacing files atomically, even if the process is killed or another one writes at the same time.

A model with external data has two files, which cannot be renamed together. So new data gets a name that no file has;
then the model is renamed over the old one, and only then the old data is deleted. The model in place always refers to
complete data, and no file is lost that belongs to something else.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import onnx
from google.protobuf.message import DecodeError

from onnxprune.model.files.protos import locations
from onnxprune.model.files.wire import NotProtobufError, with_data_apart

try:
    import fcntl
except (
    ImportError
):  # Windows has no such locks: there, concurrent runs with the same target are not protected.
    fcntl = None  # type: ignore[assignment]

_FOLDER_PREFIX = ".onnxprune-"
_open_folders: set[Path] = set()


def followed(path: Path) -> Path:
    """The file that a link leads to, or would; any other path as it is. Links stay, and their files are replaced."""
    if not path.is_symlink() or (path.exists() and not path.is_file()):
        return path
    return Path(os.path.realpath(path))


def data_names(target: Path) -> Iterator[str]:
    """The possible names of the external data of a target; the first one that is free is used."""
    yield f"{target.name}.data"
    yield from (f"{target.name}.data{number}" for number in itertools.count(2))


def data_files(target: Path) -> list[Path]:
    """The files beside a target that have one of its `data_names`."""
    named = re.compile(rf"{re.escape(target.name)}\.data\d*")
    beside = target.parent.glob(f"{glob.escape(target.name)}.data*")
    return sorted(path for path in beside if named.fullmatch(path.name))


def own_data(target: Path) -> list[Path]:
    """The files of `data_files` that the model at the target has its weights in."""
    return [path for path in data_files(target) if path.name in _data_of(target)]


def readers(file: Path) -> list[Path]:
    """The models in the folder of a file that have their weights in it."""
    models = (path for path in sorted(file.parent.glob("*.onnx")) if path != file)
    return [path for path in models if file.name in _data_of(path)]


def replace(model: Path, data: Path | None, target: Path) -> None:
    """Move a model file and its external data (under the first of `data_names`) to the target.

    The old model's data goes, if it has one of `data_names` and no other model beside it needs it.

    Raises:
        OSError: they cannot be moved; the target is complete, either old or new.
    """
    with locked(target.parent):
        old = own_data(target)
        if data is not None:
            name = next(name for name in data_names(target) if not os.path.lexists(target.parent / name))
            if name != data.name:
                _rename_data(model, name)
            os.replace(data, target.parent / name)
        os.replace(model, target)
        for path in old:
            if not readers(path):
                path.unlink(missing_ok=True)


def copy(source: Path, model: Path, data: Path) -> None:
    """Copy a model that onnxprune wrote, and its external data, if any.

    Raises:
        OSError: one of them cannot be read or written.
    """
    shutil.copyfile(source, model)
    for name in _data_of(source):
        shutil.copyfile(source.parent / name, data)
        _rename_data(model, data.name)


def _data_of(model: Path) -> set[str]:
    """The locations of the external data of a model file; none if it is no model."""
    try:
        proto = with_data_apart(model)
    except (OSError, ValueError, DecodeError, NotProtobufError):
        return set()
    return {os.path.normpath(entry.value) for entry in locations(proto)} - {model.name}


def _rename_data(model: Path, name: str) -> None:
    proto = onnx.load(model, load_external_data=False)
    for entry in locations(proto):
        entry.value = name
    model.write_bytes(proto.SerializeToString())


@contextlib.contextmanager
def replacing(path: Path, mode: str) -> Iterator[IO[Any]]:
    """A new file, open for writing, that replaces `path` once it is complete and on the disk.

    Raises:
        OSError: it cannot be written or moved; an existing file is not changed.
    """
    path = followed(path)
    with working_folder(path.parent) as folder:
        with (folder / path.name).open(mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / path.name, path)


@contextlib.contextmanager
def working_folder(parent: Path | None) -> Iterator[Path]:
    """A temporary folder in `parent` (by default the system's temporary folder), deleted afterwards.

    Folders that killed runs left in `parent` are deleted too.
    """
    if parent is not None:
        _sweep(parent)
    with contextlib.ExitStack() as lock:
        folder = _locked_folder(parent, lock)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _open_folders.discard(folder)


def _locked_folder(parent: Path | None, lock: contextlib.ExitStack) -> Path:
    """A new folder, whose lock `lock` holds.

    Another process may take a folder that is not locked yet for that of a killed run: then a new one is made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))
        _open_folders.add(folder)
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as attempt:
            attempt.enter_context(locked(folder))
            # Locked and still there: from now on it stays.
            if folder.exists():
                lock.push(attempt.pop_all())
                return folder
        _open_folders.discard(folder)


def remove_working_folders() -> None:
    """Remove the folders of this process, which is about to end without running their clean-up."""
    for folder in _open_folders:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder, which the system releases if the process is killed.

    Yields False if another process holds it and `wait` is false.
    """
    if fcntl is None:
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            # Either another process has the lock, or the file system has no locks.
            yield wait
            return
        yield True
    finally:
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove the working folders of killed runs; those of running ones are locked."""
    for folder in parent.glob(f"{_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError), locked(folder, wait=False) as abandoned:
            if abandoned and fcntl is not None:
                shutil.rmtree(folder, ignore_errors=True)
