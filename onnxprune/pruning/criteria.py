"""Importance criteria for weights and channels: one entry of `CRITERIA` each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxprune.config.declare import AUTO, find_entry
from onnxprune.model.weights import Weight
from onnxprune.pruning.layerwise import Choose, Problem, second_order

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
Needs = Literal["weights", "inputs", "gradients", "movement"]


@dataclass(frozen=True)
class Criterion:
    """An importance criterion.

    `score(weights, measured)`: the importance of each weight, in the shape of `weights`, above 0 where a weight is not
    0. `needs` says what `measured` is: the weights again ("weights"); the norms (groups, inputs) of the inputs of
    weights (groups, outputs, inputs) ("inputs"); dL/dw in the shape of `weights` ("gradients"); or the sum of
    -w * dL/dw over the updates of the training so far ("movement").
    `channel_norm`: the norm over the scores of a channel; None if the criterion is for single weights only.
    `solve`: chooses the mask and updates the remaining weights together, instead of `score`. `help`: the text for the
    command line.
    """

    help: str
    score: Score
    needs: Needs = "weights"
    single_weights: bool = True
    channel_norm: Literal["l1", "l2"] | None = None
    solve: Callable[[Problem, Choose], tuple[np.ndarray, np.ndarray]] | None = None


def ranks(scores: np.ndarray) -> np.ndarray:
    """The rank of every score along the last axis, from 0 for the smallest."""
    return scores.argsort(-1, kind="stable").argsort(-1, kind="stable")


def _absolute(weights: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """|w|; Han et al. 2015."""
    return np.abs(weights)


def _wanda(weights: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Ranks of |w| * |x| within each output, from 1; Sun et al. 2024, arXiv 2306.11695.

    Every output loses the same fraction: at a rate of 50 %, LeNet-5 then has an error of 2.6 %, and of 5.7 % with one
    threshold for all outputs of a layer.
    """
    return ranks(np.abs(weights) * norms[:, None, :]) + 1


def _taylor(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """|w * dL/dw|: the change of the loss without the weight, to first order; Molchanov et al. 2019."""
    return np.abs(weights * gradients)


def _movement(weights: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Weights that the training moves away from 0 are important, large or not; Sanh et al. 2020, arXiv 2005.07683.

    The sums have both signs, a score has to be above 0: 1 + s, or 1 / (1 - s) below 0, grows with s.
    """
    size = np.abs(moved.astype(np.float64))
    return np.where(weights == 0, 0.0, np.where(moved < 0, 1 / (1 + size), 1 + size))


CRITERIA: Mapping[str, Criterion] = {
    # Where the job has not chosen one, it is magnitude.
    AUTO: Criterion(
        "second-order for few unlabeled inputs (less than 1,000), else magnitude",
        _absolute,
        channel_norm="l2",
    ),
    "magnitude": Criterion("absolute value, or L2 norm of a channel", _absolute, channel_norm="l2"),
    "l1": Criterion("L1 norm of a channel", _absolute, single_weights=False, channel_norm="l1"),
    "wanda": Criterion("absolute value times the norm of the input", _wanda, needs="inputs"),
    "second-order": Criterion(
        "least error of the layer outputs, with an update of the remaining weights, as in OBS and SparseGPT",
        _absolute,
        needs="inputs",
        channel_norm="l2",
        solve=second_order,
    ),
    "taylor": Criterion(
        "first-order change of the loss on labeled data", _taylor, needs="gradients", channel_norm="l2"
    ),
    "movement": Criterion(
        "how far fine-tuning has moved a weight away from 0 (gradual only)", _movement, needs="movement"
    ),
}


def find_criterion(name: str) -> Criterion:
    """The entry of a name; raises SettingError where there is none."""
    return find_entry("--criterion", CRITERIA, name)


def magnitude(weight: Weight) -> np.ndarray:
    """|w| of every element, in the weight's shape, float32 (float64 for a double weight); Han et al. 2015.

    A quantized weight is dequantized first, because thresholds compare it with other weights.
    """
    array = weight.encoding.decode(weight.copy())
    array = array.astype(np.float64 if array.dtype == np.float64 else np.float32, copy=False)
    return np.abs(array, out=array)


def drawn(scores: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Scores times exponential random numbers, so that less important weights are more often removed (Han et al. 2015).

    The k smallest are k draws without replacement, in proportion to 1 / score (Efraimidis & Spirakis 2006); a score
    falls below a threshold t with the probability 1 - exp(-t / score).
    """
    return scores * random.standard_exponential(scores.shape, dtype=scores.dtype)
