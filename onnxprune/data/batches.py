"""Joining the batches that a caller yields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from onnxprune.errors import DataError


def concatenate(batches: Iterable[Any], name: str) -> dict[str, np.ndarray]:
    """Concatenate batches {name: array} along the first axis; scalars are those of the first batch.

    Raises:
        DataError: there are no batches, they do not fit together, or the code that yields them fails.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for count, batch in enumerate(_guarded(batches, name)):
        if not isinstance(batch, Mapping):
            raise DataError(
                f"batch {count} of {name} is a {type(batch).__name__}: each must be a dict {{input name: array}}"
            )
        if count and set(batch) != set(columns):
            raise DataError(
                f"batch {count} of {name} has the names {sorted(batch)}, the first batch {sorted(columns)}: "
                "use the same names in all batches"
            )
        for key, array in batch.items():
            columns.setdefault(str(key), []).append(np.asarray(array))
    if not columns:
        raise DataError(f"{name} yields no batch: give at least 2 samples")
    try:
        return {key: np.concatenate(parts) if parts[0].ndim else parts[0] for key, parts in columns.items()}
    except ValueError as error:
        raise DataError(
            f"the batches of {name} do not fit together: {error}; use the same shapes but for the first axis"
        ) from None


def _guarded(batches: Iterable[Any], name: str) -> Iterator[Any]:
    """The batches; an exception of the user's code becomes a DataError."""
    try:
        yield from batches
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name} failed while yielding batches: {type(error).__name__}: {error}") from error
