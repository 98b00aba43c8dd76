"""The comparison of two models on the same samples: by the metric of the labels, and output by output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxprune.data.dataset import Dataset
from onnxprune.evaluation.answers import Answers, without_pictures
from onnxprune.evaluation.labels import LabelForm, label_forms
from onnxprune.evaluation.runs import BATCH_SAMPLES, check_runs, run_batch
from onnxprune.evaluation.scores import BY_KIND, Metrics, RunningScores, Score
from onnxprune.evaluation.sessions import drawn, restarted
from onnxprune.evaluation.significance import drop_error
from onnxprune.evaluation.values import arrays_of
from onnxprune.system.progress import Progress

# Kinds of numpy's types that differences are computed of.
NUMBERS = "fiub"


@dataclass(frozen=True)
class Tolerance:
    """Two elements a and b are the same where |a - b| <= absolute + relative * |a|, and NaN is the same as NaN."""

    relative: float = 0.0
    absolute: float = 0.0


@dataclass(frozen=True)
class OutputDifference:
    """One output of both models on the same inputs.

    `cosine`: cosine similarity; `absolute`: largest absolute difference; `relative`: the same divided by the largest
    absolute value; `agreement`: fraction of samples with the same arg-max, of integers the fraction of equal ones (None
    where the output has neither);
    `mismatched`: how many of its `elements` differ by more than the tolerance, all of them if the shapes differ.
    `not_finite`: how many of the baseline's are NaN or infinite; they count in no figure where the pruned model's are
    the same. `lost`: how many of the pruned model's are, and the baseline's are not: `absolute` is infinite then.
    `unlike`: where shapes or types differ, those of both models on the first such batch: `absolute` and `relative` are
    infinite then.
    """

    output: str
    cosine: float
    absolute: float
    relative: float
    agreement: float | None
    elements: int
    mismatched: int
    not_finite: int = 0
    lost: int = 0
    unlike: str = ""


@dataclass(frozen=True)
class Evaluation:
    """The baseline (the input model) and the pruned model on the same samples.

    `scores`: of both by each metric and output, the primary one first; none without labels.
    """

    data: str
    samples: int
    scores: tuple[tuple[Score, Score], ...]
    outputs: tuple[OutputDifference, ...]
    drop_error: float | None = None
    """The standard error of `drop()`, from the samples' own differences; None where it is not known."""

    draws: str = ""
    """Where a model draws random numbers, a sentence on whether both draw the same."""

    answers: dict[str, Any] | None = None
    """`Answers.result()`; None where the labels are no classes of samples."""

    @property
    def baseline(self) -> Score | None:
        """The primary score of the baseline."""
        return self.scores[0][0] if self.scores else None

    @property
    def pruned(self) -> Score | None:
        """The primary score of the pruned model."""
        return self.scores[0][1] if self.scores else None

    def drop(self) -> float:
        """How much worse the pruned model is: by its primary metric, in its unit, else 1 - agreement or 1 - cosine."""
        if self.scores:
            baseline, pruned = self.scores[0]
            return baseline.metric.drop(baseline.value, pruned.value)
        first = self._first
        return 1 - (first.cosine if first.agreement is None else first.agreement)

    @property
    def compares(self) -> bool:
        """Whether there is a score, or an output with elements."""
        return bool(self.scores) or self._first.elements > 0

    @property
    def _first(self) -> OutputDifference:
        """The first output with elements, which one of no boxes or of no columns has not."""
        return next((output for output in self.outputs if output.elements), self.outputs[0])

    def loss(self) -> float:
        """`drop()` relative to the baseline's value."""
        drop, whole = self.drop(), abs(self.scores[0][0].value) if self.scores else 1.0
        if drop == 0 or np.isnan(drop):
            return drop
        return drop / whole if whole else float(np.copysign(np.inf, drop))

    def drop_text(self, drop: float) -> str:
        """A drop in its unit, as it is shown."""
        return self.scores[0][0].metric.drop_text(drop) if self.scores else f"{drop:.2%}"

    def measured(self) -> str:
        """The name of what the drop is of."""
        if self.scores:
            return self.scores[0][0].metric.measured
        return "cosine similarity" if self._first.agreement is None else "agreement with the input model"

    def relative(self) -> float:
        """The largest relative difference of any output."""
        return max(output.relative for output in self.outputs)

    def to_dict(self, *, pictures: bool = False) -> dict[str, Any]:
        """The evaluation in JSON types; `baseline` and `pruned` are the primary scores.

        `pictures`: with those of samples whose answer changed.
        """
        scores = [{"baseline": old.to_dict(), "pruned": new.to_dict()} for old, new in self.scores]
        primary = scores[0] if scores else {"baseline": None, "pruned": None}
        found = {
            "data": self.data,
            "samples": self.samples,
            **primary,
            "scores": scores,
            "outputs": [asdict(output) for output in self.outputs],
            "drop": self.drop(),
            "drop_error": self.drop_error,
            "drop_text": self.drop_text(self.drop()),
            "loss": self.loss(),
            "draws": self.draws,
            "answers": self.answers,
        }
        return found if pictures else without_pictures(found)


def compare(
    baseline: ort.InferenceSession,
    pruned: ort.InferenceSession,
    data: Dataset,
    progress: Progress = lambda fraction: None,
    tolerance: Tolerance = Tolerance(),
    metrics: Metrics = BY_KIND,
) -> Evaluation:
    """Run both models on all of `data`.

    Raises:
        DataError: a model does not run on the data, the labels do not fit, or there are none for a named metric.
    """
    names = [output.name for output in baseline.get_outputs()]
    metrics.check_labeled(data)
    if not label_forms(data):
        data = check_runs(baseline, data, metrics)
    # Runs before have drawn.
    baseline, pruned = restarted(baseline), restarted(pruned)
    forms = label_forms(data)
    labeled = {key or names[0]: form for key, form in forms.items()}
    differences = [_Difference(tolerance, labeled.get(name)) for name in names]
    running = [RunningScores(metrics, forms, names) for _ in range(2)]
    answers = Answers.of(forms, names) if metrics.postprocess is None else None
    done = 0
    for batch in data.batches(BATCH_SAMPLES):
        results = [run_batch(session, batch) for session in (baseline, pruned)]
        for difference, old, new in zip(differences, *results, strict=True):
            difference.add(old, new)
        for each, outputs in zip(running, results, strict=True):
            each.add(outputs, batch)
        if answers is not None:
            answers.add(results, batch)
        done += len(batch)
        progress(done / len(data))
    scores = tuple(zip(running[0].results(), running[1].results(), strict=True))
    moved = tuple(difference.result(name) for difference, name in zip(differences, names, strict=True))
    tracks = [each.tracks for each in running]
    error = drop_error(tracks[0][0], tracks[1][0]) if scores else differences[0].agreement_error()
    draws = draws_text(drawn(baseline), drawn(pruned))
    found = None if answers is None else answers.result(data)
    return Evaluation(data.name, len(data), scores, moved, error, draws, found)


def draws_text(baseline: Mapping[str, str], pruned: Mapping[str, str]) -> str:
    """The sentence on operators that draw random numbers: their types by the name of their output, in both models."""
    if not baseline and not pruned:
        return ""
    kinds = ", ".join(sorted({*baseline.values(), *pruned.values()}))
    if baseline == pruned:
        return f"Random numbers ({kinds}) are the same in both models."
    return (
        f"The models draw different random numbers ({kinds}), so that their outputs cannot be compared: give two "
        "models in which the outputs of these operators have the same names."
    )


class _Difference:
    """Running sums of one output's differences; `form`: of its labels, if it has any."""

    def __init__(self, tolerance: Tolerance, form: LabelForm | None = None) -> None:
        self.tolerance = tolerance
        self.form = form
        self.dot = self.norm_old = self.norm_new = self.absolute = self.largest = 0.0
        self.agreeing = self.compared = self.elements = self.mismatched = 0
        self.not_finite = self.lost = 0
        self.unlike = ""

    def add(self, old: Any, new: Any) -> None:
        # Values that are not finite count as differences; numpy's warnings about them are not needed.
        with np.errstate(all="ignore"):
            self._add(old, new)

    def _add(self, old: Any, new: Any) -> None:
        for one, other in zip_longest(arrays_of(old), arrays_of(new), fillvalue=np.empty(0)):
            self._add_array(one, other)

    def _add_array(self, old: np.ndarray, new: np.ndarray) -> None:
        size = max(old.size, new.size)
        self.elements += size
        self.unlike = self.unlike or _unlike(old, new)
        if old.dtype.kind not in NUMBERS or new.dtype.kind not in NUMBERS:
            self.mismatched += 0 if np.array_equal(old, new) else size
            return
        old64, new64 = old.astype(np.float64).ravel(), new.astype(np.float64).ravel()
        counted = "f" not in (old.dtype.kind, new.dtype.kind)
        self.compared += size if counted else 0
        if old.shape != new.shape or old.dtype != new.dtype:
            # As many boxes as were found, for example.
            self.norm_old += float(old64 @ old64)
            self.norm_new += float(new64 @ new64)
            self.absolute = self.largest = np.inf
            self.mismatched += size
            return
        self.agreeing += int((old == new).sum()) if counted else 0
        axis = self._class_axis(old)
        if axis is not None:
            same = old.argmax(axis) == new.argmax(axis)
            self.agreeing += int(same.sum())
            self.compared += same.size
        same = np.isclose(new64, old64, self.tolerance.relative, self.tolerance.absolute, equal_nan=True)
        self.mismatched += int(np.count_nonzero(~same))
        finite = np.isfinite(old64)
        if not finite.all():
            self.not_finite += int(np.count_nonzero(~finite))
            old64, new64 = old64[finite | ~same], new64[finite | ~same]
        self.lost += int(np.count_nonzero(np.isfinite(old64) & ~np.isfinite(new64)))
        self.dot += float(old64 @ new64)
        self.norm_old += float(old64 @ old64)
        self.norm_new += float(new64 @ new64)
        if old64.size:
            farthest = float(np.abs(old64 - new64).max())
            self.absolute = np.inf if np.isnan(farthest) else max(self.absolute, farthest)
            self.largest = max(self.largest, float(np.abs(old64).max()))

    def _class_axis(self, output: np.ndarray) -> int | None:
        """The axis of the classes: that of the labels; else the last one, or that of the channels of maps."""
        if output.ndim < 2 or output.dtype.kind != "f":
            return None
        if self.form is not None:
            axis = self.form.axis if self.form.kind in ("classes", "positions", "soft") else None
        else:
            axis = 1 if output.ndim > 3 else output.ndim - 1
        return axis if axis is not None and output.shape[axis] > 1 else None

    def result(self, name: str) -> OutputDifference:
        with np.errstate(all="ignore"):
            norms = np.sqrt(self.norm_old * self.norm_new)
            cosine = self.dot / norms if norms else float(self.norm_old == self.norm_new)
            relative = self.absolute / self.largest if self.largest else float(self.absolute > 0)
            relative = np.inf if np.isinf(self.absolute) else relative
        agreement = self.agreeing / self.compared if self.compared else None
        return OutputDifference(
            name,
            float(cosine),
            self.absolute,
            float(relative),
            agreement,
            self.elements,
            self.mismatched,
            self.not_finite,
            self.lost,
            self.unlike,
        )

    def agreement_error(self) -> float | None:
        """The standard error of the agreement."""
        if not self.compared:
            return None
        share = self.agreeing / self.compared
        return max(np.sqrt(share * (1 - share) / self.compared), 1 / self.compared)


def _unlike(old: np.ndarray, new: np.ndarray) -> str:
    """The shapes of two outputs if they differ, or their types; empty where both are the same."""
    if old.shape != new.shape:
        return f"shapes {list(old.shape)} and {list(new.shape)}"
    return "" if old.dtype == new.dtype else f"types {old.dtype} and {new.dtype}"
