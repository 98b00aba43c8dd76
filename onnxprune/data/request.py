"""What a reader of data must know beside the text that names it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.data.specs import InputSpec

TRAIN, VALIDATION = "train", "val"


@dataclass(frozen=True)
class Request:
    """The inputs that the data is for, the text of --transform, and which part of a data set of several is meant.

    `split`: "train", "val" or "test", as data sets name their parts.
    """

    specs: list[InputSpec]
    transform: str | None = None
    split: str = TRAIN
