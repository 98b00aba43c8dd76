"""When weights are removed: the pruning steps on the way to the rate, by updates of the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onnxprune.config.training import ScheduleSettings
from onnxprune.pruning.allocation import Pool

# Pruning steps where `--steps` is not given.
ITERATIVE_STEPS = 10
GRADUAL_STEPS = 100
# Share of the training after which masks with regrowth are fixed.
SETTLED = 0.75

Way = Callable[[float, float], float]


def equal_shares(rate: float, part: float) -> float:
    """The rate at a part (0 to 1) of the way: equal parts remove equal fractions of what is left.

    So does repeated pruning by a fixed share (Han et al. 2015, section 3.4).
    """
    return rate if part == 1 else 1 - (1 - rate) ** part


def cubic(rate: float, part: float) -> float:
    """The rate at a part (0 to 1) of the way: fast at first, while many weights are redundant (Zhu & Gupta 2017)."""
    return rate * (1 - (1 - part) ** 3)


@dataclass(frozen=True)
class PruningStep:
    """One pruning step, after so many updates (`update`), when `part` (0 to 1) of the way to the rate is to be done.

    `family`: only the layers of this kind (`layer_family`) are pruned, and the others fixed until the next step.
    """

    update: int
    part: float
    way: Way = equal_shares
    family: str | None = None

    def rate(self, final: float) -> float:
        """The fraction that is to be removed by now, of a final one."""
        return self.way(final, self.part)

    def threshold(self, final: float) -> float:
        """The threshold by now: thresholds grow in proportion to the way."""
        return final * (self.part if self.way is equal_shares else self.way(1.0, self.part))

    def pools(self, pools: Sequence[Pool]) -> list[Pool]:
        """The pools as they are by now."""
        return [
            replace(
                pool,
                rate=None if pool.rate is None else self.rate(pool.rate),
                threshold=None if pool.threshold is None else self.threshold(pool.threshold),
            )
            for pool in pools
        ]


# The whole way in one step.
ONE_SHOT = PruningStep(0, 1.0)


@dataclass(frozen=True)
class Schedule:
    """The pruning steps of a training, by update; the last one completes the way.

    `regrows`: masked weights go on being trained and return when they grow (Guo et al. 2016, dynamic network surgery);
    `regrow_zeros`: so do those that are zero in the input model.
    """

    steps: tuple[PruningStep, ...]
    regrows: bool = False
    regrow_zeros: bool = False


def layer_family(op_type: str) -> str:
    """Which of the two kinds of layers an operator makes, which the paper prunes alternately."""
    return "convolution" if "Conv" in op_type else "other"


def make_schedule(settings: ScheduleSettings, updates: int, families: Sequence[str] = ()) -> Schedule:
    """The schedule of a training of so many updates; `families`: the kinds of layers, for `--alternate`."""
    planned = _SCHEDULES[settings.schedule](settings, updates, families)
    # Of several steps at one update, which short trainings have, the last one says it all.
    steps = tuple({step.update: step for step in planned}.values())
    return Schedule(steps, settings.schedule == "prune-and-regrow", settings.regrow_zeros)


def _one_shot(settings: ScheduleSettings, updates: int, families: Sequence[str]) -> list[PruningStep]:
    return [ONE_SHOT]


def _iterative(settings: ScheduleSettings, updates: int, families: Sequence[str]) -> list[PruningStep]:
    steps = settings.steps or ITERATIVE_STEPS
    kinds: Sequence[str | None] = families if settings.alternate and len(families) > 1 else (None,)
    count = steps * len(kinds)
    planned = [
        PruningStep(
            round(settings.pruning_end * updates * index / count),
            (index // len(kinds) + 1) / steps,
            family=kinds[index % len(kinds)],
        )
        for index in range(count)
    ]
    # The last one counts over all layers, so that the rate comes out exactly.
    return [*planned[:-1], replace(planned[-1], family=None)]


def _gradual(settings: ScheduleSettings, updates: int, families: Sequence[str]) -> list[PruningStep]:
    steps = settings.steps or GRADUAL_STEPS
    return [
        PruningStep(round(settings.pruning_end * updates * step / steps), step / steps, cubic)
        for step in range(1, steps + 1)
    ]


def _prune_and_regrow(settings: ScheduleSettings, updates: int, families: Sequence[str]) -> list[PruningStep]:
    steps = settings.steps or GRADUAL_STEPS
    start, end = settings.pruning_end * updates, max(settings.pruning_end, SETTLED) * updates
    # Without a way to the rate, the steps are for what returns.
    spacing = max(1, round((start or end) / steps))
    afterwards = [
        PruningStep(update, 1.0, cubic) for update in range(round(start) + spacing, round(end) + 1, spacing)
    ]
    return [*_gradual(settings, updates, families), *afterwards]


_SCHEDULES: dict[str, Callable[[ScheduleSettings, int, Sequence[str]], list[PruningStep]]] = {
    "one-shot": _one_shot,
    "iterative": _iterative,
    "gradual": _gradual,
    "prune-and-regrow": _prune_and_regrow,
}
