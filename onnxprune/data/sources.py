"""Data from files, functions or Python, read whole and checked against a model's inputs."""

from __future__ import annotations

import importlib
import math
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.config.settings import describe_source
from onnxprune.data.dataset import Dataset, InputSpec
from onnxprune.data.idx import read_idx
from onnxprune.errors import DataError

LABELS = "labels"
# IDX files hold grey levels as bytes; models take them as float in [0, 1].
IDX_SCALE = np.float32(1 / 255)
FORMS = (
    "an .npz file (arrays named as the inputs), an IDX file of images (with its labels beside it, or as "
    "IMAGES,LABELS), or MODULE:FUNCTION"
)


def load_data(source: Any, specs: list[InputSpec]) -> Dataset:
    """Read a data source whole and check it against the model's inputs.

    `source`: a path or text as on the command line, a mapping {name: array}, or an iterable of such mappings
    (batches, labels under "labels"; onnxruntime's CalibrationDataReader is one).

    Raises:
        DataError: it cannot be read, or names, dtypes or shapes do not fit.
    """
    name = describe_source(source) or ""
    if isinstance(source, (str, os.PathLike)):
        arrays = _from_text(os.fspath(source), specs)
    elif isinstance(source, Mapping):
        arrays = {str(key): _as_array(array, str(key), name) for key, array in source.items()}
    elif isinstance(source, Iterable):
        arrays = _concatenate(source, name)
    else:
        raise DataError(f"data of type {type(source).__name__} cannot be read: give {FORMS}, or batches")
    return _fit(arrays, specs, name)


def repeatable(source: Any) -> Any:
    """A data source, or None, that can be read again and again: batches that come only once are put by."""
    if source is None or isinstance(source, str | os.PathLike | Mapping | Sequence):
        return source
    return list(source)


def _as_array(values: Any, key: str, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(
            f"{key!r} of {name} is no array: {error}; models that take sequences are not judged"
        ) from None


def _from_text(text: str, specs: list[InputSpec]) -> dict[str, np.ndarray]:
    path = Path(text)
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.is_file():
        return _read_idx_pair(path, _labels_beside(path), specs)
    images, comma, labels = text.partition(",")
    if comma:
        return _read_idx_pair(Path(images), Path(labels), specs)
    module, colon, function = text.partition(":")
    if colon and function.isidentifier():
        return _concatenate(_call(module, function), text)
    raise DataError(f"there is no data file {text}: give {FORMS}")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"there is no data file {path}: give {FORMS}") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"{path} cannot be read as .npz: {error}; write it by numpy.savez with plain arrays"
        ) from None


def _read_idx_pair(images: Path, labels: Path | None, specs: list[InputSpec]) -> dict[str, np.ndarray]:
    if len(specs) != 1:
        raise DataError(
            f"{images} holds one input, the model has {len(specs)}: give an .npz with all of them"
        )
    spec = specs[0]
    pixels = read_idx(images)
    if pixels.ndim < 2 or pixels.dtype != np.uint8:
        raise DataError(f"{images} does not hold images (bytes, samples along the first axis): give {FORMS}")
    sample = tuple(dim for dim in spec.shape[1:] if isinstance(dim, int))
    if len(sample) == len(spec.shape) - 1:
        if math.prod(pixels.shape[1:]) != math.prod(sample):
            raise DataError(
                f"{images} holds images of shape {pixels.shape[1:]}, the input {spec.name!r} takes {sample}: "
                "give images of that size"
            )
        pixels = pixels.reshape(len(pixels), *sample)
    scaled = pixels * IDX_SCALE if spec.dtype.kind == "f" else pixels
    arrays = {spec.name: scaled.astype(spec.dtype, copy=False)}
    if labels is not None:
        arrays[LABELS] = read_idx(labels).astype(np.int64)
    return arrays


def _labels_beside(images: Path) -> Path | None:
    """The labels file that goes with an images file under MNIST's naming, where there is one."""
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    labels = images.with_name(name)
    return labels if name != images.name and labels.is_file() else None


def named(module: str, name: str) -> Any:
    """What a module of the working folder, or an installed one, calls by a name; raises what importing it raises."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), name)


def _call(module_name: str, function_name: str) -> Iterable[Any]:
    try:
        function = named(module_name, function_name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{module_name}:{function_name}: {error}; is it in this folder or installed?"
        ) from None
    except AttributeError:
        raise DataError(
            f"module {module_name} has no {function_name}: name a function that yields batches"
        ) from None
    except Exception as error:
        raise DataError(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise DataError(f"{module_name}:{function_name} is not a function: name one that yields batches")
    try:
        batches = function()
    except Exception as error:
        raise DataError(f"{module_name}:{function_name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(batches, Iterable):
        raise DataError(f"{module_name}:{function_name} gave {type(batches).__name__}: it must yield batches")
    return batches


def _concatenate(batches: Iterable[Any], name: str) -> dict[str, np.ndarray]:
    columns: dict[str, list[np.ndarray]] = {}
    for count, batch in enumerate(_guarded(batches, name)):
        if not isinstance(batch, Mapping):
            raise DataError(
                f"batch {count} of {name} is a {type(batch).__name__}: each must be a dict {{input name: array}}"
            )
        if count and set(batch) != set(columns):
            raise DataError(
                f"batch {count} of {name} has the names {sorted(batch)}, the first {sorted(columns)}"
            )
        for key, array in batch.items():
            columns.setdefault(str(key), []).append(np.asarray(array))
    if not columns:
        raise DataError(f"{name} yields no batch: give at least 2 samples")
    try:
        return {key: np.concatenate(parts) if parts[0].ndim else parts[0] for key, parts in columns.items()}
    except ValueError as error:
        raise DataError(
            f"the batches of {name} do not fit together: {error}; make their shapes equal"
        ) from None


def _guarded(batches: Iterable[Any], name: str) -> Iterator[Any]:
    """The batches; what the user's own code raises becomes one line."""
    try:
        yield from batches
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name} failed while yielding batches: {type(error).__name__}: {error}") from error


def _fit(arrays: dict[str, np.ndarray], specs: list[InputSpec], name: str) -> Dataset:
    arrays = dict(arrays)
    names = [spec.name for spec in specs]
    labels = None if LABELS in names else arrays.pop(LABELS, None)
    missing, unknown = set(names) - set(arrays), set(arrays) - set(names)
    if missing:
        raise DataError(
            f"{name} has no array {_quoted(missing)}"
            + (f" but {_quoted(unknown)}" if unknown else "")
            + f": name the arrays as the model's inputs ({', '.join(names)})"
        )
    inputs = {spec.name: _fit_array(arrays[spec.name], spec, name) for spec in specs}
    lengths = {key: len(array) for key, array in inputs.items() if array.ndim}
    if labels is not None:
        lengths[LABELS] = len(labels)
    if len(set(lengths.values())) != 1:
        if labels is None and not _has_common_batch(specs):
            return Dataset(inputs, None, name, whole=True)
        counts = ", ".join(f"{key} {count}" for key, count in lengths.items())
        raise DataError(f"the arrays of {name} differ in length ({counts}): give one row a sample in each")
    if not next(iter(lengths.values())):
        raise DataError(f"{name} holds no samples: give at least 2")
    if labels is not None and labels.dtype.kind not in "iubf":
        raise DataError(
            f"the labels of {name} are of type {labels.dtype}: give class numbers or float targets"
        )
    if labels is not None and labels.dtype.kind != "f" and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return Dataset(inputs, labels, name)


def _has_common_batch(specs: list[InputSpec]) -> bool:
    """Whether the inputs' first axes can be one: not so for x [N, 8] beside a state [2, N, 4]."""
    firsts = {spec.shape[0] for spec in specs if spec.shape}
    return len(firsts) == 1 or not any(isinstance(first, int) for first in firsts)


def _fit_array(array: np.ndarray, spec: InputSpec, name: str) -> np.ndarray:
    kinds = {"f": "f", "O": "OUS"}.get(spec.dtype.kind, "iub")
    if array.dtype.kind not in kinds:
        raise DataError(
            f"array {spec.name!r} of {name} is {array.dtype}, the input takes {spec.dtype}: "
            "convert it as the model's training did"
        )
    fits = array.ndim == len(spec.shape) and all(
        not isinstance(want, int) or have == want
        for have, want in zip(array.shape[1:], spec.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join(
            ["N" if spec.shape else "", *("any" if d is None else str(d) for d in spec.shape[1:])]
        )
        have = ", ".join(map(str, array.shape))
        raise DataError(
            f"array {spec.name!r} of {name} has shape [{have}], the input takes [{wanted}]: reshape it"
        )
    return array.astype(spec.dtype, copy=False)


def _quoted(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))
