"""A model as bytes, for workers that cannot read the files of this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnxprune.model.files.io import Source
from onnxprune.sparse.opening import OpenedModel, open_model


@dataclass(frozen=True)
class Parcel:
    """The files of a model; `contents`: by their paths from the folder of the first one, the model itself."""

    path: Path
    contents: dict[str, bytes]

    @classmethod
    def of(cls, origin: Source) -> Parcel:
        """Of a model that was read from a file, with its external data."""
        assert isinstance(origin.file, Path)
        files = [origin.file, *sorted(origin.data_files)]
        return cls(
            origin.file, {os.path.relpath(file, origin.file.parent): file.read_bytes() for file in files}
        )

    def unpack(self, folder: Path) -> OpenedModel:
        """The model, read from copies of its files; it is known by the path of the original."""
        for name, content in self.contents.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        opened = open_model(folder / next(iter(self.contents)))
        return replace(opened, origin=replace(opened.origin, original=self.path))


Sendable = Path | onnx.ModelProto | Parcel
"""A model that another process can open."""


def sendable(origin: Source, here: bool) -> Sendable:
    """A model for workers; `here`: they can read the files of this machine."""
    return origin.file if here or not isinstance(origin.file, Path) else Parcel.of(origin)


def unpacked(model: Sendable, folder: Path) -> OpenedModel:
    """The model that `sendable` sent, with its copies in a folder that exists as long as it is used."""
    return model.unpack(folder) if isinstance(model, Parcel) else open_model(model)
