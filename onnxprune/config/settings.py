"""The settings of a job, made of parts; their fields are the flags of the command line and the keywords of `prune`."""

from __future__ import annotations

import os
from dataclasses import Field, dataclass, fields
from typing import Any

from onnxprune.config.checks import check_numbers, parse_bytes, parse_time
from onnxprune.config.conflicts import conflicts
from onnxprune.config.data import DataSettings
from onnxprune.config.declare import AUTO, describe_source, setting
from onnxprune.config.evaluation import EvaluationSettings
from onnxprune.config.model import ModelSettings
from onnxprune.config.output import KernelSettings, OutputSettings
from onnxprune.config.presets import TargetSettings, find_preset, with_preset
from onnxprune.config.pruning import AMOUNTS, CalibrationSettings, PruningSettings
from onnxprune.config.quantization import QuantizationSettings
from onnxprune.config.tracking import TrackingSettings
from onnxprune.config.training import (
    LOSSES,
    CheckpointSettings,
    FineTuneSettings,
    LossSettings,
    ScheduleSettings,
    TrainingSettings,
)
from onnxprune.config.workers import WorkerSettings, parse_workers
from onnxprune.errors import SettingError
from onnxprune.system.trust import texts

# In the order of the help.
PARTS: tuple[type, ...] = (
    PruningSettings,
    TargetSettings,
    CalibrationSettings,
    DataSettings,
    EvaluationSettings,
    ScheduleSettings,
    TrainingSettings,
    LossSettings,
    CheckpointSettings,
    OutputSettings,
    QuantizationSettings,
    KernelSettings,
    ModelSettings,
    WorkerSettings,
    TrackingSettings,
)
DATA_SOURCES = ("data", "validation_data", "eval_data", "old_data", "calibration_data")


# Fields come in the order of the last base first.
@dataclass(frozen=True)
class RetrainSettings(
    TrackingSettings,
    ModelSettings,
    KernelSettings,
    OutputSettings,
    FineTuneSettings,
    EvaluationSettings,
    DataSettings,
):
    """The settings of `retrain`: those of `prune` but for what the pruned model fixes."""

    regrow: bool = setting(
        False,
        "Let removed weights return if they grow large; as many others of the layer are removed instead.",
    )


@dataclass(frozen=True)
class PruneConfig(
    TrackingSettings,
    TargetSettings,
    WorkerSettings,
    ModelSettings,
    KernelSettings,
    QuantizationSettings,
    OutputSettings,
    FineTuneSettings,
    ScheduleSettings,
    EvaluationSettings,
    DataSettings,
    CalibrationSettings,
    PruningSettings,
):
    """The settings of one pruning job, checked when it is made.

    Functions declare the part that they read, for example `PruningSettings`.

    Raises:
        SettingError: a value is out of range, or two settings contradict each other.
    """

    def __post_init__(self) -> None:
        check_numbers(self)
        self._normalize()
        if self.target is not None:
            find_preset(self.target)
        given = sum(getattr(self, name) is not None for name in AMOUNTS)
        if given > 1 or (not given and self.max_drop is None and self.max_loss is None):
            raise SettingError(
                "give exactly one of --rate R, --std-threshold Q, --flops SHARE, --latency SHARE and --bytes "
                "SIZE, for example --rate 0.9; or only --max-drop DROP or --max-loss LOSS, to search for the highest "
                "rate"
            )
        for each in fields(self):
            choices = each.metadata.get("choices")
            value = getattr(self, each.name)
            if choices and value not in choices:
                raise SettingError(f"{flag_of(each)} is {value!r}: it must be one of {', '.join(choices)}")
        if self.loss not in LOSSES and ":" not in self.loss:
            raise SettingError(f"--loss is {self.loss!r}: it must be {', '.join(LOSSES)} or MODULE:FUNCTION")
        for message in conflicts(self, self, self, self, self, self, self, self, self, self, self, self):
            raise SettingError(message)

    def _normalize(self) -> None:
        """Convert the forms that callers may use to one form."""
        for name in ("exclude", "include", "quantize_exclude", "distill_features"):
            value = getattr(self, name)
            self._set(name, (value,) if isinstance(value, str) else tuple(value))
        for name in ("allow_links", "custom_ops"):
            self._set(name, texts(getattr(self, name)))
        for name in ("checkpoint", "frontier"):
            if getattr(self, name) is not None:
                self._set(name, os.fspath(getattr(self, name)))
        self._set("metric", self.metrics)
        self._set("log_to", tuple(f"{kind}:{place}" for kind, place in self.trackers))
        self._set("workers", str(parse_workers(self.workers)))
        self._set("layer_rate", self.layer_rates)
        self._set("dropout", self.dropouts)
        self._set("input_shape", tuple(self.input_shapes.items()))
        self._set("batch_axis", tuple(self.batch_axes.items()))
        if self.time is not None:
            self._set("time", f"{parse_time('--time', self.time):g}s")
        if self.augment == AUTO:
            self._set("augment", None)
        if self.bytes is not None:
            self._set("bytes", parse_bytes("--bytes", self.bytes))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def runs_model(self) -> bool:
        """Whether the job runs the model in onnxruntime."""
        return self.evaluate or self.data is not None or self.calibration_data is not None

    def training(self) -> dict[str, Any]:
        """The settings that affect the weights of the result, as JSON types."""
        settings = self.to_dict()
        return {each.name: settings[each.name] for each in fields(self) if each.metadata.get("trains", True)}

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types; a data source that is not a path is named by its type."""
        settings = {each.name: getattr(self, each.name) for each in fields(self)}
        return settings | {
            "exclude": list(self.exclude),
            "quantize_exclude": list(self.quantize_exclude),
            "include": list(self.include),
            "metric": list(self.metrics),
            "log_to": list(self.log_to),
            "layer_rate": [list(pair) for pair in self.layer_rates],
            "input_shape": [
                f"{name}:{','.join(map(str, shape))}" for name, shape in self.input_shapes.items()
            ],
            "batch_axis": [
                f"{name}:{'none' if axis is None else axis}" for name, axis in self.batch_axes.items()
            ],
            "dropout": [list(pair) for pair in self.dropouts],
            "distill_features": list(self.distill_features),
            "allow_links": list(texts(self.allow_links)),
            "custom_ops": list(texts(self.custom_ops)),
            **{name: describe_source(settings[name]) for name in DATA_SOURCES},
        }


def job_settings(**given: Any) -> PruneConfig:
    """The settings of a job: those that are given, and those of the preset that `target` names.

    Raises:
        SettingError: a value is out of range, or two settings contradict each other.
    """
    return PruneConfig(**with_preset(given, PruneConfig))


PRIVATE = frozenset(each.name for each in fields(PruneConfig) if each.metadata.get("private"))
"""The settings that stay with the user: they are in a recipe, and in nothing that is published."""

PATH_SETTINGS = tuple(
    each.name
    for each in fields(PruneConfig)
    if any(kind in str(each.type) for kind in ("PathLike", "Paths", "DataSource"))
)
"""The settings that hold paths, by the types that they are declared with."""


def flag_of(field: Field[Any]) -> str:
    """The flag of a setting: --kebab-case."""
    return f"--{field.name.replace('_', '-')}"
