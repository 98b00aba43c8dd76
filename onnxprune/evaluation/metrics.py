"""Metrics of a model's outputs on labeled data: one entry of `METRICS` each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.evaluation import classification, detection, regression, text
from onnxprune.evaluation.labels import KINDS
from onnxprune.evaluation.predictions import Predictions, Records, ratio

PERCENT = "{:.2%}"


@dataclass(frozen=True)
class Metric:
    """A metric of one output: records of each batch, and a value of the records of all batches.

    `title`: as it is shown. `takes`: the kinds of labels (`labels.KINDS`) that it is for. `records`: an array with a
    row for each sample or block of samples, or a list; their memory does not grow with the size of a sample. `value`:
    of joined records; `ratio` is the mean of records (n,), or the ratio of the sums of records (n, 2), whose standard
    error is exact. `format`: how a value is shown. `as_error`: the value is an accuracy that is shown as the error,
    1 - value. `default_for`: the kinds of labels for which it is the metric if none is named. `state`: makes an object
    with `update` and `value` instead of records. `needs`: packages.
    """

    title: str
    takes: tuple[str, ...]
    records: Callable[[Predictions], Records]
    value: Callable[[Any], float] = ratio
    higher_is_better: bool = True
    format: str = "{:.4g}"
    as_error: bool = False
    default_for: tuple[str, ...] = ()
    state: Callable[[], Any] | None = None
    needs: tuple[str, ...] = ()
    help: str = ""

    def text(self, value: float) -> str:
        """A value as it is shown."""
        return self.format.format(1 - value if self.as_error else value)

    def drop(self, baseline: float, pruned: float) -> float:
        """How much worse `pruned` is, in the unit of the metric: accuracy points as a fraction, dB, or an error."""
        return baseline - pruned if self.higher_is_better else pruned - baseline

    def drop_text(self, drop: float) -> str:
        """A drop in the metric's unit."""
        return self.format.format(drop)

    @property
    def measured(self) -> str:
        """The name of the value itself, where it is not what is shown."""
        return self.title.replace(" error", " accuracy") if self.as_error else self.title

    @property
    def fraction(self) -> bool:
        """Whether values are shown in percent."""
        return self.format.endswith("%}")


CLASSES = ("classes", "positions", "binary")

METRICS: dict[str, Metric] = {
    "top-1": Metric(
        "top-1 error",
        (*CLASSES, "soft", "multi-label"),
        classification.top_1,
        format=PERCENT,
        as_error=True,
        default_for=(*CLASSES, "soft"),
        help="the share of samples (or pixels, or labels of 0 and 1) whose class has the largest output",
    ),
    "top-5": Metric(
        "top-5 error",
        ("classes", "positions", "soft"),
        classification.top_5,
        format=PERCENT,
        as_error=True,
        help="the share of samples whose class has one of the five largest outputs",
    ),
    "f1": Metric(
        "F1",
        (*CLASSES, "multi-label"),
        classification.f1_counts,
        classification.f1,
        format=PERCENT,
        default_for=("multi-label",),
        help="the mean over classes; of class 1 for labels of 0 and 1",
    ),
    "iou": Metric(
        "mean IoU",
        ("positions", "binary", "multi-label"),
        classification.confusion,
        classification.iou,
        format=PERCENT,
        help="intersection over union of masks, the mean over classes",
    ),
    "mse": Metric(
        "mean squared error",
        ("targets",),
        regression.squared_error,
        higher_is_better=False,
        default_for=("targets",),
        help="of numbers of the output's shape",
    ),
    "psnr": Metric(
        "PSNR",
        ("targets",),
        regression.psnr,
        format="{:.2f} dB",
        help="peak signal-to-noise ratio of images, the mean over samples",
    ),
    "spearman": Metric(
        "Spearman",
        ("pairs", "targets"),
        regression.similarity,
        regression.spearman,
        format="{:.4f}",
        default_for=("pairs",),
        needs=("torchmetrics",),
        help="rank correlation of the scores of pairs, samples 2i and 2i + 1, with the cosine of their embeddings",
    ),
    "cer": Metric(
        "character error rate",
        ("text",),
        text.edits,
        higher_is_better=False,
        format=PERCENT,
        default_for=("text",),
        needs=("torchmetrics",),
        help="edits per character of texts, which --postprocess makes",
    ),
    "map": Metric(
        "mAP 0.5:0.95",
        ("boxes",),
        detection.images,
        detection.mean_average_precision,
        format=PERCENT,
        default_for=("boxes",),
        needs=("torchmetrics", "pycocotools"),
        help="COCO's mean average precision of boxes",
    ),
}
"""Metrics by name; of those for a kind of labels, the first with it in `default_for` is used if none is named."""


def default_metric(kind: str) -> str | None:
    """The name of the metric for labels of a kind if none is named; None for "other"."""
    return next((name for name, metric in METRICS.items() if kind in metric.default_for), None)


def metrics_text() -> str:
    """The metrics and what they are, for help texts."""
    return "; ".join(f"{name}: {metric.help}" for name, metric in METRICS.items() if metric.help)


def kinds_text(kinds: tuple[str, ...]) -> str:
    """Kinds of labels in words."""
    return " or ".join(KINDS[kind] for kind in kinds)


def drop_text(name: str, drop: float) -> str:
    """A drop of a metric in its unit; metrics of models without labels are fractions."""
    metric = METRICS.get(name)
    if metric is not None:
        return metric.drop_text(drop)
    return f"{drop:.4g}" if ":" in name else f"{drop:.2%}"


def score_text(score: Mapping[str, Any]) -> str:
    """A score in JSON types as it is shown; older reports have no "text"."""
    if "text" in score:
        return str(score["text"])
    metric = METRICS.get(score["name"])
    return f"{score['value']:.4g}" if metric is None else metric.text(score["value"])


def score_title(score: Mapping[str, Any]) -> str:
    """The title of a score in JSON types, with the output unless that is the first."""
    metric = METRICS.get(score["name"])
    title = score.get("title") or (score["name"] if metric is None else metric.title)
    return f"{title} of {score['output']}" if score.get("output") else str(title)
