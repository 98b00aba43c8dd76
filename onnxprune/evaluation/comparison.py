"""The comparison of two models on the same samples: by the metric of the labels, and output by output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxprune.data.dataset import Dataset
from onnxprune.data.specs import InputSpec, fixed_batch
from onnxprune.evaluation.metrics import RunningScore, Score
from onnxprune.evaluation.runs import BATCH_SAMPLES, batches, run_batch


@dataclass(frozen=True)
class Tolerance:
    """Two elements a and b are the same where |a - b| <= absolute + relative * |a|, and NaN is the same as NaN."""

    relative: float = 0.0
    absolute: float = 0.0


@dataclass(frozen=True)
class OutputDifference:
    """One output of both models on the same inputs.

    `cosine`: cosine similarity; `absolute`: largest absolute difference; `relative`: the same divided by the largest
    absolute value; `agreement`: fraction of samples with the same arg-max (None where the output has no class axis);
    `mismatched`: how many of its `elements` differ by more than the tolerance, all of them if the shapes differ.
    """

    output: str
    cosine: float
    absolute: float
    relative: float
    agreement: float | None
    elements: int
    mismatched: int


@dataclass(frozen=True)
class Evaluation:
    """The baseline (the input model) and the pruned model on the same samples; scores are None without labels."""

    data: str
    samples: int
    baseline: Score | None
    pruned: Score | None
    outputs: tuple[OutputDifference, ...]
    drop_error: float | None = None
    """The standard error of `drop()`, from the samples' own differences; None where it is not known."""

    def drop(self) -> float:
        """How much worse the pruned model is: by its metric, else 1 - agreement, else 1 - cosine."""
        if self.baseline is not None and self.pruned is not None:
            return self.baseline.metric.drop(self.baseline.value, self.pruned.value)
        first = self.outputs[0]
        return 1 - (first.cosine if first.agreement is None else first.agreement)

    def relative(self) -> float:
        """The largest relative difference of any output."""
        return max(output.relative for output in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """The evaluation in JSON types."""
        return asdict(self) | {"drop": self.drop()}


def compare(
    baseline: ort.InferenceSession,
    pruned: ort.InferenceSession,
    data: Dataset,
    specs: list[InputSpec],
    progress: Callable[[float], None] = lambda fraction: None,
    tolerance: Tolerance = Tolerance(),
) -> Evaluation:
    """Run both models on all of `data`.

    Raises:
        DataError: a model does not run on the data, or the labels do not fit its first output.
    """
    names = [output.name for output in baseline.get_outputs()]
    fixed = None if data.whole else fixed_batch(specs)
    differences = [_Difference(tolerance) for _ in names]
    scores = (RunningScore(), RunningScore())
    done = 0
    for batch in batches(data, fixed or BATCH_SAMPLES):
        results = [run_batch(session, batch, fixed) for session in (baseline, pruned)]
        for difference, old, new in zip(differences, *results, strict=True):
            difference.add(old, new)
        if batch.labels:
            for score, outputs in zip(scores, results, strict=True):
                score.add(outputs[0], batch.labels[""], data.name)
        done += len(batch)
        progress(done / len(data))
    found = [score.result() for score in scores]
    moved = tuple(difference.result(name) for difference, name in zip(differences, names, strict=True))
    error = differences[0].agreement_error() if found[0] is None else scores[0].drop_error(scores[1])
    return Evaluation(data.name, len(data), found[0], found[1], moved, error)


class _Difference:
    """Running sums of one output's differences."""

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self.dot = self.norm_old = self.norm_new = self.absolute = self.largest = 0.0
        self.agreeing = self.compared = self.elements = self.mismatched = 0

    def add(self, old: Any, new: Any) -> None:
        # Values that are not finite count as differences; numpy's warnings about them are not needed.
        with np.errstate(all="ignore"):
            self._add(old, new)

    def _add(self, old: Any, new: Any) -> None:
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for one, other in zip(old, new, strict=True):
                self.add(one, other)
            return
        size = old.size if isinstance(old, np.ndarray) else 1
        self.elements += size
        if not isinstance(old, np.ndarray) or old.dtype.kind not in "fiub":
            self.mismatched += 0 if np.array_equal(old, new) else size
            return
        if old.shape != new.shape or old.dtype != new.dtype:
            self.absolute = self.largest = np.inf
            self.mismatched += size
            return
        if old.ndim >= 2 and old.shape[-1] > 1 and old.dtype.kind == "f":
            same = old.argmax(-1) == new.argmax(-1)
            self.agreeing += int(same.sum())
            self.compared += same.size
        old64, new64 = old.astype(np.float64).ravel(), new.astype(np.float64).ravel()
        self.dot += float(old64 @ new64)
        self.norm_old += float(old64 @ old64)
        self.norm_new += float(new64 @ new64)
        same = np.isclose(new64, old64, self.tolerance.relative, self.tolerance.absolute, equal_nan=True)
        self.mismatched += int(np.count_nonzero(~same))
        if old64.size:
            self.absolute = max(self.absolute, float(np.abs(old64 - new64).max()))
            self.largest = max(self.largest, float(np.abs(old64).max()))

    def result(self, name: str) -> OutputDifference:
        with np.errstate(all="ignore"):
            norms = np.sqrt(self.norm_old * self.norm_new)
            cosine = self.dot / norms if norms else float(self.norm_old == self.norm_new)
            relative = self.absolute / self.largest if self.largest else float(self.absolute > 0)
        agreement = self.agreeing / self.compared if self.compared else None
        return OutputDifference(
            name, float(cosine), self.absolute, float(relative), agreement, self.elements, self.mismatched
        )

    def agreement_error(self) -> float | None:
        """The standard error of the agreement."""
        if not self.compared:
            return None
        share = self.agreeing / self.compared
        return max(np.sqrt(share * (1 - share) / self.compared), 1 / self.compared)
