"""The state of a training on disk: written whole or not at all, read without running anything that it holds."""

from __future__ import annotations

import pickle
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from onnxprune.errors import OutputError, SettingError
from onnxprune.model.replace import replacing

State = dict[str, Any]


def best_module(path: Path) -> dict[str, torch.Tensor]:
    """The best state of the module, masks included, in a checkpoint of this tool's own."""
    return torch.load(path, map_location="cpu", weights_only=True)["best"][1]


class Checkpoint:
    """A file that the state of a training is written to every so many minutes.

    `origin` says what the training is made of, by name; a state of another origin is not gone on from.
    """

    def __init__(self, path: str, minutes: float, origin: dict[str, Any], writes: bool):
        self._path = Path(path)
        self._seconds = minutes * 60
        self._origin = origin
        self._writes = writes
        self._last = time.monotonic()

    def read(self) -> State | None:
        """The state to go on from; None where there is no file.

        Raises:
            SettingError: it is no checkpoint, or one of another job.
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
                f"{self._path} belongs to a job with other {', '.join(changed)}: "
                "repeat that job's settings, or drop --resume"
            )
        return state

    def write_if_due(self, state: Callable[[], State]) -> None:
        """Write the state where the last one is old enough."""
        if self._writes and time.monotonic() - self._last >= self._seconds:
            self.write(state())

    def write(self, state: State) -> None:
        """Replace the file by one of this state.

        Raises:
            OutputError: it cannot be written.
        """
        if not self._writes:
            return
        try:
            with replacing(self._path, "wb") as file:
                torch.save(state | {"origin": self._origin}, file)
        except OSError as error:
            raise OutputError(
                f"--checkpoint {self._path} cannot be written: {error.strerror}; name a file in a folder that exists"
            ) from error
        self._last = time.monotonic()


def digest(tensors: Iterable[torch.Tensor]) -> int:
    """A number that tells one list of tensors from another (CRC-32 of their bytes)."""
    number = 0
    for tensor in tensors:
        array: Any = tensor.detach().cpu().contiguous().numpy()
        number = zlib.crc32(memoryview(array.reshape(-1)).cast("B"), number)
    return number
