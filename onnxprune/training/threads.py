"""The threads that torch computes on: sums are split among them, so their number affects the last bits of a result."""

from __future__ import annotations

import torch


def threads() -> int:
    """The number of threads that training uses in this process."""
    return torch.get_num_threads()


def use_threads(count: int) -> None:
    """Have training use this number of threads in this process from now on."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
