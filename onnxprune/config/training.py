"""Settings of fine-tuning: the pruning schedule, the optimizer, the loss and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.checks import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    FRACTION,
    SEED,
    SHARE,
    Pairs,
    pairs,
    parse_time,
)
from onnxprune.config.declare import AUTO, Names, PairsLike, PathLike, setting

SCHEDULES = (AUTO, "one-shot", "iterative", "gradual", "prune-and-regrow", "rigl", "ac-dc")
OPTIMIZERS = (AUTO, "adam", "adamw", "sgd")
LEARNING_RATE_SCHEDULES = ("cosine", "step", "constant", "rewind")
AVERAGES = ("none", "ema", "swa")
REGULARIZATIONS = ("l2", "l1", "none")
BATCH_NORMS = (AUTO, "frozen", "re-estimate", "train")
RESTORE_NORMS = (AUTO, "always", "never")
PRECISIONS = (AUTO, "float32", "bfloat16")
LOSSES = ("auto", "cross-entropy", "mse", "l1", "huber", "cosine", "dice")
DISTILL_LOSSES = ("auto", "kl", "mse", "cosine")


@dataclass(frozen=True)
class ScheduleSettings:
    """When weights are removed during training."""

    heading = "Schedule"

    schedule: str = setting(
        AUTO,
        "Pruning schedule: all at once (one-shot); in steps with fine-tuning in between (iterative); in many small "
        "steps along a cubic curve (gradual, Zhu & Gupta 2017); in many steps where removed weights can return "
        "(prune-and-regrow; dynamic network surgery, Guo et al. 2016); all at once, then exchanging small weights for "
        "those with the largest gradients (rigl, Evci et al. 2020); or with phases in between that train all weights "
        "(ac-dc, Peste et al. 2021). Auto is gradual, or iterative where a step is slow.",
        choices=SCHEDULES,
    )
    steps: int | None = setting(
        None,
        "Number of pruning steps.  [default: 10 when iterative, 5 with ac-dc, else 100]",
        metavar="N",
        within=AT_LEAST_1,
    )
    pruning_end: float = setting(
        0.5,
        "Fraction of the training at which pruning ends; the rest fine-tunes at the final rate.",
        metavar="SHARE",
        within=FRACTION,
    )
    alternate: bool = setting(
        False,
        "Prune and fine-tune convolutions and other layers alternately, with the rest frozen (iterative only).",
    )
    regrow_zeros: bool = setting(
        False, "Also let weights return that are zero in the input model (prune-and-regrow only)."
    )


@dataclass(frozen=True)
class TrainingSettings:
    """How the remaining weights are fine-tuned."""

    heading = "Fine-tuning"

    time: str | None = setting(
        None,
        "Time for the whole job, such as 10m or 1.5h: as many epochs are trained as fit, by the speed of this machine.",
        metavar="TIME",
        common="Time for the whole job, for example 10m",
    )
    epochs: int | None = setting(
        None,
        "Number of passes over the training data, pruning included.  [default: auto, 20, and more for little data; or "
        "as many as --time allows]",
        metavar="N",
        within=AT_LEAST_1,
        common="Number of passes over the training data",
    )
    batch_size: int | None = setting(
        None,
        "Samples per training step, summed over all processes.  [default: auto, 128, and fewer where there is little "
        "data]",
        metavar="N",
        within=AT_LEAST_1,
    )
    optimizer: str = setting(
        AUTO,
        "Optimizer. Auto is SGD for networks with BatchNormalization that is trained, else Adam.",
        choices=OPTIMIZERS,
    )
    learning_rate: float | None = setting(
        None,
        "Peak learning rate.  [default: auto, the largest one that does well in short trainings of the pruned model]",
        metavar="LR",
        aliases=("--lr",),
        within=ABOVE_0,
    )
    learning_rate_schedule: str = setting(
        "cosine",
        "Learning rate schedule after the warm-up: cosine decay to zero; a factor of 0.1 after 50% and after 75% of "
        "the training (step); constant; or cosine decay from each pruning step to the next (rewind, Renda et al. 2020; "
        "iterative and one-shot only).",
        choices=LEARNING_RATE_SCHEDULES,
    )
    warmup: int | None = setting(
        None,
        "Number of training steps of linear warm-up.  [default: auto, 100, at most a tenth of the training]",
        metavar="N",
        within=AT_LEAST_0,
    )
    average: str = setting(
        "none",
        "Average of the weights over the updates after the last pruning step, evaluated beside the weights: an "
        "exponential moving average (ema), an equal average (swa), or none.",
        choices=AVERAGES,
    )
    momentum: float = setting(0.9, "Momentum of SGD.", metavar="M", within=FRACTION)
    clip_norm: float | None = setting(
        None, "Gradient clipping: largest norm of all gradients together.", metavar="NORM", within=ABOVE_0
    )
    regularization: str = setting(
        "l2",
        "Regularization of the weights; biases and normalization parameters are exempt.",
        choices=REGULARIZATIONS,
    )
    weight_decay: float | None = setting(
        None,
        "Strength of the regularization.  [default: auto, 1e-4, and 0 for L2 where there are no labels]",
        metavar="S",
        within=AT_LEAST_0,
    )
    batch_norm: str = setting(
        AUTO,
        "Statistics of BatchNormalization: unchanged (frozen), re-estimated on training batches before each "
        "evaluation, or updated in training (train). Auto is train with enough data, else frozen.",
        choices=BATCH_NORMS,
    )
    restore_norms: str = setting(
        "auto",
        "For the fine-tuning, put BatchNormalization back behind the layers that an export folded it into, and fold it "
        "again at the end: always, never, or for convolutional networks without norms and with at least 1,000 samples "
        "(auto).",
        choices=RESTORE_NORMS,
    )
    dropout: PairsLike = setting(
        (),
        "Dropout after these layers; the ratio decreases with their density (Han et al. 2015). Repeatable.",
        metavar="SELECTOR=RATIO",
    )
    mixup: bool | None = setting(
        None,
        "Mixup of training samples, if all inputs are floats.  [default: auto, with labels, at rates below 95%, "
        "without --augment, for networks without BatchNormalization that is trained]",
    )
    device: str = setting("cpu", "Device to train on: cpu, cuda, or cuda:N.", metavar="DEVICE")
    precision: str = setting(
        AUTO,
        "Precision of matrix products in training. Auto is bfloat16 for convolutional networks on processors that "
        "multiply in it, else float32.",
        choices=PRECISIONS,
    )
    seed: int = setting(0, "Random seed.", metavar="N", within=SEED)

    @property
    def seconds(self) -> float | None:
        """`time` in seconds."""
        return None if self.time is None else parse_time("--time", self.time)

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
        "Loss on the labels: auto (cross-entropy for classes, also per pixel, binary cross-entropy for 0 and 1, mse "
        f"for numbers), {', '.join(LOSSES[1:])}, or MODULE:FUNCTION of (outputs, labels), with labels of any form.",
        metavar="LOSS",
    )
    label_smoothing: float = setting(
        0.0, "Label smoothing of the cross-entropy loss.", metavar="SHARE", within=FRACTION
    )
    distill: float | None = setting(
        None,
        "Weight of the distillation loss, whose teacher is the input model; the loss on the labels has the rest.  "
        "[default: 0.5 with labels, 1 without]",
        metavar="SHARE",
        within=SHARE,
    )
    distill_loss: str = setting(
        "auto",
        "Distillation loss: KL divergence of softened outputs (kl), squared error divided by the variance (mse), or "
        "cosine distance. Auto is kl for outputs [N, C] of classes, else mse.",
        choices=DISTILL_LOSSES,
    )
    temperature: float = setting(
        2.0, "Softmax temperature of the KL divergence.", metavar="T", within=ABOVE_0
    )
    distill_features: Names = setting(
        (),
        "Also distill these intermediate values: a name, a glob, re:PATTERN, op:TYPE for the results of an operator "
        "type, or auto for the ends of stages or blocks. Repeatable.",
        metavar="SELECTOR",
    )
    train_until: str | None = setting(
        None,
        "Train only what is before the outputs of this node, or before this value: they follow those of the input "
        "model, and labels that fit them. What is behind is pruned, not trained.",
        metavar="NODE",
    )


@dataclass(frozen=True)
class CheckpointSettings:
    """How the state of a training is saved and resumed."""

    heading = "Checkpoints"

    checkpoint: PathLike | None = setting(
        None, "Save the state of the training to this file regularly.", metavar="FILE", trains=False
    )
    checkpoint_minutes: float = setting(
        10.0, "Minutes between two checkpoints.", metavar="N", within=AT_LEAST_0, trains=False
    )
    resume: bool = setting(
        False,
        "Resume from --checkpoint, if the file exists. The result is that of an uninterrupted run.",
        trains=False,
    )


@dataclass(frozen=True)
class FineTuneSettings(CheckpointSettings, LossSettings, TrainingSettings):
    """All settings that the training loop reads."""
