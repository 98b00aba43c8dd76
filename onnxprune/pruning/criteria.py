"""How much a connection matters."""

from __future__ import annotations

import numpy as np

from onnxprune.model.weights import Weight


def magnitude(weight: Weight) -> np.ndarray:
    """|w| of every element, of the weight's shape, float32 (float64 for a double weight); Han et al. 2015."""
    array = weight.copy()
    array = array.astype(np.float64 if array.dtype == np.float64 else np.float32, copy=False)
    return np.abs(array, out=array)
