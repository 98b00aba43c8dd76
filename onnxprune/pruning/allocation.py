"""How much of each weight is removed: the rate of the job and its exceptions, as pools of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.config.pruning import PruningSettings
from onnxprune.errors import NothingToPruneError
from onnxprune.model.weights import Weight, Weights
from onnxprune.pruning.rates import Curve, cheapest_rates, erk_rates, std_rates
from onnxprune.pruning.selectors import select

BY_SHAPE = {"std": std_rates, "erk": erk_rates}


@dataclass(frozen=True)
class Pool:
    """Weights pruned together: the fraction `rate` of their elements, or all elements smaller than `threshold`.

    Exactly one of the two is set. `by_output`: each output of a layer loses the same fraction.
    """

    weights: tuple[Weight, ...]
    rate: float | None
    threshold: float | None
    by_output: bool = False


def excluded_weights(weights: Sequence[Weight], settings: PruningSettings) -> set[Weight]:
    """The weights that `--exclude` names.

    Raises:
        SelectorError: a selector matches nothing.
    """
    return {weight for selector in settings.exclude for weight in select(selector, weights)}


def included(weights: Weights, selectors: Sequence[str]) -> Weights:
    """The weights of a model, with the embeddings that `--include` names among those that are pruned.

    Raises:
        SelectorError: a selector matches nothing.
    """
    return weights.including([weight for selector in selectors for weight in select(selector, weights.all)])


def allocate(
    weights: Sequence[Weight],
    settings: PruningSettings,
    curves: Mapping[str, Curve] | None = None,
    costs: Mapping[str, float] | None = None,
) -> list[Pool]:
    """Distribute the job's rate: one pool per layer, or one for all; weights of `--layer-rate` have their own pools.

    `curves`: the sensitivity of weights, by name; the rate is then distributed by it, as the fraction removed of
    all `costs` (of each dense weight, by name), by default of the number of elements; weights without a curve have the
    rate itself. Excluded weights are in no pool
    and do not count towards the rate. A later `--layer-rate` overrides an earlier one.

    Raises:
        SelectorError: a selector matches nothing.
        NothingToPruneError: every weight is excluded.
    """
    excluded = excluded_weights(weights, settings)
    own_rate: dict[Weight, float] = {}
    for selector, rate in settings.layer_rates:
        own_rate.update(dict.fromkeys(select(selector, weights), rate))
    included = [weight for weight in weights if weight not in excluded]
    if weights and not included:
        raise NothingToPruneError(
            "every weight is excluded, so there is nothing to prune: remove an --exclude"
        )
    common = [weight for weight in included if weight not in own_rate]
    by_output = settings.allocation == "per-output"
    pools = [Pool((weight,), own_rate[weight], None, by_output) for weight in included if weight in own_rate]
    if settings.rate is not None and common and (settings.allocation in BY_SHAPE or curves is not None):
        if curves is not None:
            measured = [w for w in common if w.name in curves]
            prices = {w.name: float(w.size if costs is None else costs[w.name]) for w in measured}
            rates = dict.fromkeys((w.name for w in common), settings.rate)
            rates |= cheapest_rates({name: curves[name] for name in prices}, prices, settings.rate)
        else:
            rates = BY_SHAPE[settings.allocation](common, settings.rate)
        return [*pools, *(Pool((weight,), rates[weight.name], None) for weight in common)]
    if settings.allocation == "global" and settings.std_threshold is None:
        return [*pools, Pool(tuple(common), settings.rate, None)] if common else pools
    return [
        *pools,
        *(
            Pool((weight,), settings.rate, _threshold(weight, settings.std_threshold), by_output)
            for weight in common
        ),
    ]


def _threshold(weight: Weight, deviations: float | None) -> float | None:
    """A number of standard deviations of the input model's weights (Han et al. 2015, section 4)."""
    return None if deviations is None else deviations * float(weight.numbers().std(dtype=np.float64))
