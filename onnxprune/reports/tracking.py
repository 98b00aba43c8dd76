"""The course of a job in TensorBoard and MLflow, by their own writers: stages, evaluations, and the result.

A tracker that fails during the job ends with a warning, and the job goes on.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from onnxprune.config.settings import PRIVATE, PruneConfig
from onnxprune.config.tracking import MLFLOW, TENSORBOARD, TrackerPlace
from onnxprune.errors import OnnxPruneError, OutputError, first_line
from onnxprune.reports.publishing import published
from onnxprune.reports.record import Report
from onnxprune.system.packages import require_package
from onnxprune.system.processes import is_first_process
from onnxprune.system.progress import StageProgress

LOG = logging.getLogger("onnxprune")
# Evaluations of a training, each with the fields of `training.validation.Epoch` as `evaluation`.
EPOCHS = logging.getLogger("onnxprune.epochs")
EXPERIMENT = "onnxprune"
# Short trainings that choose settings are no part of the result.
REHEARSAL = "try settings"
# The stages of a trial of a search: "trial 3, rate 75.00%: prune".
TRIAL = re.compile(r"(trial \d+)\b.*: ")
# What names in MLflow may not have.
FORBIDDEN = re.compile(r"[^\w\-. /]")
# What names of runs, which are folders, are better without.
UNSAFE = re.compile(r"[^\w\-. =]")
# MLflow's own settings let a job wait many minutes for a server that is not there. Those of the user stay.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class Writer(Protocol):
    """Writes one run to a tracker."""

    def number(self, name: str, value: float, step: int) -> None: ...
    def settings(self, values: Mapping[str, str]) -> None: ...
    def stage(self, name: str, step: int) -> None: ...
    def close(self, finished: bool) -> None: ...


class TensorBoard:
    """A run in a folder of its own, so that runs are shown beside each other."""

    def __init__(self, place: str, name: str):
        for module in ("torch", "tensorboard"):
            require_package(module, f"--log-to {TENSORBOARD}")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(Path(place) / name))

    def number(self, name: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._writer.add_scalar(name, value, step)

    def settings(self, values: Mapping[str, str]) -> None:
        """A table of the settings."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def stage(self, name: str, step: int) -> None:
        """The stage that begins."""
        self._writer.add_text("stage", name, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        """Write what is left."""
        self._writer.close()


class MLflow:
    """A run of an experiment on a server, or in what else MLflow has a store for."""

    def __init__(self, place: str, name: str):
        require_package("mlflow", f"--log-to {MLFLOW}")
        from mlflow.tracking import MlflowClient

        for setting, value in PATIENCE.items():
            os.environ.setdefault(setting, value)
        self._client = MlflowClient(tracking_uri=place)
        known = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = self._client.create_experiment(EXPERIMENT) if known is None else known.experiment_id
        self._run = self._client.create_run(experiment, run_name=name).info.run_id

    def number(self, name: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._client.log_metric(self._run, FORBIDDEN.sub("_", name), value, step=step)

    def settings(self, values: Mapping[str, str]) -> None:
        """The parameters of the run."""
        for name, value in values.items():
            self._client.log_param(self._run, name, value)

    def stage(self, name: str, step: int) -> None:
        """The stage that begins, as a tag."""
        self._client.set_tag(self._run, "stage", name)

    def close(self, finished: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")


WRITERS: Mapping[str, Callable[[str, str], Writer]] = {TENSORBOARD: TensorBoard, MLFLOW: MLflow}


@contextmanager
def tracked(config: PruneConfig, title: str, progress: StageProgress) -> Iterator[Tracking]:
    """Log a job to the trackers of its settings while the block runs; its run has the title and the time as a name.

    Raises:
        MissingPackageError: one of them is not installed.
        OutputError: one of them cannot be written.
    """
    name = f"{UNSAFE.sub('_', title)}-{time.strftime('%Y%m%d-%H%M%S')}"
    places = config.trackers if is_first_process() else ()
    tracking = Tracking([_opened(each, name) for each in places], progress)
    level = EPOCHS.level
    if places:
        EPOCHS.addHandler(tracking)
        # Whether or not somebody else listens.
        EPOCHS.setLevel(logging.INFO)
    tracking.write(lambda writer: writer.settings(_settings(config)))
    finished = False
    try:
        yield tracking
        finished = True
    finally:
        EPOCHS.removeHandler(tracking)
        EPOCHS.setLevel(level)
        tracking.write(lambda writer: writer.close(finished))


def title_of(output: Path | None) -> str:
    """The title of a job that writes this file, or none."""
    return "model" if output is None else output.stem


def _opened(tracker: TrackerPlace, name: str) -> Writer:
    try:
        return WRITERS[tracker.kind](tracker.place, name)
    except OnnxPruneError:
        raise
    except Exception as error:  # trackers have no common exceptions
        raise OutputError(
            f"--log-to {tracker.kind} cannot be written: {first_line(error)}; check the place behind the colon"
        ) from error


def _settings(config: PruneConfig) -> dict[str, str]:
    """Those of the job that are not private, of paths the names of the files: others read what trackers have."""
    kept = published({"settings": config.to_dict()})["settings"]
    given = {name: value for name, value in kept.items() if name not in PRIVATE}
    return {name: str(value) for name, value in given.items() if value not in (None, [])}


class Tracking(logging.Handler):
    """What happens in a job, for its writers: `progress` is called with its stages."""

    def __init__(self, writers: Sequence[Writer], progress: StageProgress):
        super().__init__()
        self._writers = list(writers)
        self._progress = progress
        self._stage = ""
        self._stages = 0

    def progress(self, stage: str, fraction: float) -> None:
        """Note the stage of the job, and pass it on."""
        if stage != self._stage:
            self._stage, self._stages = stage, self._stages + 1
            self.write(lambda writer: writer.stage(stage, self._stages))
        self._progress(stage, fraction)

    def emit(self, record: logging.LogRecord) -> None:
        """Log an evaluation on validation data."""
        found: Mapping[str, Any] | None = getattr(record, "evaluation", None)
        if found is None or self._stage.endswith(REHEARSAL):
            return
        trial = TRIAL.match(self._stage)
        group = f"{trial[1]}/" if trial else ""
        numbers = {
            "training loss": found["training_loss"],
            "validation loss": found["loss"],
            f"validation {found['metric']}": found["score"],
            "rate": found["rate"],
            "epoch": found["epoch"],
        }
        for name, value in numbers.items():
            if value is not None:
                self._number(f"{group}{name}", value, found["update"])

    def finish(self, report: Report) -> None:
        """Log the result: of each layer its rate, sizes and scores of both models, and the seconds of each stage."""
        for name, value in results(report).items():
            self._number(name, value, 0)
        for number, trial in enumerate(report.trials):
            for name in ("rate", "value", "drop", "size"):
                self._number(f"trials/{name}", trial[name], number)

    def _number(self, name: str, value: float, step: int) -> None:
        self.write(lambda writer: writer.number(name, float(value), step))

    def write(self, action: Callable[[Writer], None]) -> None:
        """Do something with each writer; one that fails gets nothing more."""
        for writer in list(self._writers):
            try:
                action(writer)
            except Exception as error:  # a server that is gone must not end a job of hours
                self._writers.remove(writer)
                LOG.warning("--log-to %s ends here: %s.", type(writer).__name__, first_line(error))


def results(report: Report) -> dict[str, float]:
    """The final figures of a job, by names that group them."""
    kept, size = (sum(getattr(layer, name) for layer in report.layers) for name in ("kept", "size"))
    found: dict[str, float] = {"result/rate": 1 - kept / max(size, 1)}
    for model in ("baseline", "pruned"):
        record = getattr(report, model)
        for name in ("bytes", "parameters", "nonzero", "multiply_adds", "nonzero_multiply_adds"):
            found[f"{model}/{name}"] = getattr(record, name)
    evaluation = report.evaluation or {}
    for scores in evaluation.get("scores", ()):
        for model in ("baseline", "pruned"):
            found[f"{model}/{scores[model]['name']}"] = scores[model]["value"]
    for output in evaluation.get("outputs", ()):
        found[f"result/cosine of {output['output']}"] = output["cosine"]
    found |= {f"rates/{layer.name}": layer.rate for layer in report.layers}
    return found | {f"seconds/{stage}": seconds for stage, seconds in report.seconds.items()}
