"""Every setting of a pruning job, declared once: the flags of the command line and the keywords of `prune`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from onnxprune.errors import SettingError

SCOPES = ("layer", "global")
REGULARIZATIONS = ("l2", "l1", "none")
FORMATS = ("ops", "dense", "coo")
VALUES = ("fp32", "fp16", "int8")
EXTERNAL_DATA = ("auto", "always", "never")
TARGETS = ("portable", "auto", "none")
PATTERNS = ("unstructured", "4x1", "channel")
IMPORTANCES = ("l2", "l1", "taylor")


def _setting(default: Any, help: str, *, metavar: str | None = None, **extra: Any) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar, **extra})


@dataclass(frozen=True)
class PruneConfig:
    """Settings of one pruning job, checked when it is made.

    Raises:
        SettingError: a value is out of range, or two settings contradict each other.
    """

    rate: float | None = _setting(
        None, "Fraction of the weights to remove, in [0, 1).", metavar="R", aliases=("--sparsity",)
    )
    quality: float | None = _setting(
        None,
        "Instead of --rate: remove every weight below Q times its layer's standard deviation (Han et al. 2015).",
        metavar="Q",
    )
    scope: str = _setting(
        "layer", "Bring every layer to the rate, or find one threshold for all of them.", choices=SCOPES
    )
    pattern: str = _setting(
        "unstructured",
        "Cut single weights, blocks of 4 outputs at one input (4x1, for faster kernels), or whole channels and neurons "
        "with all that is coupled to them.",
        choices=PATTERNS,
    )
    importance: str = _setting(
        "l2",
        "What makes a channel matter: the L2 or L1 norm of all its weights, or, on labelled data, what the loss "
        "would change without them, to first order (taylor).",
        choices=IMPORTANCES,
    )
    round_to: int = _setting(1, "Leave a multiple of N channels in every layer that loses some.", metavar="N")
    min_channels: int = _setting(1, "Leave at least N channels in every layer.", metavar="N")
    exclude: tuple[str, ...] = _setting(
        (),
        "Leave these weights as they are: a node or initializer name, a glob, or re:PATTERN. Repeatable.",
        metavar="SELECTOR",
    )
    layer_rate: tuple[tuple[str, float], ...] = _setting(
        (),
        "Another rate for these weights, which then stand outside --rate. Repeatable.",
        metavar="SELECTOR=R",
    )
    data: Any = _setting(
        None,
        "Retrain on this: an .npz (arrays named as the inputs, plus 'labels' where there are any), IDX files "
        "(IMAGES or IMAGES,LABELS), or MODULE:FUNCTION that yields batches. Without it, pruning is one-shot.",
        metavar="DATA",
    )
    eval_data: Any = _setting(
        None,
        "Judge input and output model on this, once, at the end; it steers nothing.",
        metavar="DATA",
    )
    steps: int = _setting(
        10, "Prune this many times on the way to the rate, retraining in between.", metavar="N"
    )
    epochs: int = _setting(
        20, "Passes over the data in all: half of them on the way to the rate, half at it.", metavar="N"
    )
    batch_size: int = _setting(128, "Samples in a training step.", metavar="N")
    learning_rate: float = _setting(
        1e-3,
        "Peak learning rate of Adam; large pretrained models want a tenth of it.",
        metavar="LR",
        aliases=("--lr",),
    )
    regularization: str = _setting("l2", "Penalty on the weights while retraining.", choices=REGULARIZATIONS)
    weight_decay: float = _setting(1e-4, "Strength of the penalty.", metavar="S")
    distill: float | None = _setting(
        None,
        "Share of the loss that follows the input model's own outputs, in [0, 1]; the labels have the rest. "
        "Default: 0.5 with labels, 1 without.",
        metavar="SHARE",
    )
    temperature: float = _setting(2.0, "Softmax temperature of that share.", metavar="T")
    mixup: bool = _setting(True, "Train on mixtures of samples, where all inputs are floats.")
    seed: int = _setting(0, "Seed of everything random.", metavar="N")
    remove_dead: bool = _setting(True, "Remove neurons and channels that nothing reads or that read nothing.")
    format: str = _setting(
        "ops", "Form of the output: self-decoding sparse nodes, zeros in place, or ONNX COO.", choices=FORMATS
    )
    values: str = _setting(
        "fp32",
        "How sparse nodes store their values: as they are, or rounded to fp16, or to int8 with a scale for each "
        "output channel.",
        choices=VALUES,
    )
    # Portable: a measured choice would differ from run to run and hold for the machine that prunes, seldom the one
    # that runs; `onnxprune tune` measures there.
    target: str = _setting(
        "portable",
        "Which sparse nodes run by the sparse kernels, where the library is used: those estimated to gain, those "
        "measured to gain on this machine (auto), or all (none).",
        choices=TARGETS,
    )
    input_shape: tuple[tuple[str, tuple[int, ...]], ...] = _setting(
        (),
        "Choose for inputs of this shape, for example x:1,3,224,224; without it, for one sample as judged. Repeatable.",
        metavar="NAME:DIMS",
    )
    external_data: str = _setting(
        "auto",
        "Weights in OUT.onnx.data: where the input has such a file or one file would pass 2 GB, always, or never.",
        choices=EXTERNAL_DATA,
    )
    max_drop: float | None = _setting(
        None,
        "Refuse a result that is worse by more than this (0.005 or 0.5%): status 1, the target is left as it was.",
        metavar="DROP",
    )

    def __post_init__(self) -> None:
        self._normalise()
        if (self.rate is None) == (self.quality is None):
            raise SettingError(
                "give --rate R (the fraction to remove) or --quality Q (thresholds), "
                + ("one of them" if self.rate is None else "not both")
                + ": for example --rate 0.9"
            )
        if self.rate is not None:
            _check_rate("--rate", self.rate)
        for selector, rate in self.layer_rate:
            _check_rate(f"--layer-rate {selector}", rate)
        _check(
            self.quality is None or self.quality > 0, "--quality", self.quality, "above 0, for example 1.0"
        )
        _check(self.steps >= 1, "--steps", self.steps, "1 or more")
        _check(self.epochs >= 1, "--epochs", self.epochs, "1 or more")
        _check(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")
        _check(self.learning_rate > 0, "--learning-rate", self.learning_rate, "above 0, for example 1e-4")
        _check(self.weight_decay >= 0, "--weight-decay", self.weight_decay, "0 or more")
        _check(self.distill is None or 0 <= self.distill <= 1, "--distill", self.distill, "between 0 and 1")
        _check(self.temperature > 0, "--temperature", self.temperature, "above 0")
        _check(0 <= self.seed < 2**32, "--seed", self.seed, "between 0 and 4294967295")
        _check(self.max_drop is None or 0 <= self.max_drop < 1, "--max-drop", self.max_drop, "in [0, 1)")
        _check(self.round_to >= 1, "--round-to", self.round_to, "1 or more, for example 8")
        _check(self.min_channels >= 1, "--min-channels", self.min_channels, "1 or more")
        for setting in fields(self):
            choices = setting.metadata.get("choices")
            value = getattr(self, setting.name)
            if choices and value not in choices:
                raise SettingError(f"--{setting.name} is {value!r}: it must be one of {', '.join(choices)}")
        if self.values != "fp32" and self.format != "ops":
            raise SettingError(
                f"--values {self.values} is for sparse nodes: it goes with --format ops, not --format {self.format}"
            )
        if self.importance == "taylor" and self.data is None:
            raise SettingError(
                "--importance taylor takes gradients: give labelled --data, or --importance l2"
            )
        if self.pattern == "channel" and (
            self.quality is not None or self.layer_rate or not self.remove_dead
        ):
            raise SettingError(
                "--pattern channel removes channels at one --rate: it goes with neither --quality, --layer-rate "
                "nor --no-remove-dead; spare layers by --exclude"
            )

    def _normalise(self) -> None:
        """Bring what Python callers and the command line may write into the declared types."""
        for name in (
            "rate",
            "quality",
            "distill",
            "max_drop",
            "learning_rate",
            "weight_decay",
            "temperature",
        ):
            value = getattr(self, name)
            if value is not None:
                self._set(name, parse_fraction(f"--{name.replace('_', '-')}", value))
        for name in ("steps", "epochs", "batch_size", "seed", "round_to", "min_channels"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            _check(whole, f"--{name.replace('_', '-')}", repr(value), "a whole number")
        self._set("exclude", (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude))
        pairs = self.layer_rate.items() if isinstance(self.layer_rate, Mapping) else self.layer_rate
        pairs = [pairs] if isinstance(pairs, str) else pairs
        self._set("layer_rate", tuple(_layer_rate(pair) for pair in pairs))
        self._set("input_shape", tuple(input_shapes(self.input_shape).items()))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types; data that is not a path is named by its type."""
        settings = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return settings | {
            "exclude": list(self.exclude),
            "layer_rate": [list(pair) for pair in self.layer_rate],
            "input_shape": {name: list(shape) for name, shape in self.input_shape},
            "data": describe_source(self.data),
            "eval_data": describe_source(self.eval_data),
        }


def describe_source(source: Any) -> str | None:
    """A data source in words: its path, or the kind of Python object it is."""
    if source is None:
        return None
    return str(source) if isinstance(source, str | os.PathLike) else f"<{type(source).__name__}>"


def parse_fraction(name: str, value: Any) -> float:
    """A number, or a text such as "0.005" or "0.5%", as a float.

    Raises:
        SettingError: it is neither, or not finite.
    """
    text = str(value).strip()
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SettingError(f"{name} is {value!r}: give a number such as 0.9 or 90%")
    return number


def input_shapes(given: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by input name, from a mapping, pairs, or texts such as "x:1,3,224,224".

    Raises:
        SettingError: a text has no name, or its dims are no whole numbers.
    """
    if isinstance(given, str):
        given = (given,)
    pairs = given.items() if isinstance(given, Mapping) else map(_input_shape, given)
    return {str(name): tuple(int(dim) for dim in shape) for name, shape in pairs}


def _input_shape(pair: Any) -> tuple[str, tuple[int, ...]]:
    if not isinstance(pair, str):
        return pair
    # Names may hold colons themselves: tf2onnx writes input:0.
    name, separator, dims = pair.rpartition(":")
    numbers = [dim.strip() for dim in dims.split(",")] if dims else []
    if not separator or not name or not all(dim.isdecimal() and int(dim) > 0 for dim in numbers):
        raise SettingError(
            f"--input-shape {pair!r} is no name and dims: write NAME:DIMS, for example x:1,3,224,224"
        )
    return name, tuple(map(int, numbers))


def _layer_rate(pair: Any) -> tuple[str, float]:
    if isinstance(pair, str):
        selector, separator, rate = pair.rpartition("=")
        if not separator or not selector:
            raise SettingError(
                f"--layer-rate {pair!r} has no rate: write SELECTOR=RATE, for example 'fc*=0.95'"
            )
        pair = (selector, rate)
    selector, rate = pair
    return str(selector), parse_fraction(f"--layer-rate {selector}", rate)


def _check_rate(name: str, rate: float) -> None:
    _check(0 <= rate < 1, name, rate, "in [0, 1): the fraction of weights to remove, for example 0.9")


def _check(ok: bool, name: str, value: Any, mend: str) -> None:
    if not ok:
        raise SettingError(f"{name} is {value}: it must be {mend}")
