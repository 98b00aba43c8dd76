"""When weights go: the cuts on the way to the rate, by updates of the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onnxprune.config.settings import PruneConfig
from onnxprune.pruning.allocation import Pool

# Cuts on the way where `--steps` is not given.
ITERATIVE_STEPS = 10
GRADUAL_STEPS = 100
# Share of the training after which spliced masks are fixed; before it, weights go and come back.
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
class Turn:
    """One cut, after so many `updates`, when `part` (0 to 1) of the way to the rate is to be done.

    `family`: only the layers of this kind (`layer_family`) are cut, and the others fixed until the next turn.
    """

    update: int
    part: float
    way: Way = equal_shares
    family: str | None = None

    def rate(self, final: float) -> float:
        """What is to be gone by now of a fraction to remove."""
        return self.way(final, self.part)

    def threshold(self, final: float) -> float:
        """What is to be the threshold by now: thresholds grow in proportion to the way."""
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


# The whole way in one cut.
AT_ONCE = Turn(0, 1.0)


def layer_family(op_type: str) -> str:
    """Which of the two kinds of layers an operator makes, which the paper prunes in turns."""
    return "convolution" if "Conv" in op_type else "other"


def turns(config: PruneConfig, updates: int, families: Sequence[str] = ()) -> tuple[Turn, ...]:
    """The cuts of a training of so many updates, by update; the last one completes the way.

    `families`: the kinds of layers that there are, for `--alternate`.
    """
    planned = _SCHEDULES[config.schedule](config, updates, families)
    # Of several cuts at one update, which short trainings have, the last one says it all.
    return tuple({turn.update: turn for turn in planned}.values())


def _one_shot(config: PruneConfig, updates: int, families: Sequence[str]) -> list[Turn]:
    return [AT_ONCE]


def _iterative(config: PruneConfig, updates: int, families: Sequence[str]) -> list[Turn]:
    steps = config.steps or ITERATIVE_STEPS
    kinds: Sequence[str | None] = families if config.alternate and len(families) > 1 else (None,)
    cuts = steps * len(kinds)
    planned = [
        Turn(
            round(config.approach * updates * cut / cuts),
            (cut // len(kinds) + 1) / steps,
            family=kinds[cut % len(kinds)],
        )
        for cut in range(cuts)
    ]
    # The last one counts over all layers, so that the rate comes out exactly.
    return [*planned[:-1], replace(planned[-1], family=None)]


def _gradual(config: PruneConfig, updates: int, families: Sequence[str]) -> list[Turn]:
    steps = config.steps or GRADUAL_STEPS
    return [
        Turn(round(config.approach * updates * step / steps), step / steps, cubic)
        for step in range(1, steps + 1)
    ]


def _splice(config: PruneConfig, updates: int, families: Sequence[str]) -> list[Turn]:
    steps = config.steps or GRADUAL_STEPS
    start, end = config.approach * updates, max(config.approach, SETTLED) * updates
    # Without a way to the rate, the steps are for what comes back.
    spacing = max(1, round((start or end) / steps))
    afterwards = [
        Turn(update, 1.0, cubic) for update in range(round(start) + spacing, round(end) + 1, spacing)
    ]
    return [*_gradual(config, updates, families), *afterwards]


_SCHEDULES: dict[str, Callable[[PruneConfig, int, Sequence[str]], list[Turn]]] = {
    "one-shot": _one_shot,
    "iterative": _iterative,
    "gradual": _gradual,
    "splice": _splice,
}
