"""Every setting of a pruning job, declared once: the flags of the command line and the keywords of `prune`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from onnxprune.config.checks import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    FRACTION,
    PART,
    SHARE,
    Range,
    check_numbers,
    check_range,
    input_shapes,
    parse_bytes,
    parse_pair,
)
from onnxprune.config.conflicts import conflicts
from onnxprune.errors import SettingError

SCOPES = ("layer", "output", "global", "std", "erk", "sensitivity")
REGULARIZATIONS = ("l2", "l1", "none")
# Exactly one of them says how much goes.
AMOUNTS = ("rate", "quality", "flops", "bytes")
FORMATS = ("ops", "dense", "coo")
VALUES = ("fp32", "fp16", "int8")
EXTERNAL_DATA = ("auto", "always", "never")
TARGETS = ("portable", "auto", "none")
PATTERNS = ("unstructured", "4x1", "2:4", "channel")
CRITERIA = ("magnitude", "wanda", "second-order")
# Settings that need inputs to measure on.
CALIBRATED = ("criterion", "refit", "bias_correction", "restore_norms")
IMPORTANCES = ("l2", "l1", "taylor")
SELECTIONS = ("threshold", "probability")
SCHEDULES = ("one-shot", "iterative", "gradual", "splice")
OPTIMIZERS = ("adam", "adamw", "sgd")
LEARNING_RATE_SCHEDULES = ("cosine", "step", "constant")
BATCH_NORMS = ("frozen", "re-estimate", "train")
DISTILL_LOSSES = ("auto", "kl", "mse", "cosine")
LOSSES = ("auto", "cross-entropy", "mse", "l1", "huber", "cosine", "dice")
PRECISIONS = ("float32", "bfloat16")

RATE = Range(lambda value: 0 <= value < 1, "in [0, 1): the fraction of weights to remove, for example 0.9")
SEED = Range(lambda value: 0 <= value < 2**32, "between 0 and 4294967295")


def _setting(default: Any, help: str, *, metavar: str | None = None, **extra: Any) -> Any:
    """A field with what the command line shows of it.

    `within`: the range that a number must be in; `choices`: the texts allowed, `synonyms`: other words for some of
    them; `group`: the heading of the help that begins with this setting; `trains=False`: the setting does not change
    the weights that come out.
    """
    return field(default=default, metadata={"help": help, "metavar": metavar, **extra})


@dataclass(frozen=True)
class PruneConfig:
    """Settings of one pruning job, checked when it is made.

    Raises:
        SettingError: a value is out of range, or two settings contradict each other.
    """

    rate: float | None = _setting(
        None,
        "Fraction of the weights to remove, in [0, 1).",
        metavar="R",
        aliases=("--sparsity",),
        within=RATE,
        group="What goes",
    )
    quality: float | None = _setting(
        None,
        "Instead of --rate: remove every weight below Q times its layer's standard deviation (Han et al. 2015).",
        metavar="Q",
        within=ABOVE_0,
    )
    flops: float | None = _setting(
        None,
        "Instead of --rate: the share of the model's multiply-adds to leave, zeros not counted (0.2 or 20%).",
        metavar="SHARE",
        within=SHARE,
    )
    bytes: str | int | None = _setting(
        None,
        "Instead of --rate: the most bytes that the file may have, for example 500k or 1.5MB; it comes to within 2% "
        "below, or a little off that where it is retrained.",
        metavar="SIZE",
    )
    scope: str = _setting(
        "layer",
        "Bring every layer to the rate (layer, or uniform), or every output of every layer (output: better where "
        "nothing is retrained); find one threshold for all layers (global), in units of each layer's standard "
        "deviation (std); spare layers of few connections (erk), or those whose pruning moves the outputs most, "
        "measured on data (sensitivity).",
        choices=SCOPES,
        synonyms={"uniform": "layer"},
        aliases=("--allocate",),
    )
    pattern: str = _setting(
        "unstructured",
        "Cut single weights, blocks of 4 outputs at one input (4x1, for faster kernels), two of every four neighbours "
        "along the inputs (2:4), or whole channels and neurons "
        "with all that is coupled to them.",
        choices=PATTERNS,
    )
    criterion: str = _setting(
        "magnitude",
        "What makes a weight matter: its size; that times the norm of what it multiplies (wanda); or what the layer's "
        "outputs lose without it when the others make up for it (second-order, which changes those others).",
        choices=CRITERIA,
    )
    refit: bool = _setting(
        False, "Fit what is left of each layer to the outputs that the layer gave before, by least squares."
    )
    bias_correction: bool = _setting(
        False, "Shift biases so that the means of the layers' outputs stay as they were."
    )
    restore_norms: bool = _setting(
        False, "Move the statistics of BatchNormalization as pruning moves those of its inputs."
    )
    calibration_data: Any = _setting(
        None,
        "Inputs for --criterion, --refit and the repairs: as --data, but nothing is retrained on them. "
        "Default: those of --data. As there, 'synthetic' makes some up from the model.",
        metavar="DATA",
    )
    calibration_samples: int = _setting(512, "Use this many of them at most.", metavar="N", within=AT_LEAST_1)
    importance: str = _setting(
        "l2",
        "What makes a channel matter: the L2 or L1 norm of all its weights, or, on labelled data, what the loss "
        "would change without them, to first order (taylor).",
        choices=IMPORTANCES,
    )
    selection: str = _setting(
        "threshold",
        "Cut the smallest weights, or, to compare, draw them with a probability that falls with their size.",
        choices=SELECTIONS,
    )
    round_to: int = _setting(
        1, "Leave a multiple of N channels in every layer that loses some.", metavar="N", within=AT_LEAST_1
    )
    min_channels: int = _setting(
        1, "Leave at least N channels in every layer.", metavar="N", within=AT_LEAST_1
    )
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
        "(IMAGES or IMAGES,LABELS), MODULE:FUNCTION that yields batches, or 'synthetic': inputs made up from the "
        "model. Without it, pruning is one-shot.",
        metavar="DATA",
        group="Data",
    )
    held_out: float = _setting(
        0.1,
        "Share of --data that is not trained on but picks the best state; at least one sample.",
        metavar="SHARE",
        within=PART,
    )
    held_out_data: Any = _setting(
        None,
        "Samples for that instead, as --data: best are those that the input model was not trained on either.",
        metavar="DATA",
    )
    eval_data: Any = _setting(
        None,
        "Judge input and output model on this, once, at the end; it steers nothing.",
        metavar="DATA",
        trains=False,
    )
    old_data: Any = _setting(
        None,
        "Judge both models on this as well: the data from before, where --data is new.",
        metavar="DATA",
        trains=False,
    )
    schedule: str = _setting(
        "iterative",
        "The way to the rate: at once; in steps with retraining in between; a little at every so many updates, "
        "fast at first (gradual); or so that weights come back when they grow (splice).",
        choices=SCHEDULES,
        group="When it goes",
    )
    steps: int | None = _setting(
        None,
        "Prune this many times on the way to the rate.  [default: 10 when iterative, else 100]",
        metavar="N",
        within=AT_LEAST_1,
    )
    approach: float = _setting(
        0.5,
        "Share of the training on the way to the rate; the rest is retraining at it.",
        metavar="SHARE",
        within=FRACTION,
    )
    regrow: bool = _setting(
        False, "Let connections that the input model lost before come back as well (splice only)."
    )
    alternate: bool = _setting(
        False, "Prune and retrain convolutions and other layers in turns, the others fixed (iterative only)."
    )
    epochs: int = _setting(
        20, "Passes over the data in all.", metavar="N", within=AT_LEAST_1, group="Retraining"
    )
    batch_size: int = _setting(
        128, "Samples in a training step, of all processes together.", metavar="N", within=AT_LEAST_1
    )
    optimizer: str = _setting("adam", "What updates the weights.", choices=OPTIMIZERS)
    learning_rate: float = _setting(
        1e-3,
        "Peak learning rate; with Adam, large pretrained models want a tenth of it.",
        metavar="LR",
        aliases=("--lr",),
        within=ABOVE_0,
    )
    learning_rate_schedule: str = _setting(
        "cosine",
        "How the learning rate falls after the warm-up: along half a cosine to zero, to a tenth after a half and "
        "three quarters of the training, or not.",
        choices=LEARNING_RATE_SCHEDULES,
    )
    warmup: int = _setting(
        100, "Updates over which the learning rate rises from zero.", metavar="N", within=AT_LEAST_0
    )
    momentum: float = _setting(0.9, "Momentum of SGD.", metavar="M", within=FRACTION)
    clip_norm: float | None = _setting(
        None, "Scale gradients down to this norm where they exceed it.", metavar="NORM", within=ABOVE_0
    )
    regularization: str = _setting(
        "l2", "Penalty on the weights while retraining; biases and norms go free.", choices=REGULARIZATIONS
    )
    weight_decay: float = _setting(1e-4, "Strength of the penalty.", metavar="S", within=AT_LEAST_0)
    batch_norm: str = _setting(
        "frozen",
        "BatchNormalization's statistics: as they are, measured anew on the data for the pruned model, or as "
        "in training, from each batch.",
        choices=BATCH_NORMS,
    )
    dropout: tuple[tuple[str, float], ...] = _setting(
        (),
        "Dropout after these layers while retraining, which falls as their connections go. Repeatable.",
        metavar="SELECTOR=RATIO",
    )
    mixup: bool = _setting(True, "Train on mixtures of samples, where all inputs are floats.")
    device: str = _setting("cpu", "Where to retrain: cpu, cuda, or cuda:N.", metavar="DEVICE")
    precision: str = _setting(
        "float32", "What matrix products are computed in while retraining.", choices=PRECISIONS
    )
    seed: int = _setting(0, "Seed of everything random.", metavar="N", within=SEED)
    loss: str = _setting(
        "auto",
        "Distance from the labels: cross-entropy for class numbers (also per pixel), squared error for others "
        f"(auto), one of {', '.join(LOSSES[1:])}, or MODULE:FUNCTION of (outputs, labels).",
        metavar="LOSS",
        group="What is learned",
    )
    label_smoothing: float = _setting(
        0.0, "Share of the cross-entropy that goes to all classes alike.", metavar="SHARE", within=FRACTION
    )
    distill: float | None = _setting(
        None,
        "Share of the loss that follows the input model's own outputs, in [0, 1]; the labels have the rest. "
        "Default: 0.5 with labels, 1 without.",
        metavar="SHARE",
        within=SHARE,
    )
    distill_loss: str = _setting(
        "auto",
        "Distance from those outputs: divergence of the softened softmax (kl), squared error over their variance, "
        "or angle; auto: kl for outputs [N, C], else mse.",
        choices=DISTILL_LOSSES,
    )
    temperature: float = _setting(2.0, "Softmax temperature of kl.", metavar="T", within=ABOVE_0)
    distill_values: tuple[str, ...] = _setting(
        (),
        "Follow these values inside of the input model too: a name, a glob, or re:PATTERN. Repeatable.",
        metavar="SELECTOR",
    )
    checkpoint: str | None = _setting(
        None,
        "Write the state of the training here as it goes on.",
        metavar="FILE",
        group="Interruptions",
        trains=False,
    )
    checkpoint_minutes: float = _setting(
        10.0, "Minutes from one checkpoint to the next.", metavar="N", within=AT_LEAST_0, trains=False
    )
    resume: bool = _setting(
        False,
        "Go on from --checkpoint, if it is there, to the result that an undisturbed run would have had.",
        trains=False,
    )
    remove_dead: bool = _setting(
        True,
        "Remove neurons and channels that nothing reads or that read nothing.",
        group="What comes out",
        trains=False,
    )
    format: str = _setting(
        "ops",
        "Form of the output: self-decoding sparse nodes, zeros in place, or ONNX COO.",
        choices=FORMATS,
        trains=False,
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
        "Choose for inputs of this shape, for example x:1,3,224,224, and make up such where there are none; without "
        "it, for one sample as judged. Repeatable.",
        metavar="NAME:DIMS",
    )
    external_data: str = _setting(
        "auto",
        "Weights in OUT.onnx.data: where the input has such a file or one file would pass 2 GB, always, or never.",
        choices=EXTERNAL_DATA,
    )
    max_drop: float | None = _setting(
        None,
        "Refuse a result that is worse by more than this (0.005 or 0.5%): status 1, the target is left as it was. "
        "Without --rate or --quality: search for the highest rate that held-out data allow.",
        metavar="DROP",
        within=FRACTION,
        trains=False,
    )
    frontier: str | None = _setting(
        None,
        "Folder for the trials of a search, for --resume and `onnxprune pick`.  [default: OUT.onnx.frontier]",
        metavar="FOLDER",
        trains=False,
    )

    def __post_init__(self) -> None:
        check_numbers(self)
        self._normalise()
        given = sum(getattr(self, name) is not None for name in AMOUNTS)
        if given > 1 or (not given and self.max_drop is None):
            raise SettingError(
                "give one of --rate R (the fraction to remove), --quality Q (thresholds), --flops SHARE and "
                "--bytes SIZE (what to leave), or --max-drop DROP alone to search for the highest rate: "
                "for example --rate 0.9"
            )
        for setting in fields(self):
            choices = setting.metadata.get("choices")
            value = getattr(self, setting.name)
            if choices and value not in choices:
                flag = setting.name.replace("_", "-")
                raise SettingError(f"--{flag} is {value!r}: it must be one of {', '.join(choices)}")
        if self.loss not in LOSSES and ":" not in self.loss:
            raise SettingError(f"--loss is {self.loss!r}: it must be {', '.join(LOSSES)} or MODULE:FUNCTION")
        for conflict, mend in conflicts(self):
            if conflict:
                raise SettingError(mend)

    @property
    def searches(self) -> bool:
        """Whether the rate is to be found."""
        return all(getattr(self, name) is None for name in AMOUNTS)

    @property
    def amount(self) -> str:
        """The flag that says how much goes."""
        name = next(name for name in AMOUNTS if getattr(self, name) is not None)
        return f"--{name} {getattr(self, name):g}"

    @property
    def calibrated(self) -> bool:
        """Whether the job measures what the layers read."""
        return any(getattr(self, name) not in ("magnitude", False) for name in CALIBRATED)

    def _normalise(self) -> None:
        """Bring what Python callers and the command line may write into the declared types."""
        for name in ("exclude", "distill_values"):
            value = getattr(self, name)
            self._set(name, (value,) if isinstance(value, str) else tuple(value))
        for name in ("checkpoint", "frontier"):
            if getattr(self, name) is not None:
                self._set(name, os.fspath(getattr(self, name)))
        for name, example in (("layer_rate", "'fc*=0.95'"), ("dropout", "'fc*=0.5'")):
            flag, value = f"--{name.replace('_', '-')}", getattr(self, name)
            pairs = value.items() if isinstance(value, Mapping) else value
            pairs = [pairs] if isinstance(pairs, str) else pairs
            self._set(name, tuple(parse_pair(flag, pair, example) for pair in pairs))
            for selector, number in getattr(self, name):
                check_range(f"{flag} {selector}", number, RATE)
        if self.bytes is not None:
            self._set("bytes", parse_bytes("--bytes", self.bytes))
        for setting in fields(self):
            if synonyms := setting.metadata.get("synonyms"):
                value = getattr(self, setting.name)
                self._set(setting.name, synonyms.get(value, value))
        self._set("input_shape", tuple(input_shapes(self.input_shape).items()))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @staticmethod
    def under(*headings: str) -> frozenset[str]:
        """The names of the settings under these headings of the help."""
        heading, names = "", set()
        for setting in fields(PruneConfig):
            heading = setting.metadata.get("group", heading)
            names |= {setting.name} if heading in headings else set()
        return frozenset(names)

    def training(self) -> dict[str, Any]:
        """Those of the settings that a retrained model's weights depend on, as JSON types."""
        settings = self.to_dict()
        return {
            setting.name: settings[setting.name]
            for setting in fields(self)
            if setting.metadata.get("trains", True)
        }

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types; data that is not a path is named by its type."""
        settings = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return settings | {
            "exclude": list(self.exclude),
            "layer_rate": [list(pair) for pair in self.layer_rate],
            "input_shape": [f"{name}:{','.join(map(str, shape))}" for name, shape in self.input_shape],
            "dropout": [list(pair) for pair in self.dropout],
            "distill_values": list(self.distill_values),
            "data": describe_source(self.data),
            "held_out_data": describe_source(self.held_out_data),
            "eval_data": describe_source(self.eval_data),
            "old_data": describe_source(self.old_data),
            "calibration_data": describe_source(self.calibration_data),
        }


def describe_source(source: Any) -> str | None:
    """A data source in words: its path, or the kind of Python object it is."""
    if source is None:
        return None
    return str(source) if isinstance(source, str | os.PathLike) else f"<{type(source).__name__}>"
