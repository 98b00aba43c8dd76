"""An average of the weights over the updates, which is often better than the last weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from onnxprune.training.session import PruningSession

# The moving average looks back over this share of an epoch.
HORIZON = 1.0


class Average:
    """The average of a session's weights since its masks are settled, so that exact zeros stay zero.

    `kind`: "none", "ema" or "swa"; `horizon`: the updates that a moving average looks back over. The average is the
    same in every process, because the weights are.
    """

    def __init__(self, session: PruningSession, kind: str, horizon: float):
        self._session = session
        self._share = _SHARES[kind]
        self._horizon = max(1.0, horizon)
        self._count = 0
        self._tensors: list[torch.Tensor] = []

    @property
    def differs(self) -> bool:
        """Whether there is an average of more than one state."""
        return self._count > 0

    def follow(self) -> None:
        """Take in the weights after an update."""
        if self._share is None or not self._session.settled:
            return
        weights = self._weights()
        if not self._tensors:
            self._tensors = [weight.clone() for weight in weights]
            return
        # (Any: torch's stubs do not accept lists of tensors.)
        averages: Any = self._tensors
        torch._foreach_lerp_(averages, weights, self._share(self._count, self._horizon))
        self._count += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the place of the weights; they come back at the end, with the statistics of norms."""
        statistics = list(self._session.modes.statistics(self._session.module).values())
        held = [*self._weights(), *statistics]
        before = [tensor.clone() for tensor in held]
        _copy(self._tensors, self._weights())
        try:
            yield
        finally:
            _copy(before, held)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {"count": self._count, "tensors": self._tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict()` of the same job."""
        self._count = state["count"]
        self._tensors = [
            torch.empty_like(weight).copy_(tensor)
            for weight, tensor in zip(self._weights(), state["tensors"], strict=False)
        ]

    def _weights(self) -> list[torch.Tensor]:
        return [each.detach() for each in self._session.parameters.values() if each.requires_grad]


def _copy(sources: list[torch.Tensor], targets: list[torch.Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def _moving(count: int, horizon: float) -> float:
    """A decay of 1 - 1 / horizon; at first less, so that the weights at the start are soon forgotten."""
    return 1 - min(1 - 1 / horizon, (1 + count) / (10 + count))


def _equal(count: int, horizon: float) -> float:
    """Every update has the same share (Izmailov et al. 2018, arXiv 1803.05407)."""
    return 1 / (count + 2)


# The share of the newest weights, by the number of averaged updates before and the horizon.
_SHARES: dict[str, Callable[[int, float], float] | None] = {"none": None, "ema": _moving, "swa": _equal}
