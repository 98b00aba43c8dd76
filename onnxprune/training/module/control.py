"""If and Loop as torch modules around the graphs of their bodies."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

Values = tuple[Any, ...]


class Branches(nn.Module):
    """ONNX If: one of two graphs; each takes the outer values that it reads."""

    def __init__(self, then_branch: nn.Module, else_branch: nn.Module):
        super().__init__()
        self.then_branch = then_branch
        self.else_branch = else_branch

    def forward(self, condition: Tensor, then_values: Values, else_values: Values) -> Values:
        return self.then_branch(*then_values) if condition else self.else_branch(*else_values)


class Repetition(nn.Module):
    """ONNX Loop: a graph run repeatedly; `carried` values are passed on, `scanned` outputs are stacked."""

    def __init__(self, body: nn.Module, carried: int, scanned: int):
        super().__init__()
        self.body = body
        self.carried = carried
        self.scanned = scanned

    def forward(self, limit: Tensor | None, condition: Tensor | None, state: Values, outer: Values) -> Values:
        """state: the carried values at the start; outer: the outer values that the body reads."""
        scans: list[list[Tensor]] = [[] for _ in range(self.scanned)]
        proceed = True if condition is None else bool(condition)
        for index in itertools.count() if limit is None else range(int(limit)):
            if not proceed:
                break
            keep_on, *results = self.body(torch.tensor(index), torch.tensor(True), *state, *outer)
            proceed, state = bool(keep_on), tuple(results[: self.carried])
            for scan, result in zip(scans, results[self.carried :], strict=True):
                scan.append(result)
        return *state, *(torch.stack(scan) if scan else torch.zeros(0) for scan in scans)
