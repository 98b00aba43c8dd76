"""The metric of texts: the character error rate."""

from __future__ import annotations

import numpy as np

from onnxprune.errors import DataError
from onnxprune.evaluation.library import import_torchmetrics
from onnxprune.evaluation.predictions import Predictions


def edits(found: Predictions) -> np.ndarray:
    """Rows (insertions, deletions and substitutions of characters; characters of the label)."""
    import_torchmetrics("--metric cer")
    from torchmetrics.functional.text import edit_distance

    texts = found.output
    if isinstance(texts, np.ndarray):
        texts = texts.reshape(-1).tolist()
    if not all(isinstance(text, str) for text in texts):
        raise DataError(
            "--metric cer compares texts, but the output consists of numbers: give --postprocess MODULE:FUNCTION that "
            "makes one text for each sample of the outputs {name: array}"
        )
    labels = found.labels.tolist()
    distances = edit_distance(list(texts), labels, reduction="none").numpy()
    return np.stack([distances, [len(label) for label in labels]], 1).astype(np.int64)
