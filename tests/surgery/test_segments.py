"""The correspondence of axes in a reshape, with sizes that have names, products of names, and none."""

from __future__ import annotations

import pytest

from onnxprune.model.shapes.sizes import Dim
from onnxprune.surgery.rules.segments import common_factors, match_segments

Pairs = list[tuple[tuple[int, ...], tuple[int, ...]]]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (("N", 16, 5, 5), ("N", 400), [((0,), (0,)), ((1, 2, 3), (1,))]),
        (("N", 16), ("M", 4, 4), [((0,), (0,)), ((1,), (1, 2))]),
        ((8, "N", 32), (8, "4*N", 8), [((0,), (0,)), ((1, 2), (1, 2))]),
        ((8, "N", 32), (8, None, 8), [((0,), (0,)), ((1, 2), (1, 2))]),
        (("N", "T", 32), ("N*T", 32), [((0, 1), (0,)), ((2,), (1,))]),
        ((None, None, 32), ("N", "T", 4, 8), [((0, 1), (0, 1)), ((2,), (2, 3))]),
        (("N", None, 32, None), ("N", None, 32, None), [((0,), (0,)), ((1, 2, 3), (1, 2, 3))]),
    ],
)
def test_the_finest_segments(left: tuple[Dim, ...], right: tuple[Dim, ...], expected: Pairs) -> None:
    assert match_segments(left, right) == tuple(expected)


def test_shapes_of_different_sizes_have_no_segments() -> None:
    assert match_segments((4, 6), (5, 5)) is None


def test_the_width_of_heads_that_are_merged_with_the_batch_is_a_factor() -> None:
    left, right = (8, "N", 32), (8, "4*N", 8)
    segments = match_segments(left, right)
    assert segments is not None
    (factor,) = common_factors(segments[1], left, right)
    assert (factor.left, factor.right) == (2, 2)
    assert factor.left_coordinate.tolist() == [*range(8)] * 4 and factor.right_coordinate.tolist() == [
        *range(8)
    ]
