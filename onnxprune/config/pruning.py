"""Settings of pruning and calibration: how much of a model is removed, where, and by which criterion."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.checks import ABOVE_0, AT_LEAST_1, RATE, SHARE, Pairs, pairs
from onnxprune.config.declare import AUTO, DataSource, Names, PairsLike, PathLike, setting

# Exactly one of these sets how much is removed; with none of them, --max-drop searches for the rate.
AMOUNTS = ("rate", "std_threshold", "flops", "latency", "bytes")
ALLOCATIONS = (AUTO, "uniform", "per-output", "global", "std", "erk", "sensitivity")
# Blocks of weights that are removed together.
BLOCKS = ("4x1", "1x4")
PATTERNS = ("unstructured", *BLOCKS, "2:4", "channel")
EFFORTS = ("fast", "normal", "best")
SELECTIONS = ("threshold", "probability")


@dataclass(frozen=True)
class PruningSettings:
    """Which weights are removed, and how many."""

    heading = "Pruning"

    rate: float | None = setting(
        None,
        "Sparsity: the fraction of the weights to remove, in [0, 1).",
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
        "Instead of --rate: the fraction of the multiply-adds to keep, not counting those with zeros (0.2 or 20%).",
        metavar="SHARE",
        within=SHARE,
        common="Instead of --rate: fraction of the multiply-adds to keep",
    )
    latency: float | None = setting(
        None,
        "Instead of --rate, with --pattern channel: the fraction of the latency to keep (0.5 or 50%), as onnxruntime "
        "has it on this machine for one sample. Layers are timed at several widths, and what is cut as a whole.",
        metavar="SHARE",
        within=SHARE,
    )
    bytes: str | int | None = setting(
        None,
        "Instead of --rate: the file size to reach, for example 500k or 1.5MB. The file is up to 2% smaller; after "
        "fine-tuning it can be slightly larger.",
        metavar="SIZE",
    )
    allocation: str = setting(
        AUTO,
        "How the rate is distributed over the layers: the same rate for each layer (uniform) or for each output "
        "(per-output); one threshold for all layers (global), or one in units of each layer's standard deviation "
        "(std); by layer shape (erk, Evci et al. 2020); or by how far pruning a layer moves the outputs (sensitivity). "
        "Auto is what does best in short trainings; without --data it is erk, or for channels sensitivity if there are "
        "calibration inputs, else uniform.",
        choices=ALLOCATIONS,
        common="Distribution of the rate over the layers",
    )
    pattern: str = setting(
        "unstructured",
        "Sparsity pattern: single weights (unstructured); blocks of 4 outputs at one input (4x1) or of 4 "
        "consecutive inputs of one output (1x4); two of every four consecutive inputs (2:4); or whole channels and "
        "neurons with all layers coupled to them (channel, also known as structured pruning).",
        choices=PATTERNS,
        common="Sparsity pattern",
    )
    reorder: bool = setting(
        True,
        "With --pattern 1x4, 4x1 or 2:4: first put channels into an order in which neighbors are removed at less loss. "
        "The outputs stay the same.",
    )
    criterion: str = setting(
        AUTO,
        "Importance criterion.",
        table="criteria",
        common="Importance criterion",
    )
    selection: str = setting(
        "threshold",
        "Remove the least important weights (threshold), or, for comparison, draw weights at random, with a higher "
        "probability for less important ones (probability).",
        choices=SELECTIONS,
    )
    round_to: int | None = setting(
        None,
        "With --pattern channel: keep a multiple of N channels in every pruned layer; 1 allows any number.  "
        "[default: 8 for models with convolutions, 4 or 1 where that would miss the rate; else 1]",
        metavar="N",
        within=AT_LEAST_1,
    )
    min_channels: int = setting(
        1,
        "With --pattern channel: keep at least N channels in every layer.",
        metavar="N",
        within=AT_LEAST_1,
    )
    max_channel_rate: float = setting(
        0.875,
        "With --pattern channel: the largest fraction of its channels that a layer without --layer-rate loses.",
        metavar="R",
        within=SHARE,
    )
    exclude: Names = setting(
        (),
        "Weights that are not pruned: a node or initializer name, a glob, re:PATTERN, or op:TYPE for an operator type "
        "(op:Gemm). Repeatable.",
        metavar="SELECTOR",
        common="Weights that are not pruned",
    )
    include: Names = setting(
        (),
        "Embeddings that are pruned too, which they are not by default: a node or initializer name, a glob, or "
        "re:PATTERN. Repeatable.",
        metavar="SELECTOR",
    )
    layer_rate: PairsLike = setting(
        (),
        "Rate for particular weights, which then do not count towards --rate; with --pattern channel, the fraction of "
        "the layer's output channels. Repeatable.",
        metavar="SELECTOR=R",
    )

    frontier: PathLike | None = setting(
        None,
        "Folder for the trials of a search (--max-drop without --rate), read by --resume and `onnxprune pick`.  "
        "[default: OUT.onnx.frontier]",
        metavar="FOLDER",
        trains=False,
    )

    @property
    def layer_rates(self) -> Pairs:
        """`layer_rate` as pairs of selector and rate."""
        return pairs("--layer-rate", self.layer_rate, "'fc*=0.95'")

    @property
    def searches(self) -> bool:
        """Whether the job searches for the rate."""
        return all(getattr(self, name) is None for name in AMOUNTS)

    @property
    def kept_work(self) -> float | None:
        """The share of the multiply-adds or of the latency to keep, if one of them is asked for."""
        return self.latency if self.flops is None else self.flops

    @property
    def amount(self) -> str:
        """The flag that sets how much is removed, with its value."""
        name = next(name for name in AMOUNTS if getattr(self, name) is not None)
        return f"--{name.replace('_', '-')} {getattr(self, name):g}"


@dataclass(frozen=True)
class CalibrationSettings:
    """Calibration: statistics of layer inputs, measured without labels and without training."""

    heading = "Calibration"

    reconstruct: bool | None = setting(
        None,
        "Update the remaining weights to restore the outputs of layers: least squares layer by layer, and more by "
        "--effort.  [default: on for --criterion second-order]",
    )
    bias_correction: bool | None = setting(
        None,
        "Shift the biases to restore the means of the layer outputs.  [default: on for --criterion second-order]",
    )
    norm_correction: bool = setting(
        False, "Adjust the statistics of BatchNormalization to the inputs of the pruned model."
    )
    effort: str = setting(
        "normal",
        "What calibration does beyond a pass over the layers: nothing (fast); damping of each layer by validation "
        "samples and, with --reconstruct and torch, reconstruction over sections and the whole network, some minutes "
        "(normal); more of that (best).",
        choices=EFFORTS,
        common="Work on calibration inputs, from seconds to minutes",
    )
    calibration_data: DataSource = setting(
        None,
        "Inputs for calibration; nothing is fitted to their labels. Without --data and --eval-data, some of them are "
        "for the evaluation alone. 'synthetic' generates inputs from the model.  [default: those of --data]",
        metavar="DATA",
        common="Inputs without labels, for one-shot pruning",
    )
    calibration_samples: int = setting(
        512,
        "Largest number of calibration samples: spread over the data, of a stream the first.",
        metavar="N",
        within=AT_LEAST_1,
    )
