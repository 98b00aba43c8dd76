"""Arithmetic on sizes, symbolic ones among them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.model.shapes.sizes import Dim, Element, constants, evaluate, over, times


def array(*dims: Dim) -> np.ndarray:
    found = np.empty(len(dims), object)
    found[:] = [Element(dim, frozenset({dim})) for dim in dims]
    return found


@pytest.mark.parametrize(
    ("dims", "product"),
    [((2, 3), 6), (("N", 4), "4*N"), (("4*N", "M", 2), "8*M*N"), ((None, 2), None), ((0, "N"), 0)],
)
def test_products(dims: tuple[Dim, ...], product: Dim) -> None:
    assert times(*dims) == product


@pytest.mark.parametrize(
    ("dim", "by", "quotient"),
    [(6, 3, 2), ("8*N", 2, "4*N"), ("8*M*N", "2*N", "4*M"), ("N", 2, None), (7, 2, None), ("N", "M", None)],
)
def test_quotients_that_are_exact(dim: Dim, by: Dim, quotient: Dim) -> None:
    assert over(dim, by) == quotient


@pytest.mark.parametrize(
    ("op_type", "operands", "expected"),
    [
        ("Mul", [array("N", 3), constants(np.array([4, 5]))], ["4*N", 15]),
        ("Div", [array("4*N", 9), constants(np.array([2, 2]))], ["2*N", 4]),
        ("Add", [array("N", 3), constants(np.array([0, 1]))], ["N", 4]),
        ("Sub", [array("N", 3), constants(np.array([1, 1]))], [None, 2]),
        ("Equal", [array("N", 3), constants(np.array([-1, 3]))], [0, 1]),
        ("Concat", [array("N"), array(3)], ["N", 3]),
        ("Gather", [array("N", 3, "T"), constants(np.array([2, -2]))], ["T", 3]),
        ("Slice", [array("N", 3, "T"), constants(np.array([1])), constants(np.array([2**63 - 1]))], [3, "T"]),
        ("Slice", [array("N", 3, "T"), *map(constants, np.array([[-1], [-(2**63)], [0], [-1]]))], ["T", 3, "N"]),
        ("Slice", [array("N", 3, "T"), *map(constants, np.array([[0], [3], [0], [2]]))], ["N", "T"]),
        ("Transpose", [array("N", 3)], ["N", 3]),
        ("Where", [constants(np.array([True, False])), array(1, 1), array("N", "T")], [1, "T"]),
    ],
)  # fmt: skip
def test_operators(op_type: str, operands: list, expected: list[Dim]) -> None:
    found = evaluate(op_type, operands, {}, None)
    assert found is not None and [element.dim for element in found] == expected


def test_pads_as_exporters_turn_them_around() -> None:
    """Pairs for the last axis first become one vector for the first axis first."""
    pairs = evaluate("Reshape", [array("l", "r", "t", "b"), constants(np.array([-1, 2]))], {}, None)
    first = np.array([[-1], [-(2**63)], [0], [-1]])
    rows = evaluate("Slice", [pairs, *map(constants, first)], {}, None)
    columns = evaluate("Transpose", [rows], {"perm": [1, 0]}, None)
    found = evaluate("Reshape", [columns, constants(np.array([-1]))], {}, None)
    assert found is not None and [element.dim for element in found] == ["t", "l", "b", "r"]


def test_what_a_result_depends_on_is_kept() -> None:
    found = evaluate("Mul", [array("N"), array("M")], {}, None)
    assert found is not None and found[0].axes == {"N", "M"}


def test_numbers_that_become_floats_are_not_followed() -> None:
    assert evaluate("Cast", [array(5)], {"to": 1}, None) is None
