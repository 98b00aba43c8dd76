import itertools

import numpy as np

from onnxprune.pruning.layerwise import Problem, best_damping, reconstruct, second_order
from onnxprune.pruning.patterns import keep_largest, keep_n_of_m


def problem(groups: int = 2, outputs: int = 6, inputs: int = 16) -> tuple[np.ndarray, Problem]:
    """A layer whose inputs go together, seen through a pruned model that is near the dense one."""
    random = np.random.default_rng(0)
    mixing = random.standard_normal((groups, inputs, inputs))
    dense = mixing @ random.standard_normal((groups, inputs, 500))
    pruned = dense + 0.1 * random.standard_normal(dense.shape)
    weights = random.standard_normal((groups, outputs, inputs))
    second, cross = (part @ pruned.transpose(0, 2, 1) / 500 for part in (pruned, dense))
    return weights, Problem.of(weights, second, cross)


def half(scores: np.ndarray) -> np.ndarray:
    return keep_largest([scores], 0.5)[0]


def test_reconstruction_is_the_least_squares_solution_on_each_rows_support():
    weights, layer = problem()
    mask = half(np.abs(weights))
    fitted = reconstruct(layer, mask, np.where(mask, weights, 0)) * layer.scale
    for group, row in np.ndindex(mask.shape[:2]):
        on = mask[group, row]
        hessian = layer.hessian[group].astype(np.float64)
        best = np.linalg.solve(hessian[on][:, on], (hessian @ layer.target[group, row])[on])
        np.testing.assert_allclose(fitted[group, row, on], best, rtol=0.02, atol=0.02)
    assert not fitted[~mask].any()


def test_second_order_loses_less_than_magnitude_and_reconstruction_less_again():
    weights, layer = problem()
    cut = layer.loss(np.where(half(np.abs(weights)), weights, 0))
    mask, values = second_order(layer, half)
    assert np.count_nonzero(mask) == mask.size // 2 and not values[~mask].any()
    fitted = reconstruct(layer, mask, values)
    assert layer.loss(fitted) <= layer.loss(values) < 0.5 * cut


def test_weights_are_unchanged_where_none_is_removed_and_inputs_are_the_same():
    weights = np.random.default_rng(0).standard_normal((1, 4, 8))
    x = np.random.default_rng(1).standard_normal((1, 8, 100))
    second = x @ x.transpose(0, 2, 1)
    layer = Problem.of(weights, second, second)
    everything = np.ones(weights.shape, bool)
    np.testing.assert_allclose(reconstruct(layer, everything, weights), weights, rtol=1e-4, atol=1e-4)


def test_inputs_that_are_always_zero_keep_their_weights_finite():
    second = np.diag([1.0, 0.0, 2.0, 0.0])[None]
    layer = Problem.of(np.ones((1, 3, 4)), second, second)
    mask, values = second_order(layer, half)
    assert np.isfinite(reconstruct(layer, mask, values)).all()


def test_two_of_four_are_the_largest_of_every_four():
    scores = np.array([[1, 4, 3, 2, 9, 8, 7, 6, 5, 1, 2.0]])
    assert keep_n_of_m(scores, 2, 4).astype(int).tolist() == [[0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 1]]


def moments(columns: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """H and C of 32 independent inputs with noise in the pruned model."""
    random = np.random.default_rng(seed)
    dense = random.standard_normal((1, 32, columns))
    pruned = dense + 0.5 * random.standard_normal(dense.shape)
    return tuple(part @ pruned.transpose(0, 2, 1) / columns for part in (pruned, dense))


def test_the_best_damping_is_large_for_few_inputs_and_small_for_many():
    weights = np.random.default_rng(0).standard_normal((1, 4, 32))
    everything, held = np.ones(weights.shape, bool), moments(10_000, 1)
    found = [best_damping(weights, everything, weights, moments(count, 2), held) for count in (34, 10_000)]
    assert found[0] >= 0.1 > found[1]


def test_second_order_is_near_the_best_of_all_masks():
    random = np.random.default_rng(0)
    weights, x = (
        random.standard_normal((1, 1, 8)),
        random.standard_normal((1, 8, 8)) @ random.standard_normal((8, 200)),
    )
    second = x @ x.transpose(0, 2, 1)
    layer = Problem.of(weights, second, second)

    def fitted(kept: tuple[int, ...]) -> float:
        mask = np.isin(np.arange(8), kept)[None, None]
        return layer.loss(reconstruct(layer, mask, np.where(mask, weights, 0)))

    best = min(map(fitted, itertools.combinations(range(8), 4)))
    mask, values = second_order(layer, half)
    assert layer.loss(reconstruct(layer, mask, values)) < 1.5 * best
