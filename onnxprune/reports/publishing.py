"""What leaves the machine with a model: the names of files, and never the folders that they are in.

The metadata of a model, the HTML page, the card, charts and what trackers get are published; a recipe, the JSON record
and the terminal are the user's own, and keep the paths that were typed, so that a recipe can be run again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from onnxprune.config.settings import PATH_SETTINGS, PRIVATE

# Fields of a record that hold names of the model, which may look like paths: /encoder/layer.0/MatMul.
OF_THE_MODEL = frozenset({"layers", "unprunable", "surgery", "histograms", "sensitivity", "sample", "graph"})
# Fields with pictures in Base64, which may contain what looks like a folder; the second is a part of the evaluation.
PICTURES, ANSWERS = "maps", "answers"
_ROOT = re.compile(r"(?<![\w./\\~-])(?:/|[A-Za-z]:[/\\])(?=[^/\s])")


def published(record: Mapping[str, Any], *paths: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The record as it may leave the machine: paths, and paths within sentences, become file names.

    Private settings are empty in it.

    Known are the paths of the record's settings and files, and `paths`; in sentences also whatever begins with a
    folder of this machine. A file within a folder that was given keeps its place in that folder.
    """
    recorded = record.get("settings") or {}
    settings = {name: [] if name in PRIVATE else value for name, value in recorded.items()}
    record = {**record, "settings": settings} if settings else record
    files = ((record.get(name) or {}).get("path") for name in ("baseline", "pruned"))
    given = [path for name in PATH_SETTINGS for path in _paths(settings.get(name))]
    known = [os.fspath(path) for path in (*paths, *files, *given) if path]
    folders = tuple(_folders(known))
    plain = {name: _names(settings[name]) for name in PATH_SETTINGS if name in settings}
    texts = {key: value for key, value in record.items() if key not in {*OF_THE_MODEL, PICTURES}}
    hidden = {key: _without(value, folders) for key, value in texts.items()}
    evaluation = record.get("evaluation") or {}
    if evaluation.get(ANSWERS):
        hidden["evaluation"] = {**hidden["evaluation"], ANSWERS: evaluation[ANSWERS]}
    return {**record, **hidden, **({"settings": hidden["settings"] | plain} if settings else {})}


def file_name(path: str) -> str:
    """The last part of a path; of IMAGES,LABELS that of both."""
    if "," in path and not os.path.exists(path):
        return ",".join(map(file_name, path.split(",")))
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _paths(given: Any) -> Iterator[str]:
    """The paths of a setting."""
    for path in [given] if isinstance(given, str) else given or ():
        yield path
        yield from path.split(",") if "," in path else ()


def _names(given: Any) -> Any:
    """A setting with file names instead of its paths."""
    if given is None:
        return None
    return file_name(given) if isinstance(given, str) else [file_name(path) for path in given]


def _folders(paths: Iterable[str]) -> list[str]:
    """The folders that these paths begin with, as typed and absolute, the longest first."""
    found = set()
    for path in paths:
        for form in (path, os.path.normpath(path), os.path.abspath(path), os.path.realpath(path)):
            folder = re.sub(r"[^/\\]*[/\\]*$", "", form)
            if folder.strip("./\\"):
                found.add(folder)
    return sorted(found, key=lambda folder: -len(folder))


def _without(value: Any, folders: tuple[str, ...]) -> Any:
    """A value of JSON types, or of dataclasses' tuples, without the folders in its texts."""
    if isinstance(value, str):
        for folder in folders:
            value = re.sub(rf"(?<![\w./\\~-]){re.escape(folder)}", "", value)
        return _without_absolute(value)
    if isinstance(value, Mapping):
        return {key: _without(each, folders) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without(each, folders) for each in value)
    return value


def _without_absolute(text: str) -> str:
    """A text without the folders of this machine that paths in it begin with."""
    kept, at = [], 0
    for start in _ROOT.finditer(text):
        if start.start() < at:
            continue
        kept.append(text[at : start.start()])
        at = _end_of_folder(text, start.start(), start.end())
    return "".join((*kept, text[at:]))


def _end_of_folder(text: str, start: int, root: int) -> int:
    """Where the longest folder of this machine ends that the text has from `start` on; `start` if there is none."""
    ends = [found.end() for found in re.finditer(r"[/\\]", text[root:])]
    return next((root + end for end in reversed(ends) if os.path.isdir(text[start : root + end])), start)
