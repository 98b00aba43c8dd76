"""onnxruntime sessions on the CPU; large models are memory-mapped."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import onnx
import onnxruntime as ort

from onnxprune.model.protos import all_tensors
from onnxprune.model.sessions import open_mapped, open_session
from onnxprune.model.wire import with_data_apart

# Models with at least this much data are memory-mapped.
MAPPED_BYTES = 1 << 26
# Errors come back as exceptions; onnxruntime would log them to stderr as well.
LOG_FATAL_ONLY = 4


def make_session(model: Path | onnx.ModelProto, name: str, threads: int = 0) -> ort.InferenceSession:
    """A CPU session for a model file, memory-mapped if it is large, or for a model in memory.

    `threads`: number of threads of a run; 0: one for each core.

    Raises:
        MissingOperatorError: onnxruntime does not have an operator of the model.
        ModelFileError: onnxruntime refuses the model.
        SettingError: a library of --custom-ops cannot be loaded.
    """
    if isinstance(model, Path) and (mapped := _mapped_session(model, threads)) is not None:
        return mapped
    content = model if isinstance(model, Path) else model.SerializeToString()
    return open_session(content, _session_options(threads), name)


def _session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = LOG_FATAL_ONLY
    return options


def _mapped_session(file: Path, threads: int) -> ort.InferenceSession | None:
    """A session whose weights are mapped from the file; None if they are small, or if that fails.

    onnxruntime maps external data; weights inside of a model file are copied, twice during loading.
    """
    # If this fails, the caller loads the plain file, whose error is reported.
    with suppress(Exception):
        proto = with_data_apart(file)
        apart = (tensor.external_data for tensor, _ in all_tensors(proto))
        sizes = (int(entry.value) for entries in apart for entry in entries if entry.key == "length")
        if sum(sizes) < MAPPED_BYTES:
            return None
        options = _session_options(threads)
        # Prepacked weights would be copies in memory.
        options.add_session_config_entry("session.disable_prepacking", "1")
        return open_mapped(proto, file, options)
    return None
