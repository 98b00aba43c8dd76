"""Settings of fine-tuning: the pruning schedule, the optimizer, the loss and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.checks import ABOVE_0, AT_LEAST_0, AT_LEAST_1, FRACTION, SEED, SHARE, Pairs, pairs
from onnxprune.config.declare import Names, PairsLike, PathLike, setting

SCHEDULES = ("one-shot", "iterative", "gradual", "prune-and-regrow")
OPTIMIZERS = ("adam", "adamw", "sgd")
LEARNING_RATE_SCHEDULES = ("cosine", "step", "constant")
REGULARIZATIONS = ("l2", "l1", "none")
BATCH_NORMS = ("frozen", "re-estimate", "train")
PRECISIONS = ("float32", "bfloat16")
LOSSES = ("auto", "cross-entropy", "mse", "l1", "huber", "cosine", "dice")
DISTILL_LOSSES = ("auto", "kl", "mse", "cosine")


@dataclass(frozen=True)
class ScheduleSettings:
    """When weights are removed in the course of the training."""

    heading = "Schedule"

    schedule: str = setting(
        "iterative",
        "Pruning schedule: all at once; in steps with fine-tuning in between; cubic, in many small steps (gradual); or "
        "in many steps with masks from which weights may return (prune-and-regrow; dynamic network surgery).",
        choices=SCHEDULES,
        common="Pruning schedule",
    )
    steps: int | None = setting(
        None,
        "Number of pruning steps.  [default: 10 when iterative, else 100]",
        metavar="N",
        within=AT_LEAST_1,
    )
    pruning_end: float = setting(
        0.5,
        "Share of the training after which the last pruning step is made; the rest fine-tunes at the final rate.",
        metavar="SHARE",
        within=FRACTION,
    )
    alternate: bool = setting(
        False,
        "Prune and fine-tune convolutions and other layers alternately, the others fixed (iterative only).",
    )
    regrow_zeros: bool = setting(
        False, "Let weights that are zero in the input model return as well (prune-and-regrow only)."
    )


@dataclass(frozen=True)
class TrainingSettings:
    """How the remaining weights are fine-tuned."""

    heading = "Fine-tuning"

    epochs: int = setting(
        20, "Passes over the data in all.", metavar="N", within=AT_LEAST_1, common="Passes over the data"
    )
    batch_size: int = setting(
        128, "Samples in a training step, of all processes together.", metavar="N", within=AT_LEAST_1
    )
    optimizer: str = setting("adam", "Optimizer.", choices=OPTIMIZERS)
    learning_rate: float = setting(
        1e-3,
        "Peak learning rate. With Adam, large pretrained models want a tenth of it.",
        metavar="LR",
        aliases=("--lr",),
        within=ABOVE_0,
        common="Peak learning rate",
    )
    learning_rate_schedule: str = setting(
        "cosine",
        "Learning rate schedule after the warm-up: half a cosine down to zero; a tenth after one half and after three "
        "quarters of the training (step); or constant.",
        choices=LEARNING_RATE_SCHEDULES,
    )
    warmup: int = setting(100, "Updates of linear warm-up.", metavar="N", within=AT_LEAST_0)
    momentum: float = setting(0.9, "Momentum of SGD.", metavar="M", within=FRACTION)
    clip_norm: float | None = setting(
        None, "Gradient clipping: the largest norm of the gradients.", metavar="NORM", within=ABOVE_0
    )
    regularization: str = setting(
        "l2", "Penalty on the weights; biases and norms are exempt.", choices=REGULARIZATIONS
    )
    weight_decay: float = setting(1e-4, "Strength of the penalty.", metavar="S", within=AT_LEAST_0)
    batch_norm: str = setting(
        "frozen",
        "Statistics of BatchNormalization: kept, re-estimated for the pruned model, or updated in training.",
        choices=BATCH_NORMS,
    )
    dropout: PairsLike = setting(
        (),
        "Dropout behind these layers; the ratio falls as their connections are removed. Repeatable.",
        metavar="SELECTOR=RATIO",
    )
    mixup: bool = setting(True, "Mixup of the samples, where all inputs are floats.")
    device: str = setting("cpu", "Device to train on: cpu, cuda, or cuda:N.", metavar="DEVICE")
    precision: str = setting("float32", "Type that matrix products are computed in.", choices=PRECISIONS)
    seed: int = setting(0, "Seed of all random numbers.", metavar="N", within=SEED)

    @property
    def dropouts(self) -> Pairs:
        """`dropout` as pairs of selector and ratio."""
        return pairs("--dropout", self.dropout, "'fc*=0.5'")


@dataclass(frozen=True)
class LossSettings:
    """What fine-tuning minimizes."""

    heading = "Loss and distillation"

    loss: str = setting(
        "auto",
        "Loss on the labels: auto is cross-entropy for class numbers (also per pixel) and mse for others; or one of "
        f"{', '.join(LOSSES[1:])}, or MODULE:FUNCTION of (outputs, labels).",
        metavar="LOSS",
    )
    label_smoothing: float = setting(
        0.0, "Label smoothing of the cross-entropy.", metavar="SHARE", within=FRACTION
    )
    distill: float | None = setting(
        None,
        "Share of the distillation loss, which follows the input model's outputs; the labels have the rest.  "
        "[default: 0.5 with labels, 1 without]",
        metavar="SHARE",
        within=SHARE,
    )
    distill_loss: str = setting(
        "auto",
        "Distillation loss: KL divergence of softened outputs, squared error over their variance (mse), or cosine. "
        "Auto is kl for outputs [N, C], else mse.",
        choices=DISTILL_LOSSES,
    )
    temperature: float = setting(2.0, "Softmax temperature of kl.", metavar="T", within=ABOVE_0)
    distill_features: Names = setting(
        (),
        "Follow these intermediate values of the input model too: a name, a glob, or re:PATTERN. Repeatable.",
        metavar="SELECTOR",
    )


@dataclass(frozen=True)
class CheckpointSettings:
    """How a training is kept, to be resumed."""

    heading = "Checkpoints"

    checkpoint: PathLike | None = setting(
        None, "Write the state of the training to this file as it goes on.", metavar="FILE", trains=False
    )
    checkpoint_minutes: float = setting(
        10.0, "Minutes from one checkpoint to the next.", metavar="N", within=AT_LEAST_0, trains=False
    )
    resume: bool = setting(
        False,
        "Resume from --checkpoint, if it exists: the result is that of an undisturbed run.",
        trains=False,
    )


@dataclass(frozen=True)
class FineTuneSettings(CheckpointSettings, LossSettings, TrainingSettings):
    """All that the training loop reads."""
