import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.config.settings import PruneConfig
from onnxprune.model.weights import find_weights
from onnxprune.pruning.allocation import allocate
from onnxprune.pruning.masks import make_masks
from onnxprune.pruning.rates import between, cheapest_rates
from tests.builders import cnn


@pytest.mark.parametrize("allocation", ["std", "erk"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.7, 0.95])
def test_layer_rates_add_up_to_the_rate_asked_for(allocation, rate):
    weights = find_weights(ir.from_proto(cnn())).prunable
    masks = make_masks(allocate(weights, PruneConfig(rate=rate, allocation=allocation)))
    lost, size = (sum(f(mask) for mask in masks.values()) for f in (lambda m: np.count_nonzero(~m), np.size))
    assert lost == pytest.approx(rate * size, abs=len(masks))


def test_erk_gives_layers_of_few_connections_lower_rates():
    weights = find_weights(ir.from_proto(cnn())).prunable
    pools = allocate(weights, PruneConfig(rate=0.7, allocation="erk"))
    rates = {pool.weights[0].name: pool.rate for pool in pools}
    assert max(rates["conv1.weight"], rates["fc.weight"]) < 0.5 < rates["conv2.weight"]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**16), st.floats(0.05, 0.9))
def test_cheapest_rates_are_no_worse_than_any_other_split_of_the_same_total(seed, rate):
    random = np.random.default_rng(seed)
    ladder = (0.25, 0.5, 0.75, 1.0)
    curves = {
        name: list(zip(ladder, np.cumsum(np.sort(random.random(4))), strict=True)) for name in ("a", "b", "c")
    }
    costs = {name: float(random.integers(1, 50)) for name in curves}

    # Convex between the points, too, where losses grow by ever larger factors.
    curves = {
        name: [(rate, loss * 8 ** (4 * rate)) for rate, loss in curve] for name, curve in curves.items()
    }

    def loss(rates):
        points = {name: zip(*between([(0.0, 0.0), *curve]), strict=True) for name, curve in curves.items()}
        return sum(np.interp(rates[name], *both) for name, both in points.items())

    best = cheapest_rates(curves, costs, rate)
    total = rate * sum(costs.values())
    assert sum(best[name] * costs[name] for name in costs) == pytest.approx(total)
    for _ in range(50):
        share = random.dirichlet(np.ones(3)) * total
        other = {name: part / costs[name] for name, part in zip(costs, share, strict=True)}
        if max(other.values()) <= 1:
            assert loss(best) <= loss(other) + 1e-9


def test_between_its_points_a_loss_grows_by_the_same_factor_at_each_step():
    found = dict(between([(0.0, 0.0), (0.5, 1.0), (0.9, 4.0)]))
    assert found[0.25] == pytest.approx(0.5) and found[0.7] == pytest.approx(2.0)
