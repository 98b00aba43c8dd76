"""Settings that contradict each other; the needs of an importance criterion are checked in job/requirements.py."""

from __future__ import annotations

from collections.abc import Iterator

from onnxprune.config.data import DataSettings
from onnxprune.config.declare import AUTO
from onnxprune.config.evaluation import EvaluationSettings
from onnxprune.config.output import KernelSettings, OutputSettings
from onnxprune.config.pruning import BLOCKS, CalibrationSettings, PruningSettings
from onnxprune.config.quantization import QOPERATOR, UINT8, QuantizationSettings
from onnxprune.config.training import CheckpointSettings, LossSettings, ScheduleSettings, TrainingSettings
from onnxprune.config.workers import IN_TURN, WorkerSettings

CHANNEL_ALLOCATIONS = (AUTO, "uniform", "global", "sensitivity")
THRESHOLD_ALLOCATIONS = (AUTO, "uniform", "global")
# Schedules that let single weights return.
REGROWING = ("prune-and-regrow", "rigl", "ac-dc")
# Schedules whose pruning steps are far apart.
REWOUND = ("one-shot", "iterative")


def conflicts(
    pruning: PruningSettings,
    calibration: CalibrationSettings,
    data: DataSettings,
    schedule: ScheduleSettings,
    training: TrainingSettings,
    output: OutputSettings,
    quantization: QuantizationSettings,
    checkpoints: CheckpointSettings,
    workers: WorkerSettings,
    evaluation: EvaluationSettings,
    kernels: KernelSettings,
    losses: LossSettings,
) -> Iterator[str]:
    """A message for each contradiction, which says how to fix it."""
    rules = (
        *_channels(pruning, schedule, output),
        *_patterns(pruning, schedule),
        *_schedules(pruning, schedule, training),
        *_budgets(pruning, output),
        *_searches(pruning, data, checkpoints),
        *_measured(pruning, calibration, data),
        *_workers(pruning, workers),
        *_times(pruning, data, training),
        *_quantized(pruning, output, quantization, data),
        *_not_evaluated(pruning, evaluation, data, kernels, quantization),
        *_losses(data, losses),
    )
    yield from (message for holds, message in rules if holds)


Rules = Iterator[tuple[bool, str]]


def _quantized(
    pruning: PruningSettings, output: OutputSettings, quantization: QuantizationSettings, data: DataSettings
) -> Rules:
    yield (
        quantization.quantizes and output.values not in ("fp32", "int4"),
        f"--quantize and --values {output.values} both round the weights: remove --values, or give --values int4",
    )
    yield (
        quantization.quantizes and pruning.bytes is not None,
        "--bytes reckons with the size of weights in floats, and cannot be combined with --quantize: use --rate",
    )
    yield (
        quantization.quantizes and pruning.latency is not None,
        "--latency is that of the model in floats, and cannot be combined with --quantize: use --flops",
    )
    yield (
        bool(quantization.quantize_exclude) and not quantization.quantizes,
        "--quantize-exclude needs --quantize int8",
    )
    yield (
        quantization.quantize_epochs is not None and not quantization.quantizes,
        "--quantize-epochs needs --quantize int8",
    )
    changed = quantization.quantize_form != QOPERATOR or quantization.quantize_activations != UINT8
    yield (
        changed and not quantization.quantizes,
        "--quantize-form and --quantize-activations need --quantize int8",
    )
    yield (
        bool(quantization.quantize_epochs) and data.data is None,
        "--quantize-epochs needs --data to train on",
    )


def _channels(pruning: PruningSettings, schedule: ScheduleSettings, output: OutputSettings) -> Rules:
    channel = pruning.pattern == "channel"
    yield (
        channel and (pruning.std_threshold is not None or not output.remove_dead),
        "--pattern channel cannot be combined with --std-threshold or --no-remove-dead: give --rate, and --exclude for "
        "layers to keep",
    )
    yield (
        channel and schedule.schedule in REGROWING,
        f"--pattern channel cannot be combined with --schedule {schedule.schedule}, which lets single weights return: "
        "use --schedule gradual",
    )
    yield (
        channel and bool(pruning.include),
        "--pattern channel cannot be combined with --include: columns of embeddings leave with the channels they are "
        "coupled to; remove --include",
    )
    yield (
        channel and pruning.selection == "probability",
        "--pattern channel cannot be combined with --selection probability: remove one",
    )
    yield (
        channel and pruning.allocation not in CHANNEL_ALLOCATIONS,
        f"--allocation {pruning.allocation} cannot be combined with --pattern channel: use --allocation uniform, "
        "global or sensitivity",
    )
    yield (
        pruning.std_threshold is not None and pruning.allocation not in THRESHOLD_ALLOCATIONS,
        f"--allocation {pruning.allocation} cannot be combined with --std-threshold: use --allocation uniform or "
        "global",
    )


def _patterns(pruning: PruningSettings, schedule: ScheduleSettings) -> Rules:
    yield (
        pruning.allocation == "per-output" and pruning.pattern in BLOCKS,
        f"--allocation per-output cannot be combined with the blocks of --pattern {pruning.pattern}: remove one",
    )
    yield (
        pruning.pattern == "2:4"
        and not pruning.searches
        and (pruning.rate != 0.5 or bool(pruning.layer_rate) or pruning.allocation not in (AUTO, "uniform")),
        "--pattern 2:4 always has a rate of 0.5: give --rate 0.5, without --layer-rate and --allocation",
    )
    yield (
        pruning.pattern == "2:4"
        and (schedule.schedule in ("prune-and-regrow", "rigl") or pruning.selection == "probability"),
        "--pattern 2:4 cannot be combined with --schedule prune-and-regrow or rigl, or with --selection probability: "
        "use --schedule one-shot",
    )
    yield (
        schedule.schedule == "rigl" and (pruning.pattern in BLOCKS or pruning.allocation == "per-output"),
        "--schedule rigl exchanges single weights of a layer, which --pattern 4x1 or 1x4 and --allocation per-output "
        "do not allow: use --schedule gradual, ac-dc or prune-and-regrow",
    )


def _schedules(pruning: PruningSettings, schedule: ScheduleSettings, training: TrainingSettings) -> Rules:
    yield (
        schedule.alternate and (schedule.schedule not in (AUTO, "iterative") or pruning.pattern == "channel"),
        "--alternate needs --schedule iterative and cannot be combined with --pattern channel",
    )
    yield (
        schedule.schedule == "prune-and-regrow" and pruning.selection == "probability",
        "--schedule prune-and-regrow cannot be combined with --selection probability: remove one",
    )
    yield (
        schedule.regrow_zeros and schedule.schedule != "prune-and-regrow",
        "--regrow-zeros needs --schedule prune-and-regrow",
    )
    yield (
        training.learning_rate_schedule == "rewind" and schedule.schedule not in (AUTO, *REWOUND),
        f"--learning-rate-schedule rewind begins anew after each pruning step, and --schedule {schedule.schedule} has "
        "too many of them: use --schedule iterative, or --learning-rate-schedule cosine",
    )


def _budgets(pruning: PruningSettings, output: OutputSettings) -> Rules:
    budgeted = pruning.flops is not None or pruning.bytes is not None
    yield (
        budgeted and pruning.pattern == "2:4",
        "--flops and --bytes cannot be combined with --pattern 2:4: give --rate instead",
    )
    yield (
        pruning.bytes is not None and pruning.pattern == "channel",
        "--bytes cannot be combined with --pattern channel: give --rate or --flops instead",
    )
    yield (
        pruning.bytes is not None and output.format == "dense",
        "--format dense stores zeros, so pruning does not make the file smaller: use --bytes with --format ops or coo",
    )
    yield (
        output.values != "fp32" and output.format != "ops",
        f"--values {output.values} is for sparse nodes: use it with --format ops, not with --format {output.format}",
    )


def _searches(pruning: PruningSettings, data: DataSettings, checkpoints: CheckpointSettings) -> Rules:
    searches = pruning.searches
    yield (
        checkpoints.checkpoint is not None and str(checkpoints.checkpoint).endswith(".onnx"),
        f"--checkpoint {checkpoints.checkpoint} is the name of a model: give another file",
    )
    yield (
        checkpoints.resume and checkpoints.checkpoint is None and not searches,
        "--resume needs a file to resume from: give --checkpoint FILE",
    )
    yield (
        searches and data.data is None,
        "--max-drop or --max-loss without --rate searches for the rate by fine-tuning: give --data, or a --rate",
    )
    yield (
        pruning.latency is not None and checkpoints.checkpoint is not None,
        "--latency is timed when a job begins, and a training that is resumed may time it otherwise and have other "
        "channels: remove --checkpoint, or give --flops",
    )
    yield (
        searches and checkpoints.checkpoint is not None,
        "a search saves its state in --frontier FOLDER: remove --checkpoint, or give a --rate",
    )
    yield (
        pruning.frontier is not None and not searches,
        "--frontier is for a search: use it with --max-drop, without --rate",
    )
    yield (
        searches and pruning.pattern == "2:4",
        "--pattern 2:4 always has a rate of 0.5, so there is nothing to search: give --rate 0.5",
    )


def _times(pruning: PruningSettings, data: DataSettings, training: TrainingSettings) -> Rules:
    timed = training.time is not None
    yield (
        timed and data.data is None,
        "--time is for fine-tuning: give --data as well, or remove it",
    )
    yield (
        timed and training.epochs is not None,
        "--time and --epochs both say how long to train: remove one",
    )


def _losses(data: DataSettings, losses: LossSettings) -> Rules:
    yield (
        losses.train_until is not None and data.data is None,
        "--train-until is for fine-tuning: give --data as well, or remove it",
    )


def _measured(pruning: PruningSettings, calibration: CalibrationSettings, data: DataSettings) -> Rules:
    yield (
        pruning.allocation == "sensitivity" and data.data is None and calibration.calibration_data is None,
        "--allocation sensitivity runs the model on inputs: give --calibration-data or --data",
    )


def _not_evaluated(
    pruning: PruningSettings,
    evaluation: EvaluationSettings,
    data: DataSettings,
    kernels: KernelSettings,
    quantization: QuantizationSettings,
) -> Rules:
    skipped = not evaluation.evaluate
    yield (
        skipped and quantization.quantizes,
        "--quantize runs the model to measure its activations: remove --quantize, or --no-evaluate",
    )
    yield (
        skipped and (evaluation.max_drop is not None or evaluation.max_loss is not None),
        "--max-drop and --max-loss are measured by the evaluation: remove --no-evaluate, or give a --rate alone",
    )
    yield (
        skipped and (data.eval_data is not None or data.old_data is not None),
        "--eval-data and --old-data are for the evaluation: remove them, or --no-evaluate",
    )
    yield (
        skipped and kernels.kernels == "measured",
        "--kernels measured runs the model: use --kernels estimated, or remove --no-evaluate",
    )
    yield (
        skipped and pruning.latency is not None,
        "--latency runs the model to time it: give --flops, or remove --no-evaluate",
    )


def _workers(pruning: PruningSettings, workers: WorkerSettings) -> Rules:
    yield (
        workers.workers != IN_TURN and not pruning.searches,
        "--workers is for the trials of a search: use it with --max-drop, without --rate",
    )
