"""What a job needs that its settings alone do not tell: of the tables, of other settings, of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from onnxprune.config.declare import AUTO
from onnxprune.config.settings import PruneConfig, flag_of
from onnxprune.data.images.augment import Augmentation
from onnxprune.errors import SettingError
from onnxprune.job.store import find_format
from onnxprune.pruning.criteria import CRITERIA, find_criterion
from onnxprune.sparse.choose import require_kernels
from onnxprune.system.packages import import_torchvision, require_package
from onnxprune.system.processes import process_count

# Settings that say nothing of single weights.
CHANNELS_ALONE = ("round_to", "min_channels", "max_channel_rate", "latency")
MEASURED = "--criterion {}, --reconstruct, --bias-correction and --norm-correction"


def is_calibrated(config: PruneConfig) -> bool:
    """Whether the job needs the inputs of the layers."""
    return (
        find_criterion(config.criterion).needs == "inputs"
        or bool(config.reconstruct)
        or bool(config.bias_correction)
        or config.norm_correction
    )


def reads_calibration(config: PruneConfig) -> bool:
    """Whether something of the job is measured on calibration inputs, such as which weights bear int4."""
    measures = config.allocation == "sensitivity" or config.quantizes or config.values == "int4"
    return measures or is_calibrated(config)


def check_requirements(config: PruneConfig) -> None:
    """Refuse settings that a criterion, what is measured on inputs, or this machine cannot work with.

    Raises:
        SettingError: which, and how to fix it.
        MissingPackageError: fine-tuning is asked for, and torch is not installed.
    """
    find_format(config.format)
    for holds, message in (*_criterion(config), *_calibrated(config), *_channels(config)):
        if holds:
            raise SettingError(message)
    if config.data is not None:
        require_package("torch", "--data")
        if ":" in config.loss:
            from onnxprune.training.losses import load_function

            load_function(config.loss)
    if Augmentation.of(config.augment) is not None:
        import_torchvision("--augment")
    if config.kernels == "measured":
        require_kernels()


def _criterion(config: PruneConfig) -> Iterator[tuple[bool, str]]:
    name, criterion = config.criterion, find_criterion(config.criterion)
    channel = config.pattern == "channel"
    fitting = ", ".join(
        key for key, each in CRITERIA.items() if (each.channel_norm if channel else each.single_weights)
    )
    yield (
        criterion.needs == "gradients" and config.data is None,
        f"--criterion {name} needs gradients: give labeled --data, or --criterion magnitude",
    )
    moves = criterion.needs == "movement"
    yield (
        moves and config.data is None,
        f"--criterion {name} follows the weights while they are trained: give --data, or --criterion magnitude",
    )
    yield (
        moves and (config.schedule not in (AUTO, "gradual") or config.pruning_end == 0),
        f"--criterion {name} follows the weights while they are trained: use --schedule gradual, and a --pruning-end "
        "above 0",
    )
    yield (
        moves and (config.selection == "probability" or config.std_threshold is not None),
        f"--criterion {name} cannot be combined with --selection probability or --std-threshold: use --rate",
    )
    yield (
        channel and criterion.channel_norm is None,
        f"--criterion {name} is for single weights: use one of {fitting} with --pattern channel",
    )
    yield (
        not channel and not criterion.single_weights,
        f"--criterion {name} is for channels: give --pattern channel, or use one of {fitting}",
    )


def _channels(config: PruneConfig) -> Iterator[tuple[bool, str]]:
    """What would be ignored. Checked here, where a preset of --for may have given the pattern."""
    given = [
        flag_of(each)
        for each in fields(PruneConfig)
        if each.name in CHANNELS_ALONE and getattr(config, each.name) != each.default
    ]
    yield (
        config.pattern != "channel" and bool(given),
        f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for whole channels: give --pattern channel, or "
        f"remove {'it' if len(given) == 1 else 'them'}",
    )
    yield (
        config.latency is not None and process_count() > 1,
        "--latency is measured by one process, and this job has several, which would measure different ones: give "
        "--flops, or start one process",
    )


def _calibrated(config: PruneConfig) -> Iterator[tuple[bool, str]]:
    calibrated = is_calibrated(config)
    measured = MEASURED.format("|".join(key for key, each in CRITERIA.items() if each.needs == "inputs"))
    yield (
        calibrated and config.data is None and config.calibration_data is None,
        f"{measured} need inputs: give --calibration-data, or --data to fine-tune as well",
    )
    yield (
        config.quantizes and config.data is None and config.calibration_data is None,
        "--quantize measures the ranges of activations on inputs: give --calibration-data (some 100 samples, or "
        "synthetic), or --data to fine-tune as well",
    )
    yield (
        config.pattern == "channel"
        and (config.bias_correction or config.norm_correction)
        and not (config.reconstruct or find_criterion(config.criterion).solve),
        "--bias-correction and --norm-correction are parts of --reconstruct with --pattern channel: give --reconstruct",
    )
    yield (
        calibrated
        and (config.schedule in ("gradual", "prune-and-regrow") or config.selection == "probability"),
        f"{measured} are too slow for many pruning steps, and cannot be combined with --selection probability: use "
        "--schedule one-shot or iterative, and --selection threshold",
    )
