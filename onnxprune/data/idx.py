"""IDX, the file format of MNIST, plain or gzipped; read whole.

Two zero bytes, the element type, the number of dimensions, each dimension as a big-endian uint32, then the values
in row-major order, big-endian.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from onnxprune.data.dataset import LABELS
from onnxprune.data.images.transforms import Transform
from onnxprune.data.request import Request
from onnxprune.data.source import ArraySource, Source
from onnxprune.errors import DataError

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"
# IDX files store gray levels as bytes; models take floats in [0, 1].
SCALE = np.float32(1 / 255)


def open_idx(text: str, request: Request) -> Source:
    """Images, with the labels file beside them by the naming of MNIST, if there is one."""
    images = Path(text)
    labels = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    return _open(images, labels if labels != images and labels.is_file() else None, request)


def open_idx_pair(text: str, request: Request) -> Source:
    """IMAGES,LABELS."""
    images, _, labels = text.partition(",")
    return _open(Path(images), Path(labels), request)


def _open(images: Path, labels: Path | None, request: Request) -> Source:
    if len(request.specs) != 1:
        raise DataError(
            f"{images} has one input, the model has {len(request.specs)}: give an .npz file with all of them"
        )
    spec = request.row_specs[0]
    pixels = read_idx(images)
    shape = pixels.shape[1:] if request.transform is None else None
    if pixels.ndim < 2 or pixels.dtype != np.uint8:
        raise DataError(
            f"{images} has no images (bytes, samples along the first axis): give images, or an .npz file"
        )
    if request.transform is not None:
        inputs = Transform.parse(request.transform, spec).arrays(pixels)
    else:
        sample = tuple(dim for dim in spec.shape[1:] if isinstance(dim, int))
        if len(sample) == len(spec.shape) - 1:
            if math.prod(pixels.shape[1:]) != math.prod(sample):
                raise DataError(
                    f"{images} has images of shape {pixels.shape[1:]}, the input {spec.name!r} takes {sample}: give "
                    "images of that size, or --transform mnist to resize them"
                )
            pixels = pixels.reshape(len(pixels), *sample)
        inputs = (pixels * SCALE if spec.dtype.kind == "f" else pixels).astype(spec.dtype, copy=False)
    arrays = {spec.name: inputs}
    if labels is not None:
        arrays[LABELS] = read_idx(labels).astype(np.int64)
    return ArraySource(arrays, str(images), shape)


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, in native byte order.

    Raises:
        DataError: there is no such file, it is not IDX, or it is cut short or too long.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except FileNotFoundError:
        raise DataError(f"there is no data file {path}: check its path") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): download it again") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
        raise DataError(f"{path} is not an IDX file: give an .npz file, or IDX files like those of MNIST")
    dtype, header = np.dtype(DTYPES[content[2]]), 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"{path} ends within its IDX header: download it again")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    # As Python integers, because the product of a broken header could overflow.
    wanted = dtype.itemsize * int(np.prod(shape, dtype=object))
    if len(content) - header != wanted:
        raise DataError(
            f"{path} has {len(content) - header} bytes of data, its IDX header says {wanted}: download it again"
        )
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))
