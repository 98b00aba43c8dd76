"""Settings of pruning: how much of a model is removed, where, and by which criterion."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.checks import ABOVE_0, AT_LEAST_1, RATE, SHARE, Pairs, pairs
from onnxprune.config.declare import DataSource, Names, PairsLike, PathLike, setting

# Exactly one of them says how much is removed.
AMOUNTS = ("rate", "std_threshold", "flops", "bytes")
ALLOCATIONS = ("uniform", "per-output", "global", "std", "erk", "sensitivity")
PATTERNS = ("unstructured", "4x1", "2:4", "channel")
SELECTIONS = ("threshold", "probability")


@dataclass(frozen=True)
class PruningSettings:
    """Which weights are removed, and how many."""

    heading = "Pruning"

    rate: float | None = setting(
        None,
        "Sparsity to reach: the fraction of the weights to remove, in [0, 1).",
        metavar="R",
        aliases=("--sparsity",),
        within=RATE,
        common="Sparsity: the fraction of the weights to remove",
    )
    std_threshold: float | None = setting(
        None,
        "Instead of --rate: remove every weight below Q times the standard deviation of its layer (Han et al. 2015).",
        metavar="Q",
        within=ABOVE_0,
    )
    flops: float | None = setting(
        None,
        "Instead of --rate: the share of the model's multiply-adds to keep, zeros not counted (0.2 or 20%).",
        metavar="SHARE",
        within=SHARE,
        common="Instead of --rate: share of the multiply-adds to keep",
    )
    bytes: str | int | None = setting(
        None,
        "Instead of --rate: the largest file size, for example 500k or 1.5MB. The result lies up to 2% below it, a "
        "little off where the model is fine-tuned.",
        metavar="SIZE",
    )
    allocation: str = setting(
        "uniform",
        "How layers share the rate: the same for each layer (uniform) or for each output (per-output); one threshold "
        "for all layers (global), or one in units of each layer's standard deviation (std); by shape (erk); or by how "
        "far pruning each layer moves the outputs (sensitivity).",
        choices=ALLOCATIONS,
        common="How layers share the rate",
    )
    pattern: str = setting(
        "unstructured",
        "What is removed together: single weights, blocks of 4 outputs at one input (4x1), two of every four "
        "neighboring inputs (2:4), or whole channels and neurons with everything coupled to them.",
        choices=PATTERNS,
        common="What is removed together",
    )
    criterion: str = setting(
        "magnitude",
        "Importance criterion.",
        table="criteria",
        common="Importance criterion",
    )
    selection: str = setting(
        "threshold",
        "Remove the weights of least importance, or, for comparison, draw them at random, unimportant ones more often.",
        choices=SELECTIONS,
    )
    round_to: int = setting(
        1,
        "Channels: keep a multiple of N in every layer that loses some.",
        metavar="N",
        within=AT_LEAST_1,
    )
    min_channels: int = setting(
        1, "Channels: keep at least N in every layer.", metavar="N", within=AT_LEAST_1
    )
    exclude: Names = setting(
        (),
        "Do not prune these weights: a node or initializer name, a glob, or re:PATTERN. Repeatable.",
        metavar="SELECTOR",
        common="Do not prune these weights",
    )
    layer_rate: PairsLike = setting(
        (),
        "A rate of their own for these weights, which then do not count towards --rate. Repeatable.",
        metavar="SELECTOR=R",
    )

    frontier: PathLike | None = setting(
        None,
        "Folder for the trials of a search, for --resume and `onnxprune pick`.  [default: OUT.onnx.frontier]",
        metavar="FOLDER",
        trains=False,
    )

    @property
    def layer_rates(self) -> Pairs:
        """`layer_rate` as pairs of selector and rate."""
        return pairs("--layer-rate", self.layer_rate, "'fc*=0.95'")

    @property
    def searches(self) -> bool:
        """Whether the rate is to be found."""
        return all(getattr(self, name) is None for name in AMOUNTS)

    @property
    def amount(self) -> str:
        """The flag that says how much is removed."""
        name = next(name for name in AMOUNTS if getattr(self, name) is not None)
        return f"--{name.replace('_', '-')} {getattr(self, name):g}"


@dataclass(frozen=True)
class CalibrationSettings:
    """What is measured on inputs, without labels and without training."""

    heading = "Calibration"

    reconstruct: bool = setting(
        False,
        "Update the remaining weights of each layer so that its outputs stay as they were (least squares).",
    )
    bias_correction: bool = setting(
        False, "Shift biases so that the means of the layers' outputs stay as they were."
    )
    norm_correction: bool = setting(
        False, "Adapt the statistics of BatchNormalization to what pruning does to its inputs."
    )
    calibration_data: DataSource = setting(
        None,
        "Inputs to measure on; labels are not used and nothing is trained on them. 'synthetic' generates some from the "
        "model.  [default: those of --data]",
        metavar="DATA",
    )
    calibration_samples: int = setting(512, "Use at most N of them.", metavar="N", within=AT_LEAST_1)
