"""Settings that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxprune.config.settings import PruneConfig

CHANNEL_SCOPES = ("layer", "global")


def conflicts(config: PruneConfig) -> Iterator[tuple[bool, str]]:
    """Settings that contradict each other, each pair with what to do."""
    yield (
        config.values != "fp32" and config.format != "ops",
        f"--values {config.values} is for sparse nodes: it goes with --format ops, not --format {config.format}",
    )
    yield (
        config.importance == "taylor" and config.data is None,
        "--importance taylor takes gradients: give labelled --data, or --importance l2",
    )
    yield (
        config.pattern == "channel"
        and (config.quality is not None or bool(config.layer_rate) or not config.remove_dead),
        "--pattern channel removes channels at one --rate: it goes with neither --quality, --layer-rate "
        "nor --no-remove-dead; spare layers by --exclude",
    )
    yield (
        config.pattern == "channel" and (config.schedule == "splice" or config.selection == "probability"),
        "--pattern channel takes whole channels for good: it goes with neither --schedule splice nor "
        "--selection probability; use --schedule gradual",
    )
    yield (
        config.alternate and (config.schedule != "iterative" or config.pattern == "channel"),
        "--alternate prunes layer families in turns: it needs --schedule iterative and single weights",
    )
    yield (
        config.schedule == "splice" and config.selection == "probability",
        "--schedule splice brings back what grows, --selection probability draws anew each time: "
        "use one of them",
    )
    yield (
        config.resume and config.checkpoint is None and not config.searches,
        "--resume needs --checkpoint FILE, to go on from it",
    )
    yield (
        config.regrow and config.schedule != "splice",
        "--regrow brings connections back as they grow: it needs --schedule splice",
    )
    yield (
        config.searches and config.data is None,
        "--max-drop without --rate searches by retraining: give --data, or a --rate",
    )
    yield (
        config.searches and config.checkpoint is not None,
        "a search keeps its state in --frontier FOLDER: drop --checkpoint, or give a --rate",
    )
    yield (
        config.frontier is not None and not config.searches,
        "--frontier is for a search: it goes with --max-drop and neither --rate nor --quality",
    )
    yield (
        config.searches and config.pattern == "2:4",
        "--pattern 2:4 has one rate only, so there is none to search for: give --rate 0.5",
    )
    yield (
        config.calibrated and config.data is None and config.calibration_data is None,
        "--criterion, --refit, --bias-correction and --restore-norms measure what the layers read: give "
        "inputs by --calibration-data, or --data to retrain on them as well",
    )
    yield (
        config.calibrated and config.pattern in ("4x1", "channel"),
        f"--criterion, --refit, --bias-correction and --restore-norms go with single weights, not with "
        f"--pattern {config.pattern}: drop one",
    )
    yield (
        config.calibrated and (config.schedule in ("gradual", "splice") or config.selection == "probability"),
        "--criterion, --refit, --bias-correction and --restore-norms measure at every turn: they go with "
        "--schedule one-shot or iterative and --selection threshold",
    )
    yield (
        config.scope == "sensitivity" and config.data is None and config.calibration_data is None,
        "--scope sensitivity measures how the outputs move: give inputs by --calibration-data or --data",
    )
    budgeted = config.flops is not None or config.bytes is not None
    yield (
        budgeted and config.pattern in ("2:4", "channel"),
        f"--flops and --bytes choose how many single weights go: give --pattern {config.pattern} a --rate",
    )
    yield (
        config.bytes is not None and config.format == "dense",
        "--format dense stores zeros too, so that its size stays: --bytes goes with --format ops or coo",
    )
    yield (
        config.scope not in CHANNEL_SCOPES and (config.pattern == "channel" or config.quality is not None),
        f"--scope {config.scope} shares out a --rate of single weights: it goes with neither --quality nor "
        "--pattern channel; use --scope layer or global",
    )
    yield (
        config.scope == "output" and config.pattern == "4x1",
        "--scope output brings single outputs to the rate, --pattern 4x1 cuts blocks of four: drop one",
    )
    yield (
        config.pattern == "2:4"
        and (config.rate != 0.5 or bool(config.layer_rate) or config.scope != "layer"),
        "--pattern 2:4 takes two of every four weights: give --rate 0.5, no --layer-rate and no --scope",
    )
    yield (
        config.pattern == "2:4" and (config.schedule == "splice" or config.selection == "probability"),
        "--pattern 2:4 goes with neither --schedule splice nor --selection probability: use --schedule one-shot",
    )
