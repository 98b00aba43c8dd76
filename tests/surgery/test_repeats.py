"""Channels that are repeated, and picked by lists of positions."""

from __future__ import annotations

import numpy as np

from tests.surgery.graphs import normal
from tests.surgery.oracle import model, prune_channels, weight_of


def test_a_channel_goes_with_all_of_its_repetitions() -> None:
    proto = model(
        """(float[N,3,6] x) => (float[N,3,5] y) {
            a = MatMul(x, w1) t = Tile(a, three) b = Relu(t) y = MatMul(b, w2)}""",
        w1=normal(6, 8), w2=normal(24, 5), three=np.array([1, 1, 3]),
    )  # fmt: skip
    pruned = prune_channels(proto).model
    assert weight_of(pruned, "w1").shape == (6, 4) and weight_of(pruned, "w2").shape == (12, 5)


def test_repetitions_of_one_number_go_one_by_one() -> None:
    proto = model(
        """(float[N,3,6] x) => (float[N,3,5] y) {
            a = MatMul(x, w1) t = Tile(a, eight) b = Mul(t, scale) y = MatMul(b, w2)}""",
        w1=normal(6, 1), w2=normal(8, 5), scale=normal(8), eight=np.array([1, 1, 8]),
    )  # fmt: skip
    pruned = prune_channels(proto).model
    assert weight_of(pruned, "w2").shape[0] < 8
    assert weight_of(pruned, "eight").tolist() == [1, 1, weight_of(pruned, "w2").shape[0]]


def test_repetitions_of_a_channel_of_a_number_are_known() -> None:
    """A dead unit gives the same at all of its places, also where these are repeated."""
    w1 = normal(6, 8)
    w1[:, [1, 5]] = 0
    proto = model(
        """(float[N,3,6] x) => (float[N,3,5] y) {
            a = MatMul(x, w1) c = Add(a, b1) t = Tile(c, repeats) y0 = MatMul(t, w2) y = Add(y0, b2)}""",
        w1=w1, b1=normal(8), w2=normal(16, 5), b2=normal(5), repeats=np.array([1, 1, 2]),
    )  # fmt: skip
    pruned = prune_channels(proto, 0.0).model
    assert weight_of(pruned, "w1").shape == (6, 6) and weight_of(pruned, "w2").shape == (12, 5)


def picked(indices: np.ndarray, *, width: int) -> list[tuple[int, ...]]:
    """Sizes of the weights of a model that takes heads of keys by their positions, before and after a rate of 0.5."""
    proto = model(
        """(float[N,3,6] x) => (float[N,3,5] y) {
            a = MatMul(x, w1) r = Reshape(a, heads) f = Transpose<perm=[2,0,1,3]>(r) g = GatherND(f, indices)
            b = Transpose<perm=[1,2,0,3]>(g) c = Reshape(b, flat) y = MatMul(c, w2)}""",
        w1=normal(6, 24), w2=normal(width, 5), heads=np.array([0, 0, 6, 4]), flat=np.array([0, 0, -1]),
        indices=indices,
    )  # fmt: skip
    found = []
    for rate in (0.0, 0.5):
        pruned = prune_channels(proto, rate, alone=False).model
        found.append((weight_of(pruned, "w1").shape[1], weight_of(pruned, "w2").shape[0]))
    return found


def test_heads_that_are_picked_by_a_list_go_and_the_list_is_renumbered() -> None:
    (whole, _), (made, read) = picked(np.array([[5], [0], [-2]]), width=12)
    assert whole == 12, "nobody reads the other heads"
    assert made == read < 12


def test_axes_behind_a_place_that_is_picked_pass_channels() -> None:
    place = np.array([[0, 1], [3, 2]])
    proto = model(
        "(float[4,3,6] x) => (float[2,5] y) {a = MatMul(x, w1) g = GatherND(a, places) y = MatMul(g, w2)}",
        w1=normal(6, 8), w2=normal(8, 5), places=place,
    )  # fmt: skip
    pruned = prune_channels(proto).model
    assert weight_of(pruned, "w1").shape == (6, 4) and weight_of(pruned, "w2").shape == (4, 5)
    assert weight_of(pruned, "places").tolist() == place.tolist()
