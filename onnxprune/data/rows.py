"""Arrays in files whose rows are read when they are needed: members of .npz files, and .npy files."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from onnxprune.errors import DataError

# Arrays up to this size are read whole: rows in memory are read in a third of the time of rows in a file.
KEPT_BYTES = 2**28

# The length of a zip member's local header, and where it says the lengths of the name and the extra field.
LOCAL_HEADER, NAME_LENGTH = 30, 26


class RowFile:
    """An array in a file, C-ordered, of which `array[index]` reads the rows at `index`, a slice or numbers.

    The file is opened for each read, so that a RowFile can be sent to other processes, and no mapped pages pile up.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int):
        self.path = path
        self.dtype = dtype
        self.shape = shape
        self.ndim = len(shape)
        self._offset = offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        numbers = np.arange(len(self))[index]
        rows = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        if not len(numbers):
            return rows
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
        try:
            with open(self.path, "rb", buffering=0) as file:
                for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
                    file.seek(self._offset + int(numbers[start]) * size)
                    _fill(file, rows[start:end])
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}; is it still there?") from None
        return rows


Rows = np.ndarray | RowFile


def _fill(file: IO[bytes], rows: np.ndarray) -> None:
    view = memoryview(rows.view(np.uint8).reshape(-1))  # type: ignore[arg-type]
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise DataError(f"{file.name} ends early: was it changed while it was read? Write it again")
        view = view[count:]


def open_npy(path: Path) -> Rows:
    """The array of a .npy file.

    Raises:
        DataError: it is not one, or holds Python objects.
    """
    try:
        with open(path, "rb") as file:
            dtype, shape, fortran = _header(file)
            offset, size = file.tell(), os.path.getsize(path)
        if size - offset < dtype.itemsize * math.prod(shape):
            raise ValueError("it is cut short")
        if _is_kept(dtype, shape, fortran):
            return np.load(path, allow_pickle=False)
        return RowFile(path, dtype, shape, offset)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read as .npy: {error}; write it with numpy.save, with a plain array"
        ) from None


def open_npz(path: Path) -> dict[str, Rows]:
    """The arrays of a .npz file; large compressed ones are decompressed into a temporary file.

    Raises:
        DataError: it is not one, or holds Python objects.
    """
    arrays: dict[str, Rows] = {}
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as loaded:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    dtype, shape, fortran = _header(file)
                    start = file.tell()
                if _is_kept(dtype, shape, fortran):
                    arrays[name] = loaded[name]
                elif member.compress_type == zipfile.ZIP_STORED:
                    arrays[name] = RowFile(path, dtype, shape, _data_offset(path, member) + start)
                else:
                    arrays[name] = _decompressed(archive, member, dtype, shape, start)
    except FileNotFoundError:
        raise DataError(f"there is no data file {path}: check its path") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{path} cannot be read as .npz: {error}; write it with numpy.savez, with plain arrays"
        ) from None
    return arrays


def _header(file: IO[bytes]) -> tuple[np.dtype, tuple[int, ...], bool]:
    """The dtype, the shape, and whether the order is Fortran's; the file is then at the data."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    return dtype, shape, fortran


def _is_kept(dtype: np.dtype, shape: tuple[int, ...], fortran: bool) -> bool:
    return fortran or not shape or dtype.itemsize * math.prod(shape) <= KEPT_BYTES


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the content of a stored zip member begins."""
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        header = file.read(LOCAL_HEADER)
    lengths = (int.from_bytes(header[at : at + 2], "little") for at in (NAME_LENGTH, NAME_LENGTH + 2))
    return member.header_offset + LOCAL_HEADER + sum(lengths)


def _decompressed(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, dtype: np.dtype, shape: tuple[int, ...], start: int
) -> RowFile:
    """A member as rows of a temporary file, which is removed with them."""
    handle, name = tempfile.mkstemp(suffix=".npy")
    try:
        with archive.open(member) as content, os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(content, file, 2**20)
    except BaseException:
        os.remove(name)
        raise
    rows = RowFile(Path(name), dtype, shape, start)
    weakref.finalize(rows, _remove, name, os.getpid())
    return rows


def _remove(name: str, owner: int) -> None:
    # A worker process has a copy of the object, but the file is its parent's.
    if os.getpid() == owner:
        Path(name).unlink(missing_ok=True)
