"""The sizes of a job's two files: as they travel, and on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onnxprune.config.presets import TargetSettings, find_preset
from onnxprune.model.files.io import ModelLike, Source, load
from onnxprune.model.memory import constant_bytes, peak_activation_bytes
from onnxprune.reports.record import FileRecord
from onnxprune.sparse.restore import from_ops
from onnxprune.system.compression import MOST_BYTES, gzip_bytes


def with_sizes(
    record: FileRecord, file: ModelLike, settings: TargetSettings, sample: Mapping[str, Sequence[int]]
) -> FileRecord:
    """The record of a file with the memory that it needs, if the preset shows that."""
    if settings.target is None or not find_preset(settings.target).shows_memory:
        return record
    model, _ = load(file)
    constants = constant_bytes(model)
    from_ops(model)
    return replace(record, constant_bytes=constants, peak_bytes=peak_activation_bytes(model, sample))


def travelling(origin: Source) -> int | None:
    """Bytes of the input model compressed by gzip."""
    if isinstance(origin.file, Path):
        return gzip_bytes((origin.file, *sorted(origin.data_files)))
    return gzip_bytes([origin.file.SerializeToString()]) if origin.file_bytes < MOST_BYTES else None
