"""What is asked of a reader: the inputs to read, how images become inputs, and which part of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.data.specs import InputSpec

TRAIN, VALIDATION = "train", "val"


@dataclass(frozen=True)
class Request:
    """The inputs of a model; `transform` and `label_offset`: see the settings of those names.

    `split`: which part is meant where data names several, as a YAML file of Ultralytics does.
    """

    specs: Sequence[InputSpec]
    transform: str | None = None
    label_offset: int = 0
    split: str = TRAIN

    def common_batch(self) -> bool:
        """Whether the first axes of all inputs can be the batch axis: not so for x [N, 8] with a state [2, N, 4]."""
        firsts = {spec.shape[0] for spec in self.specs if spec.shape}
        return len(firsts) == 1 or not any(isinstance(first, int) for first in firsts)
