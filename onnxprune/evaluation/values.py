"""What onnxruntime gives for outputs that are not tensors: sequences as lists, maps as dicts, optional ones as None."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def arrays_of(output: Any) -> Iterator[np.ndarray]:
    """The arrays of an output, one after the other; of a list of maps to numbers (ZipMap) one (samples, keys)."""
    if isinstance(output, np.ndarray):
        yield output
    elif isinstance(output, list) and output and all(isinstance(each, dict) for each in output):
        yield np.array([list(each.values()) for each in output])
    elif isinstance(output, list | dict):
        for each in output if isinstance(output, list) else output.values():
            yield from arrays_of(each)
    elif output is not None:
        yield np.asarray(output)
