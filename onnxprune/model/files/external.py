"""External data: where a tensor's data is, and which places may be read.

Data lies in or below the model's folder. Links may lead inside of it, inside of the model's folder in the cache of
Hugging Face, where each file of a snapshot is a link into `blobs`, and into folders of --allow-links.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxprune.model.files.wire import IN_THIS_FILE
from onnxprune.system.trust import trusted


class BrokenError(Exception):
    """The message says what is wrong with the model, without its name."""


class UnreadableError(Exception):
    """The message says why the external data of the model is not read, without its name, and how to go on."""


def external_place(tensor: onnx.TensorProto, file: Path) -> Path:
    """The file with the data of an external tensor of a checked model; `file` is the model's."""
    location = {entry.key: entry.value for entry in tensor.external_data}["location"]
    return file if location == IN_THIS_FILE else file.parent / location


def nbytes(tensor: onnx.TensorProto) -> int:
    """The bytes that the dims of a tensor require."""
    return math.ceil(math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth / 8)


def check_external(tensor: onnx.TensorProto, name: str, file: Path) -> None:
    """Check the place and the size of an external tensor's data; `file` is the model's.

    Raises:
        BrokenError: the tensor itself is wrong.
        UnreadableError: its data is missing or cut short, or where it may not be read.
    """
    if tensor.data_type == ir.DataType.STRING:
        raise BrokenError(f"the strings of {name!r} cannot be external data")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    wanted = nbytes(tensor)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", wanted))
    except ValueError:
        raise BrokenError(f"the offset or length of the external data of {name!r} is not a number") from None
    location = entries.get("location", "")
    if location != IN_THIS_FILE:
        _check_location(location, name, file.parent)
    path = external_place(tensor, file)
    if length != wanted:
        raise BrokenError(
            f"the tensor {name!r} of shape {list(tensor.dims)} has {length:,} bytes in {path} instead of {wanted:,}"
        )
    if not os.path.isfile(path):
        raise UnreadableError(f"the file {path} with the data of {name!r} is missing: {_instead(path, file)}")
    if offset < 0 or offset + length > path.stat().st_size:
        raise UnreadableError(
            f"the file {path} with the data of {name!r} is cut short: put the complete file beside the model"
        )


def _instead(path: Path, file: Path) -> str:
    """What to do about a missing file of data, `path`, of the model `file`."""
    if path.is_symlink():
        return f"it is a link to {os.path.realpath(path)}; download or copy that file"
    own = Path(os.path.realpath(file))
    if file.is_symlink() and os.path.isfile(own.parent / path.relative_to(file.parent)):
        return f"it is beside {own}, to which {file} is a link; give that path"
    return "put it beside the model"


def _check_location(location: str, name: str, folder: Path) -> None:
    """Check that a location is a file in or below the model's folder, or a link to one that may be read instead."""
    parts = Path(location).parts
    if not parts or "\0" in location or os.path.isabs(location) or ".." in parts:
        raise UnreadableError(
            f"the location {location!r} of the data of {name!r} is not a path inside the model's folder: save the "
            "model with its data beside it"
        )
    place, home = Path(os.path.realpath(folder / location)), Path(os.path.realpath(folder))
    if not any(place.is_relative_to(root) for root in (home, *_cache(home), *trusted().folders)):
        raise UnreadableError(
            f"the location {location!r} of the data of {name!r} is a link that leads to {place}, out of the model's "
            f"folder: put the file itself there, or give --allow-links {place.parent} if you trust it"
        )


def _cache(folder: Path) -> tuple[Path, ...]:
    """The folder of a model in the cache of Hugging Face, if it is there."""
    cache = next((parent for parent in folder.parents if parent.name.startswith("models--")), None)
    return () if cache is None else (cache,)
