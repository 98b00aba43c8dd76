"""Data named by a text on the command line: one entry of `READERS` per form of data."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.data.batches import concatenate
from onnxprune.data.idx import read_idx
from onnxprune.data.named import named
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError

LABELS = "labels"
# IDX files store gray levels as bytes; models take floats in [0, 1].
IDX_SCALE = np.float32(1 / 255)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Reader:
    """A form of data: `form` in words for messages, whether it `takes(text)`, and `read(text, specs)`.

    `read` returns arrays by input name, samples along the first axis, and labels under "labels"; it raises DataError.
    """

    form: str
    takes: Callable[[str], bool]
    read: Callable[[str, list[InputSpec]], Arrays]


def read_text(text: str, specs: list[InputSpec]) -> Arrays:
    """The arrays that a text names, read by the first reader that takes it.

    Raises:
        DataError: no reader takes it, or the data cannot be read.
    """
    for reader in READERS:
        if reader.takes(text):
            return reader.read(text, specs)
    raise DataError(f"there is no data file {text}: give {forms()}")


def forms() -> str:
    """All forms of data, in words."""
    *others, last = (reader.form for reader in READERS)
    return f"{', '.join(others)}, or {last}"


def _read_npz(text: str, specs: list[InputSpec]) -> Arrays:
    path = Path(text)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"there is no data file {path}: give {forms()}") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"{path} cannot be read as .npz: {error}; write it with numpy.savez, with plain arrays"
        ) from None


def _read_idx(text: str, specs: list[InputSpec]) -> Arrays:
    path = Path(text)
    return _read_idx_pair(path, _labels_beside(path), specs)


def _read_idx_with_labels(text: str, specs: list[InputSpec]) -> Arrays:
    images, _, labels = text.partition(",")
    return _read_idx_pair(Path(images), Path(labels), specs)


def _read_idx_pair(images: Path, labels: Path | None, specs: list[InputSpec]) -> Arrays:
    if len(specs) != 1:
        raise DataError(
            f"{images} has one input, the model has {len(specs)}: give an .npz file with all of them"
        )
    spec = specs[0]
    pixels = read_idx(images)
    if pixels.ndim < 2 or pixels.dtype != np.uint8:
        raise DataError(f"{images} has no images (bytes, samples along the first axis): give {forms()}")
    sample = tuple(dim for dim in spec.shape[1:] if isinstance(dim, int))
    if len(sample) == len(spec.shape) - 1:
        if math.prod(pixels.shape[1:]) != math.prod(sample):
            raise DataError(
                f"{images} has images of shape {pixels.shape[1:]}, the input {spec.name!r} takes {sample}: give images "
                "of that size"
            )
        pixels = pixels.reshape(len(pixels), *sample)
    scaled = pixels * IDX_SCALE if spec.dtype.kind == "f" else pixels
    arrays = {spec.name: scaled.astype(spec.dtype, copy=False)}
    if labels is not None:
        arrays[LABELS] = read_idx(labels).astype(np.int64)
    return arrays


def _labels_beside(images: Path) -> Path | None:
    """The labels file beside an images file, by the naming of MNIST; None if there is none."""
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    labels = images.with_name(name)
    return labels if name != images.name and labels.is_file() else None


def _names_function(text: str) -> bool:
    _, colon, function = text.partition(":")
    return bool(colon) and function.isidentifier()


def _call(text: str, specs: list[InputSpec]) -> Arrays:
    module_name, _, function_name = text.partition(":")
    try:
        function = named(module_name, function_name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{module_name}:{function_name}: {error}; give a module in this folder or an installed one"
        ) from None
    except AttributeError:
        raise DataError(
            f"module {module_name} has no {function_name}: give a function that yields batches"
        ) from None
    except Exception as error:
        raise DataError(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise DataError(f"{module_name}:{function_name} is not a function: give one that yields batches")
    try:
        batches = function()
    except Exception as error:
        raise DataError(f"{module_name}:{function_name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(batches, Iterable):
        raise DataError(
            f"{module_name}:{function_name} returned {type(batches).__name__}: it must yield batches"
        )
    return concatenate(batches, text)


# The first that takes a text reads it.
READERS = (
    Reader(
        "an .npz file (arrays named as the inputs, and 'labels')",
        lambda text: Path(text).suffix == ".npz",
        _read_npz,
    ),
    Reader("an IDX file of images (with its labels beside it)", lambda text: Path(text).is_file(), _read_idx),
    Reader("IDX files as IMAGES,LABELS", lambda text: "," in text, _read_idx_with_labels),
    Reader("MODULE:FUNCTION that yields batches", _names_function, _call),
)
