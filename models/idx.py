"""MNIST's IDX files: reading a split, and writing an array."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from onnxprune.data.idx import read_idx
from onnxprune.errors import DataError

UNSIGNED_BYTE = 8


def write_gz(path: Path, array: np.ndarray) -> None:
    """Write a uint8 array as a gzipped IDX file, without name and time, so that equal arrays give equal bytes."""
    header = bytes([0, 0, UNSIGNED_BYTE, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(header + array.tobytes())


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) of MNIST's "train" or "t10k" split in a folder, raw or .gz, uint8.

    Raises:
        DataError: a file is missing or broken.
    """
    images = read_idx(_find(folder, f"{split}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{split}-labels-idx1-ubyte"))
    return images, labels


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise DataError(f"{folder} has neither {name} nor {name}.gz: get MNIST with `make mnist`")
