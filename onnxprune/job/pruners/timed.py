"""Channels for a share of the latency: what is chosen is cut, timed beside the model, and chosen again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxprune.data.batch import Batch
from onnxprune.model.files.sessions import open_session
from onnxprune.model.files.staging import staging
from onnxprune.pruning.channels import Choice
from onnxprune.runtime.timing import Timing, fastest, quickest, session_options, take_turns
from onnxprune.surgery import UnitGroups, remove_units

# For both models together; slow ones get fewer rounds.
SECONDS = 1.5
MOST_ROUNDS, FEWEST_ROUNDS = 25, 3
# A model this much faster than asked is near enough, as a fraction of the input model's latency: timings differ by it.
NEAR = 0.015
MOST_TRIED = 8
# Parts this near to each other, of all that the layers take, choose the same: channels that go in large steps.
SAME = 0.002


class Clock:
    """The latency of copies of a model without some of its channels, beside that of the model, on the first sample.

    Raises:
        ModelFileError: onnxruntime refuses the model.
    """

    def __init__(self, model: ir.Model, groups: UnitGroups, data: Batch):
        self._model, self._groups = model, groups
        self._feeds = data.feeds()
        self._dense = self._run(model.clone())

    def time(self, chosen: np.ndarray) -> Timing:
        """Seconds of the model, and of a copy without the chosen groups; without any, the same twice."""
        if not len(chosen) and not any(self._groups.dead):
            alone = min(quickest(self._dense, SECONDS / FEWEST_ROUNDS) for _ in range(FEWEST_ROUNDS))
            return Timing(alone, alone, 1.0)
        narrow = self._model.clone()
        remove_units(narrow, self._groups, chosen)
        runs = self._dense, self._run(narrow)
        once = sum(quickest(run, 0) for run in runs)
        rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(SECONDS / once)))
        each = SECONDS / rounds / len(runs)
        return fastest(*take_turns([partial(quickest, run, each) for run in runs], rounds))

    def _run(self, model: ir.Model) -> Callable[[], object]:
        with staging(None) as stage:
            stage.write(model)
            session = open_session(stage.path, session_options())
        return partial(session.run, None, self._feeds)


def within_time(
    choose: Callable[[float], Choice], time: Callable[[np.ndarray], Timing], share: float, begin: float
) -> tuple[float, Choice, Timing]:
    """The channels without which the model takes at most a share of its latency, and as near to that as can be.

    `choose`: for a share by the table of the layers, which says nothing of what stands between them; `begin`: the
    first that is tried. Returns that share as well. Where none is fast enough, the fastest; where none is faster than
    the model, what loses least.
    """
    tried: list[tuple[float, Choice, Timing]] = []
    # Parts that are fast enough, and that are not, with what they take; the whole model takes all.
    fast, slow = (0.0, 0.0), (1.0, 1.0)
    part = begin
    while len(tried) < MOST_TRIED:
        choice = choose(part)
        # What was timed already says on which side the part is.
        alike = next((timing for _, one, timing in tried if np.array_equal(one.chosen, choice.chosen)), None)
        timing = time(choice.chosen) if alike is None else alike
        if alike is None:
            tried.append((part, choice, timing))
        taken = timing.other / timing.dense
        if share - NEAR <= taken <= share:
            break
        if taken <= share:
            fast = part, taken
        else:
            slow = part, taken
        if slow[0] - fast[0] < SAME:
            break
        part = _between(fast, slow, share) if alike is None else (fast[0] + slow[0]) / 2
    fits = [one for one in tried if one[2].other <= share * one[2].dense]
    if fits:
        return max(fits, key=lambda one: one[2].other / one[2].dense)
    fastest_one = min(tried, key=lambda one: one[2].other / one[2].dense)
    if fastest_one[2].other < fastest_one[2].dense:
        return fastest_one
    least = choose(1.0)
    return 1.0, least, time(least.chosen)


def _between(fast: tuple[float, float], slow: tuple[float, float], share: float) -> float:
    """Where a line between two points takes the share, not too near to either."""
    (low, at_low), (high, at_high) = fast, slow
    inside = (share - at_low) / (at_high - at_low) if at_high > at_low else 0.5
    return low + min(max(inside, 0.1), 0.9) * (high - low)
