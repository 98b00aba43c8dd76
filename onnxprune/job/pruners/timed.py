"""Channels for a share of the latency: what is chosen is cut, timed beside the model, and chosen again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

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
# Of what can be saved at most, this part is not worth the channels that it takes, where more is asked for.
UNSAVED = 0.05
# Parts this near to each other, of all that the layers take, choose the same: channels that go in large steps.
SAME = 0.002


class Clock:
    """The latency of copies of a model without some of its channels, beside that of the model, on the first sample.

    Raises:
        ModelFileError: onnxruntime refuses the model.
    """

    def __init__(self, model: ir.Model, groups: UnitGroups, data: Batch):
        # As it is now: channels that a step of a training has zeroed would leave it whatever is chosen later.
        self._model, self._groups = model.clone(), groups
        self._feeds = data.feeds()
        self._dense = self._run(self._model.clone())

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


class Found(NamedTuple):
    """The channels that go, what the model takes without them, and the `share` by the table that chose them.

    `least`: where the share that is asked for is out of reach, all that may go, and what the model takes then.
    """

    share: float
    choice: Choice
    timing: Timing
    least: tuple[Choice, Timing] | None = None


def within_time(
    choose: Callable[[float], Choice], time: Callable[[np.ndarray], Timing], share: float, begin: float
) -> Found:
    """The channels without which the model takes at most a share of its latency, and as near to that as can be.

    `choose`: for a share by the table of the layers, which says nothing of what stands between them; `begin`: the
    first that is tried. Where the model is not fast enough even without all that may go, the share is that of which
    all but `UNSAVED` of what can be saved is; where that is next to nothing, what loses least stays.
    """
    tried: list[tuple[float, Choice, Timing]] = []
    # Parts that are fast enough, and that are not, with what they take; the whole model takes all.
    fast, slow = (0.0, 0.0), (1.0, 1.0)
    part, least = begin, None
    while len(tried) < MOST_TRIED:
        choice = choose(part)
        # What was timed already says on which side the part is.
        alike = next((timing for _, one, timing in tried if np.array_equal(one.chosen, choice.chosen)), None)
        timing = time(choice.chosen) if alike is None else alike
        if alike is None:
            tried.append((part, choice, timing))
        taken = _taken(timing)
        if part == 0 and taken > share:
            if taken > 1 - NEAR:
                none = choose(1.0)
                return Found(1.0, none, time(none.chosen), (choice, timing))
            least, share = (choice, timing), taken + max(UNSAVED * (1 - taken), NEAR)
            parts = [(at, _taken(each)) for at, _, each in tried]
            slow = min((one for one in parts if one[1] > share), default=(1.0, 1.0))
            fast = max((one for one in parts if one[0] < slow[0]), default=(0.0, taken))
        elif share - NEAR <= taken <= share:
            break
        elif taken <= share:
            fast = part, taken
        else:
            slow = part, taken
        if slow[0] - fast[0] < SAME:
            break
        if fast[1] == 0 and (len(tried) == 2 or alike is not None):
            # Too slow twice, or no other channels to choose: is it in reach at all?
            part = 0.0
        elif alike is not None or least is not None:
            part = (fast[0] + slow[0]) / 2
        else:
            part = _between(fast, slow, share)
    fits = [one for one in tried if _taken(one[2]) <= share]
    if fits:
        # What loses least: where much saves nothing, the latencies differ by chance.
        return Found(*max(fits, key=lambda one: one[0]), least)
    return Found(*min(tried, key=lambda one: _taken(one[2])), least)


def _taken(timing: Timing) -> float:
    return timing.other / timing.dense


def _between(fast: tuple[float, float], slow: tuple[float, float], share: float) -> float:
    """Where a line between two points takes the share, not too near to either."""
    (low, at_low), (high, at_high) = fast, slow
    inside = (share - at_low) / (at_high - at_low) if at_high > at_low else 0.5
    return low + min(max(inside, 0.1), 0.9) * (high - low)
