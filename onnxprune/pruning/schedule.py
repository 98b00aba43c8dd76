"""Pruning schedules: the pruning steps, by number of optimizer updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from onnxprune.config.training import ScheduleSettings
from onnxprune.pruning.allocation import Pool

# Default numbers of pruning steps.
ITERATIVE_STEPS = 10
GRADUAL_STEPS = 100
# Sparse phases of AC/DC: with the default settings, every phase takes an epoch.
SPARSE_PHASES = 5
# Fraction of the training after which the masks of prune-and-regrow and of RigL are fixed.
REGROWTH_END = 0.75
# Share of the kept weights that RigL exchanges at first (Evci et al. 2020).
EXCHANGED = 0.3

RateCurve = Callable[[float, float], float]
"""(final rate, part) to the current rate; part: 0 at the start of pruning, 1 at its end."""


def geometric(rate: float, part: float) -> float:
    """Equal parts remove equal fractions of the remaining weights, as in Han et al. 2015, section 3.4."""
    return rate if part == 1 else 1 - (1 - rate) ** part


def cubic(rate: float, part: float) -> float:
    """Fast at first, while many weights are redundant (Zhu & Gupta 2017, arXiv 1710.01878)."""
    return rate * (1 - (1 - part) ** 3)


@dataclass(frozen=True)
class PruningStep:
    """One step of a schedule, after `update` updates of the optimizer, at `part` (0 to 1) of the rate `curve`.

    `family`: only layers of this family (`layer_family`) are pruned, and the others are frozen until the next step.
    `kind`: whether it prunes; or exchanges the fraction `share` of the kept weights of each layer, the smallest, for
    the removed ones with the largest gradients; or lifts all masks, so that removed weights are trained from 0.
    """

    update: int
    part: float
    curve: RateCurve = geometric
    family: str | None = None
    kind: Literal["prune", "exchange", "lift"] = "prune"
    share: float = 0.0

    def rate(self, final: float) -> float:
        """The rate after this step, for a final rate."""
        return self.curve(final, self.part)

    def threshold(self, final: float) -> float:
        """The threshold at this step, for a final threshold; geometric schedules increase it linearly."""
        return final * (self.part if self.curve is geometric else self.curve(1.0, self.part))

    def pools(self, pools: Sequence[Pool]) -> list[Pool]:
        """The pools with the rates and thresholds of this step."""
        return [
            replace(
                pool,
                rate=None if pool.rate is None else self.rate(pool.rate),
                threshold=None if pool.threshold is None else self.threshold(pool.threshold),
            )
            for pool in pools
        ]


# The final rate in one step.
ONE_SHOT = PruningStep(0, 1.0)


@dataclass(frozen=True)
class Schedule:
    """The pruning steps of a training, by update; the last one reaches the final rate.

    `regrows`: removed weights are still trained, and return when they grow large (dynamic network surgery, Guo et al.
    2016); `regrow_zeros`: so are weights that are zero in the input model.
    """

    steps: tuple[PruningStep, ...]
    regrows: bool = False
    regrow_zeros: bool = False


def layer_family(op_type: str) -> str:
    """The family of an operator's layer; `--alternate` prunes the families alternately (Han et al. 2015)."""
    return "convolution" if "Conv" in op_type else "other"


def make_schedule(settings: ScheduleSettings, updates: int, families: Sequence[str] = ()) -> Schedule:
    """The schedule of a training of `updates` updates; `families`: the layer families, for `--alternate`."""
    plan = _SCHEDULES[settings.schedule]
    # In short trainings several steps fall on one update: the last one includes the others.
    steps = tuple({step.update: step for step in plan.steps(settings, updates, families)}.values())
    return Schedule(steps, plan.regrows, settings.regrow_zeros)


def _one_shot(settings: ScheduleSettings, updates: int, families: Sequence[str]) -> list[PruningStep]:
    return [ONE_SHOT]


def _iterative(settings: ScheduleSettings, updates: int, families: Sequence[str]) -> list[PruningStep]:
    steps = settings.steps or ITERATIVE_STEPS
    pruned: Sequence[str | None] = families if settings.alternate and len(families) > 1 else (None,)
    count = steps * len(pruned)
    planned = [
        PruningStep(
            round(settings.pruning_end * updates * index / count),
            (index // len(pruned) + 1) / steps,
            family=pruned[index % len(pruned)],
        )
        for index in range(count)
    ]
    # The last step prunes all layers, so that the final rate is exact.
    return [*planned[:-1], replace(planned[-1], family=None)]


def _gradual(settings: ScheduleSettings, updates: int, families: Sequence[str]) -> list[PruningStep]:
    steps = settings.steps or GRADUAL_STEPS
    return [
        PruningStep(round(settings.pruning_end * updates * step / steps), step / steps, cubic)
        for step in range(1, steps + 1)
    ]


def _prune_and_regrow(settings: ScheduleSettings, updates: int, families: Sequence[str]) -> list[PruningStep]:
    steps = settings.steps or GRADUAL_STEPS
    start, end = settings.pruning_end * updates, max(settings.pruning_end, REGROWTH_END) * updates
    # Steps after the final rate exchange removed weights for others.
    spacing = max(1, round((start or end) / steps))
    afterwards = [
        PruningStep(update, 1.0, cubic) for update in range(round(start) + spacing, round(end) + 1, spacing)
    ]
    return [*_gradual(settings, updates, families), *afterwards]


def _rigl(settings: ScheduleSettings, updates: int, families: Sequence[str]) -> list[PruningStep]:
    """Evci et al. 2020, arXiv 1911.11134: fewer and fewer weights are exchanged, at last none."""
    steps = settings.steps or GRADUAL_STEPS
    end = max(settings.pruning_end, REGROWTH_END) * updates
    exchanges = [
        PruningStep(
            # Never in place of the first mask.
            max(1, round(end * step / steps)),
            1.0,
            kind="exchange",
            share=EXCHANGED * (1 + math.cos(math.pi * step / steps)) / 2,
        )
        for step in range(1, steps + 1)
    ]
    return [ONE_SHOT, *exchanges]


def _ac_dc(settings: ScheduleSettings, updates: int, families: Sequence[str]) -> list[PruningStep]:
    """Peste et al. 2021, arXiv 2106.12379: dense and sparse phases of equal length, and a longer sparse one."""
    phases = 2 * (settings.steps or SPARSE_PHASES) - 1
    return [
        PruningStep(
            round(settings.pruning_end * updates * phase / phases), 1.0, kind="prune" if phase % 2 else "lift"
        )
        for phase in range(1, phases + 1)
    ]


@dataclass(frozen=True)
class _Plan:
    """The steps of a schedule; `regrows`: see `Schedule`."""

    steps: Callable[[ScheduleSettings, int, Sequence[str]], list[PruningStep]]
    regrows: bool = False


_SCHEDULES: dict[str, _Plan] = {
    "one-shot": _Plan(_one_shot),
    "iterative": _Plan(_iterative),
    "gradual": _Plan(_gradual),
    "prune-and-regrow": _Plan(_prune_and_regrow, regrows=True),
    "rigl": _Plan(_rigl),
    "ac-dc": _Plan(_ac_dc),
}
