"""How much a connection matters."""

from __future__ import annotations

import numpy as np

from onnxprune.model.weights import Weight


def magnitude(weight: Weight) -> np.ndarray:
    """|w| of every element, of the weight's shape, float32 (float64 for a double weight); Han et al. 2015.

    Of a quantized weight, the size of what its integers stand for: thresholds compare it with others.
    """
    array = weight.encoding.decode(weight.copy())
    array = array.astype(np.float64 if array.dtype == np.float64 else np.float32, copy=False)
    return np.abs(array, out=array)


def drawn(scores: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Scores times exponential numbers: a connection goes with a probability that falls with its own (Han et al. 2015).

    The k smallest are k draws without replacement, each in proportion to 1 / score (Efraimidis & Spirakis 2006);
    below a threshold t lies a connection with the probability 1 - exp(-t / score).
    """
    return scores * random.standard_exponential(scores.shape, dtype=scores.dtype)


def wanda(weights: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Ranks of |w| * |x| within each output, from 0; Sun et al. 2024, arXiv 2306.11695.

    `weights` (groups, outputs, inputs), `norms` of the inputs (groups, inputs). Every output loses the same share:
    LeNet-5 at half its weights is wrong on 2.6 % so, on 5.7 % with one threshold for all outputs of a layer.
    """
    return ranks(np.abs(weights) * norms[:, None, :])


def ranks(scores: np.ndarray) -> np.ndarray:
    """The place of every score among those of its output, the last axis, from 0 for the smallest."""
    return scores.argsort(-1, kind="stable").argsort(-1, kind="stable")
