import numpy as np

from onnxprune.pruning.layerwise import Problem, reconstruct, second_order
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
