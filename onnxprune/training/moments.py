"""The variance of values that come in batches."""

from __future__ import annotations

import torch


class Moments:
    """Count, sum and sum of squares of the elements of tensors, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.squares = 0.0

    def add(self, values: torch.Tensor) -> None:
        """Count all elements."""
        wide = values.detach().double()
        self.count += wide.numel()
        self.total += float(wide.sum())
        self.squares += float(wide.square().sum())
