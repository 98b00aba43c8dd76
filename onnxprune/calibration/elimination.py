"""The order in which coupled channels go: each time those without which the layers that read them miss the least.

A layer reads x and gives W x. Without the inputs in J, the others make up for them by least squares, and the squared
error grows by tr (T_J (A_JJ)^-1 T_J^T), where A is the inverse of the second moments H of the inputs that are left, and
T are the weights fitted so far (Hassibi & Stork 1992, for blocks of columns). Both follow by T -= T_J A_JJ^-1 A_J and
A -= A_*J A_JJ^-1 A_J*.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

# As a fraction of the mean of H's diagonal: at least this, and more where H is of few columns for its size. With as
# many inputs as columns, a fit would follow the columns and nothing else: MobileNetV2 at 1.3x had 86 % error.
DAMPING = 1e-3
SPARSE_DAMPING = 0.1


@dataclass(frozen=True)
class Reader:
    """A layer that reads the channels: `weights` (outputs, inputs) and second moments (inputs, inputs) of its inputs.

    `columns`: for each channel, the indices of the inputs that come from it. `count`: of how many columns the moments
    are.
    """

    weights: np.ndarray
    second: np.ndarray
    columns: Sequence[np.ndarray]
    count: int

    @property
    def damping(self) -> float:
        """What is added to the diagonal of H."""
        share = max(DAMPING, SPARSE_DAMPING * len(self.second) / max(self.count, 1))
        return share * float(np.einsum("ii->i", self.second).mean()) + float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Elimination:
    """`order`: indices of the channels, the first to go first, so many as were asked for.

    `errors`: by how much each adds to the readers' squared errors, each relative to the energy of the reader's outputs.
    `weights`: by number of channels gone, the fitted weights of each reader, (outputs, inputs).
    """

    order: np.ndarray
    errors: np.ndarray
    weights: dict[int, list[np.ndarray]]


def eliminate(
    readers: Sequence[Reader],
    most: int,
    stops: Collection[int] = (),
    given: Sequence[int] | np.ndarray | None = None,
) -> Elimination:
    """Remove `most` channels one by one, greedily, or in the order `given`.

    `stops`: the numbers of channels gone at which fitted weights are wanted.
    """
    parts = [_Part(reader) for reader in readers]
    left = np.ones(len(readers[0].columns), bool)
    order: list[int] = []
    errors: list[float] = []
    weights: dict[int, list[np.ndarray]] = {}
    for number in range(most + 1):
        if number in stops:
            weights[number] = [part.weights() for part in parts]
        if number == most:
            break
        losses = np.sum([part.losses() for part in parts], axis=0)
        losses[~left] = np.inf
        found = int(losses.argmin() if given is None else given[number])
        order.append(found)
        errors.append(float(losses[found]))
        left[found] = False
        for part in parts:
            part.remove(found)
    return Elimination(np.array(order, np.int64), np.array(errors), weights)


class _Part:
    """The state of one reader during an elimination; inputs are ordered by channel."""

    def __init__(self, reader: Reader):
        size = len(reader.second)
        self._columns = reader.columns
        damped = reader.second + reader.damping * np.eye(size)
        self._inverse = np.linalg.inv(damped)
        self._fitted = reader.weights.astype(np.float64)
        self._energy = max(float(((self._fitted @ damped) * self._fitted).sum()), np.finfo(np.float32).tiny)
        widths = {len(columns) for columns in reader.columns}
        # Channels with equally many inputs, as nearly always, are compared at once.
        self._table = np.stack(reader.columns) if len(widths) == 1 else None

    def losses(self) -> np.ndarray:
        """The relative growth of the squared error without each channel; of one that is gone, without meaning."""
        if self._table is None:
            return np.array([self._loss(columns) for columns in self._columns]) / self._energy
        if self._table.shape[1] == 1:
            columns = self._table[:, 0]
            squares = np.square(self._fitted[:, columns]).sum(0)
            return squares / np.maximum(np.einsum("ii->i", self._inverse)[columns], 1e-300) / self._energy
        blocks = self._inverse[self._table[:, :, None], self._table[:, None, :]]
        gone = np.einsum("cii->ci", blocks) == 0
        np.einsum("cii->ci", blocks)[gone] = 1.0
        fitted = self._fitted[:, self._table].transpose(1, 2, 0)
        return np.einsum("cio,cio->c", fitted, _solve(blocks, fitted)) / self._energy

    def _loss(self, columns: np.ndarray) -> float:
        block, fitted = self._inverse[np.ix_(columns, columns)], self._fitted[:, columns]
        if not len(columns) or not np.diag(block).all():
            return 0.0
        return float((_solve(block, fitted.T) * fitted.T).sum())

    def remove(self, channel: int) -> None:
        """Let the remaining inputs make up for a channel."""
        columns = self._columns[channel]
        if not len(columns):
            return
        rows = self._inverse[columns]
        solved = _solve(rows[:, columns], rows)
        self._fitted -= self._fitted[:, columns] @ solved
        self._inverse -= rows.T @ solved
        self._fitted[:, columns] = 0
        self._inverse[columns] = 0
        self._inverse[:, columns] = 0

    def weights(self) -> np.ndarray:
        return self._fitted.copy()


def _solve(blocks: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The least-squares solution for symmetric blocks: inputs that are all alike leave nothing to make up for."""
    try:
        return np.linalg.solve(blocks, right)
    except np.linalg.LinAlgError:
        return np.linalg.pinv(blocks, hermitian=True) @ right
