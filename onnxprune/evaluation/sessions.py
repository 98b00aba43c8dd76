"""onnxruntime sessions on the CPU; large models are memory-mapped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import onnx
import onnxruntime as ort

from onnxprune.evaluation.draws import DROPOUT, RANDOM, seed_draws
from onnxprune.model.files.protos import all_tensors
from onnxprune.model.files.sessions import Make, open_mapped, open_session
from onnxprune.model.files.wire import with_data_apart

# Models with at least this much data are memory-mapped.
MAPPED_BYTES = 1 << 26
# Errors come back as exceptions; onnxruntime would log them to stderr as well.
LOG_FATAL_ONLY = 4


def make_session(model: Path | onnx.ModelProto, name: str, threads: int = 0) -> ort.InferenceSession:
    """A CPU session for a model file, memory-mapped if it is large, or for a model in memory.

    One that draws random numbers is a `SeededSession`. `threads`: number of threads of a run; 0: one for each core.

    Raises:
        MissingOperatorError: onnxruntime does not have an operator of the model.
        ModelFileError: onnxruntime refuses the model.
        SettingError: a library of --custom-ops cannot be loaded.
    """
    if isinstance(model, Path) and (mapped := _mapped_session(model, threads)) is not None:
        return mapped
    content = model if isinstance(model, Path) else model.SerializeToString()
    options = _session_options(threads)
    if isinstance(content, bytes) and _may_draw(content):
        seeded = onnx.ModelProto.FromString(content)
        if found := seed_draws(seeded):
            return open_session(seeded.SerializeToString(), options, name, make=_seeded(found))
    return open_session(content, options, name)


def _seeded(drawn: Mapping[str, str]) -> Make:
    return lambda content, options: SeededSession(content, options, drawn)


class SeededSession(ort.InferenceSession):
    """A session of a model that draws random numbers: the same ones from the beginning of every session.

    `drawn`: the types of the operators that draw, by the name of their output.
    """

    def __init__(self, content: str | bytes, options: ort.SessionOptions, drawn: Mapping[str, str]):
        super().__init__(content, options, providers=["CPUExecutionProvider"])
        self._made_of = content, options
        self.drawn = drawn

    def again(self) -> SeededSession:
        """The same model at the beginning of its draws."""
        return SeededSession(*self._made_of, self.drawn)


def restarted(session: ort.InferenceSession) -> ort.InferenceSession:
    """The session, at the beginning of its draws."""
    return session.again() if isinstance(session, SeededSession) else session


def drawn(session: ort.InferenceSession) -> Mapping[str, str]:
    """The types of the operators that draw random numbers, by the name of their output."""
    return session.drawn if isinstance(session, SeededSession) else {}


def _may_draw(content: bytes) -> bool:
    """Whether a serialized model names an operator that may draw: it is not copied otherwise."""
    return any(name.encode() in content for name in (*RANDOM, DROPOUT))


def _session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = LOG_FATAL_ONLY
    return options


def _mapped_session(file: Path, threads: int) -> ort.InferenceSession | None:
    """A session whose weights are mapped from the file, or that draws; None if they are small, or if that fails.

    onnxruntime maps external data; weights inside of a model file are copied, twice during loading.
    """
    # If this fails, the caller loads the plain file, whose error is reported.
    with suppress(Exception):
        proto = with_data_apart(file)
        apart = (tensor.external_data for tensor, _ in all_tensors(proto))
        sizes = (int(entry.value) for entries in apart for entry in entries if entry.key == "length")
        found = seed_draws(proto)
        if not found and sum(sizes) < MAPPED_BYTES:
            return None
        options = _session_options(threads)
        if found:
            return open_mapped(proto, file, options, _seeded(found))
        # Prepacked weights would be copies in memory.
        options.add_session_config_entry("session.disable_prepacking", "1")
        return open_mapped(proto, file, options)
    return None
