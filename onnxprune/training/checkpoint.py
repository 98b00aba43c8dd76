"""Checkpoints: the state of a training on disk, written atomically, and loaded without running code from the file."""

from __future__ import annotations

import json
import pickle
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from onnxprune.config.declare import PathLike
from onnxprune.errors import OutputError, SettingError
from onnxprune.model.files.replace import replacing

State = dict[str, Any]


def best_module(path: Path) -> dict[str, torch.Tensor]:
    """The best state of the module, with masks, in a checkpoint that onnxprune wrote."""
    return torch.load(path, map_location="cpu", weights_only=True)["best"][1]


def settings_of(path: PathLike) -> dict[str, Any]:
    """The settings of the training that a checkpoint is of; none where there is no such file."""
    try:
        return json.loads(torch.load(path, map_location="cpu", weights_only=True)["origin"]["settings"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError):
        # `Checkpoint.read` says what is wrong with it.
        return {}


class Checkpoint:
    """A file for the state of a training, written every `minutes` minutes.

    `origin` identifies model, data and settings, by name; a state with another origin is not resumed.
    """

    def __init__(self, path: str, minutes: float, origin: dict[str, Any], writes: bool):
        self._path = Path(path)
        self._seconds = minutes * 60
        self._origin = origin
        self._writes = writes
        self._last = time.monotonic()

    def read(self) -> State | None:
        """The state to resume from; None if there is no file.

        Raises:
            SettingError: the file is not a checkpoint, or belongs to another job.
        """
        if not self._path.exists():
            return None
        try:
            state = torch.load(self._path, map_location="cpu", weights_only=True)
            origin = state["origin"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise SettingError(
                f"--resume cannot read {self._path} ({type(error).__name__}): give the file that --checkpoint wrote"
            ) from None
        changed = [name for name, value in self._origin.items() if origin.get(name) != value]
        if changed:
            raise SettingError(
                f"{self._path} belongs to a job with other {', '.join(changed)}: use the same ones, or remove --resume"
            )
        return state

    def write_if_due(self, state: Callable[[], State]) -> None:
        """Write the state if the last checkpoint is old enough."""
        if self._writes and time.monotonic() - self._last >= self._seconds:
            self.write(state())

    def write(self, state: State) -> None:
        """Replace the file by a checkpoint of this state.

        Raises:
            OutputError: it cannot be written.
        """
        if not self._writes:
            return
        try:
            with replacing(self._path, "wb") as file:
                torch.save(state | {"origin": self._origin}, file)
        except (OSError, RuntimeError) as error:
            reason = _cause(error)
            if reason is None:
                raise
            raise OutputError(
                f"--checkpoint {self._path} cannot be written: {reason.strerror}; give a file in an existing folder, "
                "with enough space on its disk"
            ) from error
        self._last = time.monotonic()


def _cause(error: BaseException | None) -> OSError | None:
    """The system's error: on a full disk, torch.save raises another one while it closes the file."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def digest(tensors: Iterable[torch.Tensor]) -> int:
    """A checksum of tensors (CRC-32 of their bytes)."""
    number = 0
    for tensor in tensors:
        array: Any = tensor.detach().cpu().contiguous().numpy()
        number = zlib.crc32(memoryview(array.reshape(-1)).cast("B"), number)
    return number
