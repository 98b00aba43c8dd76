"""Folders of many jobs, a search or a sweep: an index that is replaced atomically, and the files of each job."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onnxprune.errors import OutputError
from onnxprune.model.files.replace import data_files, replacing, working_folder


def make_folder(folder: Path, flag: str) -> None:
    """Create a folder, unless it exists; `flag` names it.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{flag} {folder} cannot be created: {error.strerror}") from error


def write_index(path: Path, content: Mapping[str, Any]) -> None:
    """Replace an index by this content, as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with replacing(path, "w") as file:
            json.dump(content, file, indent=2)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a job that was performed elsewhere.

    Raises:
        OutputError: one cannot be written.
    """
    for name, content in files.items():
        try:
            with replacing(folder / name, "wb") as file:
                file.write(content)
        except OSError as error:
            raise OutputError(f"{folder / name} cannot be written: {error.strerror}") from error


def read_files(folder: Path, model: str, *others: str) -> dict[str, bytes]:
    """The files of a job that exist, external data before the model that refers to it."""
    data = (path.name for path in data_files(folder / model))
    return {
        name: (folder / name).read_bytes() for name in (*data, model, *others) if (folder / name).exists()
    }


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files if they exist, those of models with their external data."""
    for name in names:
        for file in (folder / name, *data_files(folder / name)):
            file.unlink(missing_ok=True)


def remove_unused(folder: Path, index: str) -> None:
    """Remove a folder of jobs that holds no more than its index; one with other files stays as it is."""
    with suppress(OSError):
        if all(path.name == index for path in folder.iterdir()):
            (folder / index).unlink(missing_ok=True)
            folder.rmdir()


@contextmanager
def workplace(folder: Path | None, files: Mapping[str, bytes]) -> Iterator[Path]:
    """The folder, or without one a temporary folder that holds these files."""
    if folder is not None:
        yield folder
        return
    with working_folder(None) as parent:
        # Writing a model locks the folder that it is in, and `parent` is locked already.
        place = parent / "job"
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
        yield place
