"""What a metric scores: a model's output on a batch, with the labels in the form of their kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.data.images.pixels import COUNTS
from onnxprune.evaluation.labels import LabelForm

Records = Any
"""What a metric keeps of samples: an array with a row for each sample or block of samples, or a list of samples."""


@dataclass(frozen=True)
class Predictions:
    """A model's outputs on a batch, and the labels of one of them, normalized by `form`.

    `output`: the labeled output, or what --postprocess makes of all of them. `outputs` and `inputs`: by name.
    `made`: whether --postprocess made the output.
    """

    output: Any
    labels: np.ndarray
    form: LabelForm
    outputs: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    made: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def given(self) -> Any:
        """What users' functions get: the outputs by name, or what --postprocess made of them."""
        return self.output if self.made else dict(self.outputs)

    def image_size(self) -> tuple[int, int]:
        """The height and the width of the first input that is an image (N, C, H, W) or (N, H, W, C); else 1, 1."""
        for array in self.inputs.values():
            if array.ndim == 4:
                rows, columns = array.shape[2:] if array.shape[1] in COUNTS else array.shape[1:3]
                return int(rows), int(columns)
        return 1, 1


def ratio(records: np.ndarray) -> float:
    """The mean of records (n,), or the sum of a first column divided by that of a second."""
    if records.ndim == 1:
        return float(records.mean(dtype=np.float64))
    sums, counts = records.sum(0, dtype=np.float64)
    return float(sums / counts) if counts else float("nan")


def joined(parts: list[Records]) -> Records:
    """Records of batches, or of processes, in order."""
    if not parts or isinstance(parts[0], list):
        return [record for part in parts for record in part]
    return np.concatenate(parts)
