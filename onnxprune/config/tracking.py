"""Settings of experiment trackers, which show jobs while they run and beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from onnxprune.config.declare import Names, setting
from onnxprune.errors import SettingError

TENSORBOARD, MLFLOW = "tensorboard", "mlflow"
EXAMPLES = {TENSORBOARD: "tensorboard:runs", MLFLOW: "mlflow:http://localhost:5000"}


class TrackerPlace(NamedTuple):
    """A kind of tracker, and the folder or URI where it keeps its runs."""

    kind: str
    place: str


@dataclass(frozen=True)
class TrackingSettings:
    """Where the course of a job is logged."""

    heading = "Tracking"

    log_to: Names = setting(
        (),
        "Log stages, losses, metrics, rates and results while the job runs: for TensorBoard, a run in this folder, or "
        "for MLflow, in the experiment 'onnxprune' of this server. Repeatable.",
        metavar="tensorboard:FOLDER|mlflow:URI",
        trains=False,
        # A URI may hold a password.
        private=True,
    )

    @property
    def trackers(self) -> tuple[TrackerPlace, ...]:
        """The trackers of `log_to`.

        Raises:
            SettingError: one is unknown, or has no place.
        """
        given = (self.log_to,) if isinstance(self.log_to, str) else self.log_to
        return tuple(_trackers(given))


def _trackers(given: Sequence[str]) -> Iterator[TrackerPlace]:
    for text in given:
        kind, _, place = str(text).partition(":")
        if kind not in EXAMPLES or not place:
            # Not the text: it may hold a password.
            raise SettingError(f"--log-to is {kind}:...: give {' or '.join(EXAMPLES.values())}")
        yield TrackerPlace(kind, place)
