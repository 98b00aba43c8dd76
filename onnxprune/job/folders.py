"""Folders of many jobs, a search or a sweep: an index that is replaced atomically, and the files of each job."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onnxprune.errors import OutputError, SettingError
from onnxprune.model.files.replace import data_files, replacing, working_folder

# The indexes of a search and of a sweep.
SEARCH_INDEX, SWEEP_INDEX = "frontier.json", "sweep.json"


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


def read_index(folder: Path, name: str, kind: str, advice: str) -> dict[str, Any]:
    """The content of an index; `kind` is what the folder is of, `advice` what to do where it is not.

    Raises:
        SettingError: there is no index, or it cannot be read.
    """
    try:
        content = json.loads((folder / name).read_text())
        if isinstance(content, dict):
            return content
        reason = f"its {name} is damaged"
    except FileNotFoundError:
        reason = f"it has no {name}" if folder.exists() else "it does not exist"
    except NotADirectoryError:
        reason = "it is a file"
    except OSError as error:
        reason = f"its {name} cannot be read ({error.strerror})"
    except ValueError:
        reason = f"its {name} is damaged"
    raise SettingError(f"{folder} is not the folder of a {kind}: {reason}; {advice}")


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
