"""Presets for where the model will run: settings that suit it, for those that the user left open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.config.declare import find_entry, setting
from onnxprune.config.quantization import QDQ
from onnxprune.errors import SettingError

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """What suits a target: settings that belong together, group by group.

    `with_inputs`: those that need inputs to run on; `quantized`: those of a model that is quantized.

    A group whose first setting is given by the user, or by an earlier group, is left out.
    """

    help: str
    groups: tuple[Settings, ...]
    with_inputs: tuple[Settings, ...] = ()
    quantized: tuple[Settings, ...] = ()
    shows_memory: bool = False
    """Whether the summary has the memory that the model needs."""

    def groups_for(self, *, inputs: bool, quantizes: bool) -> tuple[Settings, ...]:
        """The groups for a job, in the order in which they are chosen."""
        return self.groups + self.with_inputs * inputs + self.quantized * quantizes


DENSE = {"format": "dense"}
CHANNELS = {"pattern": "channel", "round_to": 8}
# Other runtimes do not know the integer operators of onnxruntime.
PAIRS = {"quantize_form": QDQ}
# Other runtimes compute with zeros as with any other weight, so that whole channels go.
PRESETS: Mapping[str, Preset] = {
    "onnxruntime-cpu": Preset("sparse nodes, for the sparse kernels", ({"format": "ops"},)),
    "browser": Preset(
        "sparse nodes with fp16 values: the smallest download", ({"format": "ops"}, {"values": "fp16"})
    ),
    "raspberry-pi": Preset("whole channels, for stock onnxruntime on ARM", (CHANNELS, {"format": "ops"})),
    "openvino": Preset("whole channels, no functions", (DENSE, CHANNELS), quantized=(PAIRS,)),
    "tensorrt": Preset(
        "2:4, or whole channels at other rates; fixed shapes, no functions",
        (DENSE, {"pattern": "2:4"}, CHANNELS, {"static": True}),
        quantized=(PAIRS, {"quantize_activations": "int8"}),
    ),
    "mnn": Preset("zeros in place, which its converter finds", (DENSE,)),
    "ncnn": Preset(
        "whole channels, fixed shapes, no functions", (DENSE, CHANNELS, {"static": True}), quantized=(PAIRS,)
    ),
    "mcu": Preset(
        "whole channels, fixed shapes, no functions, int8 where there are inputs; the summary has flash and memory",
        (DENSE, CHANNELS | {"round_to": 4}, {"static": True}),
        with_inputs=({"quantize": "int8"},),
        quantized=(PAIRS,),
        shows_memory=True,
    ),
}


@dataclass(frozen=True)
class TargetSettings:
    """Where the model will run."""

    heading = "Target"

    target: str | None = setting(
        None,
        "Choose what is left open to suit where the model will run; the summary says what was chosen.",
        aliases=("--for",),
        table="targets",
        trains=False,
        common="Choose what is left open to suit where the model will run",
    )


def with_preset(given: Settings, check: Callable[..., Any]) -> dict[str, Any]:
    """The settings with those of the preset that `target` names, where they are not given.

    Left out is what contradicts the given ones: `check(**settings)` raises SettingError then.

    Raises:
        SettingError: there is no such preset, or the given settings contradict each other.
    """
    settings = dict(given)
    if given.get("target") is None:
        return settings
    preset = find_preset(given["target"])
    check(**settings)
    inputs = given.get("data") is not None or given.get("calibration_data") is not None
    for group in preset.groups_for(inputs=inputs, quantizes=True):
        if next(iter(group)) in settings:
            continue
        tried = dict(group) | settings
        try:
            check(**tried)
        except SettingError:
            continue
        settings = tried
    return settings


def find_preset(name: str) -> Preset:
    """The entry of a name; raises SettingError where there is none."""
    return find_entry("--for", PRESETS, name)


def preset_note(settings: Any) -> str:
    """What the preset of a job chose, as flags, and what it left out; empty without one."""
    if settings.target is None:
        return ""
    preset = find_preset(settings.target)
    chosen: dict[str, Any] = {}
    left: dict[str, Any] = {}
    for group in preset.groups_for(inputs=True, quantizes=settings.quantizes):
        first = next(iter(group))
        for name, value in {} if first in chosen else group.items():
            (chosen if getattr(settings, name) == value else left)[name] = value
    left = {name: value for name, value in left.items() if name not in chosen}
    text = f"For {settings.target}: {_flags(chosen) or 'the defaults'}"
    if not left:
        return f"{text}."
    needed = {name for group in preset.with_inputs for name in group}
    inputs = " (--quantize needs --data or --calibration-data)" if needed & left.keys() else ""
    return f"{text}; not {_flags(left)}, because of the other settings{inputs}."


def _flags(settings: Settings) -> str:
    flags = ((f"--{name.replace('_', '-')}", value) for name, value in settings.items())
    return " ".join(flag if value is True else f"{flag} {value}" for flag, value in flags)
