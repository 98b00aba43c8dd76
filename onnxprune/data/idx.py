"""IDX, the file format of MNIST, plain or gzipped.

Two zero bytes, the element type, the number of dimensions, each dimension as a big-endian uint32, then the values
in row-major order, big-endian.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from onnxprune.errors import DataError

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"


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
