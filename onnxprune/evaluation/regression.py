"""Metrics of targets and of embeddings: squared error, PSNR and Spearman's rank correlation."""

from __future__ import annotations

import numpy as np

from onnxprune.errors import DataError
from onnxprune.evaluation.library import import_torchmetrics
from onnxprune.evaluation.predictions import Predictions

# Signals equal to their targets have no finite PSNR.
MOST_DECIBELS = 100.0


def squared_error(found: Predictions) -> np.ndarray:
    """Rows (sum of squares, count) of a sample's targets."""
    return np.stack([_squares(found).sum(1), np.full(len(found), _squares(found).shape[1])], 1)


def _squares(found: Predictions) -> np.ndarray:
    output = np.asarray(found.output)
    if output.size != found.labels.size:
        raise DataError(
            f"the targets of {found.form.data} {list(found.labels.shape)} do not fit the output "
            f"{list(output.shape)}: give targets of the output's shape"
        )
    errors = output.astype(np.float64).reshape(found.labels.shape) - found.labels
    return (errors**2).reshape(len(found), -1)


def psnr(found: Predictions) -> np.ndarray:
    """10 log10(range² / mean squared error) of each sample, in dB, at most `MOST_DECIBELS`; range: `LabelForm.span`."""
    squares = _squares(found).mean(1)
    with np.errstate(divide="ignore"):
        return np.minimum(10 * np.log10(found.form.span**2 / squares), MOST_DECIBELS)


def similarity(found: Predictions) -> np.ndarray:
    """Rows (similarity, score), for embeddings (N, D) one for each pair of samples 2i and 2i + 1: their cosine."""
    output = np.asarray(found.output, np.float64)
    scores = found.labels.reshape(len(found), -1).astype(np.float64)
    if scores.shape[1] != 1:
        raise DataError(
            f"--metric spearman needs one score for each sample, but the labels of {found.form.data} have shape "
            f"{list(found.labels.shape)}: give labels (N,)"
        )
    if output.size == len(output):
        return np.stack([output.reshape(-1), scores[:, 0]], 1)
    if output.ndim != 2:
        raise DataError(
            f"--metric spearman needs one embedding (N, D) or similarity (N,) for each sample, but the output is "
            f"{list(output.shape)}: give --postprocess MODULE:FUNCTION that makes it"
        )
    if not np.array_equal(scores[::2], scores[1::2]):
        raise DataError(
            f"--metric spearman compares samples 2i and 2i + 1 of {found.form.data}, but the labels of two such "
            "samples differ: give the two texts of a pair one after the other, with the same score"
        )
    one, other = output[::2], output[1::2]
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    dots = (one * other).sum(1)
    return np.stack([np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0), scores[::2, 0]], 1)


def spearman(records: np.ndarray) -> float:
    """Spearman's rank correlation of the columns; NaN where one of them is constant."""
    import_torchmetrics("--metric spearman")
    import torch
    from torchmetrics.functional import spearman_corrcoef

    if len(records) < 2 or (records == records[0]).all(0).any():
        return float("nan")
    return float(spearman_corrcoef(*torch.from_numpy(records.T.copy())))
