"""Data named by a text on the command line: one entry of `READERS` per form of data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.data.functions import names_function, open_function
from onnxprune.data.idx import open_idx, open_idx_pair
from onnxprune.data.images.files import EXTENSIONS
from onnxprune.data.images.folder import is_image_folder, read_image_folder
from onnxprune.data.images.yolo import is_yolo, read_yolo
from onnxprune.data.objects import arrays_source, open_batches
from onnxprune.data.request import Request
from onnxprune.data.rows import KEPT_BYTES, Rows, open_npy, open_npz
from onnxprune.data.source import Source
from onnxprune.data.stream import StreamSource
from onnxprune.data.tables import is_table, read_table
from onnxprune.errors import DataError

# Files of data that only code can read.
UNREAD = (
    *(
        ".pt",
        ".pth",
        ".pkl",
        ".pickle",
        ".h5",
        ".hdf5",
        ".mat",
        ".safetensors",
        ".tfrecord",
        ".arrow",
        ".feather",
    ),
    *(".json", ".jsonl", ".txt", ".xlsx", ".zip", ".tar", ".onnx"),
)


@dataclass(frozen=True)
class Reader:
    """A form of data: `form` in words for messages, whether it `takes(text)`, and `read(text, request)`.

    `read` returns a source of arrays by input name, with labels under "labels"; it raises DataError.
    """

    form: str
    takes: Callable[[str], bool]
    read: Callable[[str, Request], Source]


def read_text(text: str, request: Request) -> Source:
    """The source that a text names, opened by the first reader that takes it.

    Raises:
        DataError: no reader takes it, or the data cannot be read.
    """
    if not text:
        raise DataError(
            f"the name of the data is empty, as an unset variable of a shell gives it: give {forms()}"
        )
    for reader in READERS:
        if reader.takes(text):
            return reader.read(text, request)
    raise DataError(f"there is no data {text}: give {forms()}")


def forms() -> str:
    """All forms of data, in words."""
    *others, last = (reader.form for reader in READERS)
    return f"{', '.join(others)}, or {last}"


def _open_npz(text: str, request: Request) -> Source:
    if Path(text).is_dir():
        raise DataError(f"{text} is a folder, and no .npz file: give a file, or a folder with another name")
    if not Path(text).exists():
        raise DataError(f"there is no data file {text}: give {forms()}")
    return arrays_source(open_npz(Path(text)), text, request)


def _open_npy(text: str, request: Request) -> Source:
    """One array: the only input, without labels."""
    if len(request.specs) != 1:
        raise DataError(
            f"{text} has one input, the model has {len(request.specs)}: give a folder with a .npy file for each, or a "
            ".npz file"
        )
    return arrays_source({request.specs[0].name: open_npy(Path(text))}, text, request)


def _open_npy_folder(text: str, request: Request) -> Source:
    arrays: dict[str, Rows] = {file.stem: open_npy(file) for file in sorted(Path(text).glob("*.npy"))}
    return arrays_source(arrays, text, request)


def _open_file(text: str, request: Request) -> Source:
    """An IDX file, or a file of a kind that is not read."""
    suffix = _suffix(text)
    if suffix in EXTENSIONS:
        raise DataError(f"{text} is a single image: give the folder that it is in")
    if suffix in UNREAD:
        raise DataError(
            f"{text}: {suffix} files are not read; write its arrays with numpy.savez, or give MODULE:FUNCTION, which "
            "reads it and yields batches"
        )
    return open_idx(text, request)


def _open_npz_folder(text: str, request: Request) -> Source:
    """A sample or a batch in each file; they are read again at every pass, unless they are small."""
    files = sorted(Path(text).glob("*.npz"))

    def passes(epoch: int) -> Iterator[dict[str, np.ndarray]]:
        for file in files:
            yield {
                name: array[:] if array.ndim else np.asarray(array) for name, array in open_npz(file).items()
            }

    if sum(file.stat().st_size for file in files) <= KEPT_BYTES:
        return open_batches(passes(0), text, request)
    return StreamSource(passes, text, request.rows)


def _suffix(text: str) -> str:
    return Path(text).suffix.lower()


# The first that takes a text reads it.
READERS = (
    Reader(
        "an .npz file (arrays named as the inputs, and 'labels')",
        lambda text: _suffix(text) == ".npz",
        _open_npz,
    ),
    Reader(
        "a .npy file of the only input",
        lambda text: _suffix(text) == ".npy" and Path(text).is_file(),
        _open_npy,
    ),
    Reader("a folder of .npz files", lambda text: any(Path(text).glob("*.npz")), _open_npz_folder),
    Reader("a folder of .npy files", lambda text: any(Path(text).glob("*.npy")), _open_npy_folder),
    Reader(
        "a folder of images (in a folder for each class, or with labels.csv)",
        is_image_folder,
        read_image_folder,
    ),
    Reader("a .csv or .parquet table", is_table, read_table),
    Reader("an Ultralytics .yaml", is_yolo, read_yolo),
    Reader(
        "an IDX file of images (with its labels beside it)", lambda text: Path(text).is_file(), _open_file
    ),
    Reader("IDX files as IMAGES,LABELS", lambda text: "," in text, open_idx_pair),
    Reader("MODULE:FUNCTION that gives data or yields batches", names_function, open_function),
)
