"""The order in which channels go, and the fit of the layers that read them, against brute force."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from onnxprune.calibration.elimination import Reader, eliminate
from onnxprune.calibration.refit import Sums, fitted


def moments(inputs: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((400, 3)) @ np.random.default_rng(7).standard_normal(
        (3, inputs)
    )
    x += 0.3 * np.random.default_rng(seed + 1).standard_normal(x.shape)
    return x.T @ x / len(x)


def error_without(reader: Reader, gone: list[int]) -> float:
    """The least error of a layer that reads all channels but these, relative to the energy of its outputs."""
    second = reader.second + reader.damping * np.eye(len(reader.second))
    kept = np.setdiff1d(np.arange(len(second)), np.concatenate([reader.columns[index] for index in gone]))
    fit = np.zeros_like(reader.weights)
    fit[:, kept] = np.linalg.solve(second[np.ix_(kept, kept)], (reader.weights @ second[:, kept]).T).T
    lost = reader.weights - fit
    return float(np.trace(lost @ second @ lost.T) / np.trace(reader.weights @ second @ reader.weights.T))


@pytest.mark.parametrize("widths", [(1, 1, 1, 1, 1, 1), (2, 2, 2, 2, 2, 2), (1, 3, 2, 1, 2, 3)])
def test_each_time_the_channel_goes_without_which_all_readers_miss_least(widths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    ends = np.cumsum((0, *widths))
    columns = [np.arange(start, end) for start, end in pairwise(ends)]
    readers = [
        Reader(rng.standard_normal((outputs, ends[-1])), moments(int(ends[-1]), outputs), columns, 400)
        for outputs in (4, 9)
    ]
    found = eliminate(readers, 4, [2, 4])
    gone: list[int] = []
    for chosen, total in zip(found.order, np.cumsum(found.errors), strict=True):
        left = [index for index in range(len(widths)) if index not in gone]
        errors = {index: sum(error_without(reader, [*gone, index]) for reader in readers) for index in left}
        assert chosen == min(errors, key=lambda index: errors[index])
        assert total == pytest.approx(errors[int(chosen)], rel=1e-6)
        gone.append(int(chosen))
    for weights in found.weights[4]:
        assert not weights[:, np.concatenate([columns[index] for index in gone])].any()


def test_the_fit_is_that_of_least_squares_and_near_the_dense_weights_where_inputs_say_nothing() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 5, 200))
    x[:, 3] = 0
    dense = rng.standard_normal((1, 4, 5))
    aims = dense @ (x + 0.2 * rng.standard_normal(x.shape)) + 3
    sums = Sums.empty((1, 4, 5))
    sums.add(x[..., :120], aims[..., :120])
    sums.add(x[..., 120:], aims[..., 120:])
    kept = np.broadcast_to([True, False, True, True, True], dense.shape)
    values = fitted(dense, *sums.moments(centered=True), kept, 1e-9)
    read = [0, 2, 4]
    centered = x[0, read] - x[0, read].mean(1, keepdims=True)
    expected = np.linalg.lstsq(centered.T, (aims[0] - aims[0].mean(1, keepdims=True)).T, rcond=None)[0].T
    np.testing.assert_allclose(values[0][:, read], expected, rtol=1e-5, atol=1e-7)
    assert not values[0, :, 1].any()
    np.testing.assert_allclose(values[0, :, 3], dense[0, :, 3], rtol=1e-5)


def test_each_output_is_fitted_to_its_own_inputs_where_zeros_stay() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 6, 300))
    x[:, 1] += 0.8 * x[:, 0]
    kept = rng.random((1, 4, 6)) < 0.6
    kept[0, 3] = False
    aims = rng.standard_normal((1, 4, 6)) @ x
    sums = Sums.empty((1, 4, 6))
    sums.add(x, aims)
    values = fitted(np.zeros((1, 4, 6)), *sums.moments(centered=False), kept, 1e-9)
    expected = np.zeros((4, 6))
    for output, own in enumerate(kept[0]):
        expected[output, own] = np.linalg.lstsq(x[0, own].T, aims[0, output], rcond=None)[0]
    np.testing.assert_allclose(values[0], expected, atol=1e-3)
    assert not values[~kept].any()


@pytest.mark.parametrize("value", [0.0, 1e-19, 1.0])
def test_inputs_that_are_all_alike_can_all_stand_for_each_other(value: float) -> None:
    columns = [np.arange(start, start + 3) for start in range(0, 12, 3)]
    reader = Reader(
        np.random.default_rng(0).standard_normal((5, 12)), np.full((12, 12), value**2), columns, 64
    )
    found = eliminate([reader], 3, [3])
    assert sorted(found.order) != [0, 1, 2, 3] and np.isfinite(found.weights[3]).all()
    kept = found.weights[3][0].sum(1)
    if value == 1:
        np.testing.assert_allclose(kept, reader.weights.sum(1), rtol=0.1)
