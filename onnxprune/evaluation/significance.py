"""The standard error of a drop: from the records of both models on the same samples, a paired comparison."""

from __future__ import annotations

import numpy as np

from onnxprune.evaluation.metrics import Metric
from onnxprune.evaluation.predictions import ratio
from onnxprune.evaluation.scores import Track

RESAMPLES = 200
# Of more records, so many are drawn, and the error is scaled.
MOST_DRAWN = 5000
# From fewer records, resampling says little.
LEAST_RECORDS = 8


def drop_error(baseline: Track, pruned: Track) -> float | None:
    """The standard error of the drop of a metric; None where it is not known.

    Exact to first order for means, else by resampling samples (bootstrap; Efron 1979). Where no two answers differ, the
    error of a share is that of one sample.
    """
    metric = baseline.metric
    if metric.state is not None:
        return None
    old, new = baseline.joined(), pruned.joined()
    if not isinstance(old, np.ndarray) or not len(old):
        return None
    if metric.value is ratio:
        return _of_means(old, new, metric.fraction)
    return _resampled(old, new, metric)


def _of_means(old: np.ndarray, new: np.ndarray, is_share: bool) -> float | None:
    if old.ndim == 1:
        old, new = (np.stack([part, np.ones(len(part))], 1) for part in (old, new))
    counts = old[:, 1].astype(np.float64)
    total = counts.sum()
    if not total:
        return None
    lost = old[:, 0].astype(np.float64) - new[:, 0]
    spread = float(np.linalg.norm(lost - lost.sum() / total * counts))
    return max(spread, 1.0 if is_share else 0.0) / float(total)


def _resampled(old: np.ndarray, new: np.ndarray, metric: Metric) -> float | None:
    if len(old) < LEAST_RECORDS:
        return None
    random = np.random.default_rng(0)
    size = min(len(old), MOST_DRAWN)
    draws = (random.integers(0, len(old), size) for _ in range(RESAMPLES))
    drops = np.array([metric.drop(metric.value(old[draw]), metric.value(new[draw])) for draw in draws])
    drops = drops[np.isfinite(drops)]
    if len(drops) < RESAMPLES / 2:
        return None
    return max(float(drops.std()) * (size / len(old)) ** 0.5, 1 / len(old) if metric.fraction else 0.0)
