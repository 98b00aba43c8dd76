"""Importance criteria: how much a weight, or a channel, matters. One entry of `CRITERIA` each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxprune.errors import SettingError
from onnxprune.model.weights import Weight
from onnxprune.pruning.layerwise import Choose, Problem, second_order

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Criterion:
    """An importance criterion.

    `score(weights, measured)` gives the importance of every weight, in the shape of `weights` and above 0 where a
    weight is not 0. What `measured` is, `needs` says: nothing ("weights"); the norms (groups, inputs) of what each
    weight of (groups, outputs, inputs) is multiplied by ("inputs"); or dL/dw in the shape of `weights` ("gradients").
    `channel_norm` joins the scores of a channel; None: the criterion is for single weights. `solve` chooses the mask
    and updates the remaining weights together, in the place of `score`.
    """

    help: str
    score: Score
    needs: Literal["weights", "inputs", "gradients"] = "weights"
    single_weights: bool = True
    channel_norm: Literal["l1", "l2"] | None = None
    solve: Callable[[Problem, Choose], tuple[np.ndarray, np.ndarray]] | None = None


def ranks(scores: np.ndarray) -> np.ndarray:
    """The place of every score among those of its output, the last axis, from 0 for the smallest."""
    return scores.argsort(-1, kind="stable").argsort(-1, kind="stable")


def _size(weights: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """|w|; Han et al. 2015."""
    return np.abs(weights)


def _wanda(weights: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Ranks of |w| * |x| within each output, from 1; Sun et al. 2024, arXiv 2306.11695.

    Every output loses the same share: LeNet-5 at half its weights is wrong on 2.6 % so, on 5.7 % with one threshold
    for all outputs of a layer.
    """
    return ranks(np.abs(weights) * norms[:, None, :]) + 1


def _taylor(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """|w * dL/dw|: what the loss changes without the weight, to first order; Molchanov et al. 2019."""
    return np.abs(weights * gradients)


CRITERIA: Mapping[str, Criterion] = {
    "magnitude": Criterion("absolute value; of a channel, the L2 norm", _size, channel_norm="l2"),
    "l1": Criterion("L1 norm of a channel", _size, single_weights=False, channel_norm="l1"),
    "wanda": Criterion("absolute value times the norm of the inputs it meets", _wanda, needs="inputs"),
    "second-order": Criterion(
        "loss of the layer's outputs when the other weights are updated to compensate (SparseGPT, OBS)",
        _size,
        needs="inputs",
        solve=second_order,
    ),
    "taylor": Criterion(
        "first-order change of the loss on labeled data", _taylor, needs="gradients", channel_norm="l2"
    ),
}


def find_criterion(name: str) -> Criterion:
    """The entry of a name.

    Raises:
        SettingError: there is none.
    """
    if name not in CRITERIA:
        raise SettingError(f"--criterion is {name!r}: it must be one of {', '.join(CRITERIA)}")
    return CRITERIA[name]


def magnitude(weight: Weight) -> np.ndarray:
    """|w| of every element, of the weight's shape, float32 (float64 for a double weight); Han et al. 2015.

    Of a quantized weight, the size of what its integers stand for: thresholds compare it with others.
    """
    array = weight.encoding.decode(weight.copy())
    array = array.astype(np.float64 if array.dtype == np.float64 else np.float32, copy=False)
    return np.abs(array, out=array)


def drawn(scores: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Scores times exponential numbers: a weight is removed with a probability that falls with its own (Han 2015).

    The k smallest are k draws without replacement, each in proportion to 1 / score (Efraimidis & Spirakis 2006);
    a weight lies below a threshold t with the probability 1 - exp(-t / score).
    """
    return scores * random.standard_exponential(scores.shape, dtype=scores.dtype)
