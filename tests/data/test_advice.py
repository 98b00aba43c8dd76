"""Arrays that do not fit an input: the step that a message names makes them fit."""

import re

import numpy as np
import pytest

from onnxprune.data.request import Request
from onnxprune.data.sources import load_data
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError
from tests.builders import normal

FLOAT = np.dtype(np.float32)


def refused(array, *dims, dtype=FLOAT):
    """The message for an array that an input of these dims does not take."""
    with pytest.raises(DataError) as caught:
        load_data({"x": array, "labels": np.zeros(len(array), int)}, Request([InputSpec("x", dtype, dims)]))
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "dims", "words"),
    [
        ((4, 6, 8, 3), ("N", 3, 6, 8), r"\[N, 6, 8, 3\], the input takes \[N, 3, 6, 8\]: transpose it to"),
        ((4, 6, 8, 3), ("N", 3, "h", "w"), r"transpose it to \[N, 3, any, any\]"),
        ((4, 3, 6, 8), ("N", None, None, 3), r"transpose it to \[N, any, any, 3\]"),
        ((4, 5, 6, 8, 3), ("N", 3, 5, 6, 8), "transpose it"),
        ((4, 7, 5), ("N", 5, 7), "transpose it"),
        ((4, 8, 8), ("N", 1, 8, 8), "add an axis"),
        ((4, 8, 8), ("N", 8, 8, 1), "add an axis"),
        ((4, 1, 8, 8), ("N", 8, 8), "take away the axis"),
        ((4, 1, 8, 8), ("N", 3, 8, 8), "repeat its only channel"),
        ((4, 8, 8), ("N", 64), r"in the order of \[N, 64\]; then"),
        ((4, 64), ("N", 1, 8, 8), "in the order of"),
    ],
)
def test_the_line_of_numpy_makes_the_array_fit(shape, dims, words):
    array, spec = normal(*shape), InputSpec("x", FLOAT, dims)
    message = refused(array, *dims)
    assert re.search(words, message) and ": reshape" not in message
    line = re.search(r"(array\.\w+|numpy\.\w+)\(.*?\)(?=$|,? or |, array)", message)
    made = eval(line[0], {"array": array, "numpy": np})
    assert load_data({"x": made}, Request([spec])).read().inputs["x"].shape == made.shape


def test_images_that_are_transposed_have_their_channels_where_they_belong():
    array = normal(4, 6, 8, 3)
    line = refused(array, "N", 3, 6, 8).rpartition(", array")[2]
    np.testing.assert_array_equal(eval(f"array{line}"), np.moveaxis(array, -1, 1))


@pytest.mark.parametrize(
    ("shape", "dims", "words"),
    [
        ((3, 8, 8), ("N", 3, 8, 8), r"one sample alone needs the axis of the samples, array\[None\]"),
        ((4, 3, 9, 9), ("N", 3, 8, 8), r"resize the images to \[N, 3, 8, 8\]"),
        ((4, 7), ("N", 8), "give the 8 values of a sample"),
        ((4, 4, 16), ("N", 8, 8), "give samples of that shape"),
    ],
)
def test_what_no_line_mends_is_told(shape, dims, words):
    assert re.search(words, refused(normal(*shape), *dims))


INT = np.dtype(np.int64)


@pytest.mark.parametrize(
    ("array", "dtype", "words"),
    [
        (np.ones((4, 3, 2, 2), np.uint8), FLOAT, "give --transform, or scale the bytes"),
        (np.ones((4, 2), np.int64), FLOAT, r"array.astype\('float32'\), scaled as in the training"),
        (np.ones((4, 2)), INT, r"float64, the input takes int64: array.astype\('int64'\)$"),
        (np.full((4, 2), 0.5), INT, "its values are not whole"),
        (np.array([["a", "b"]] * 4), FLOAT, "encode texts as numbers"),
        (np.ones((4, 2)), np.dtype(object), "give texts"),
        (
            np.full((4, 2), 300),
            np.dtype(np.uint8),
            "has the number 300, which the input's type uint8 cannot hold",
        ),
        (np.full((4, 2), -1), np.dtype(bool), "has the number -1, which the input's type bool cannot hold"),
    ],
)
def test_types_that_do_not_fit_are_told_with_the_conversion(array, dtype, words):
    dims = ("N", *array.shape[1:])
    assert re.search(words, refused(array, *dims, dtype=dtype))


def test_doubles_and_wider_integers_are_taken_as_the_input_has_them():
    for array, dtype in ((np.ones((4, 2)), FLOAT), (np.full((4, 2), 200), np.dtype(np.uint8))):
        made = load_data({"x": array}, Request([InputSpec("x", dtype, ("N", 2))])).read().inputs["x"]
        assert made.dtype == dtype and (made == array).all()
