import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxprune.errors import ModelFileError
from onnxprune.sparse.encode import CHUNK, decode, encode, encoded_bytes

FLOATS = st.sampled_from([np.float16, np.float32, np.float64])


@st.composite
def weights(draw):
    """Arrays of any float type and shape, zeros mostly, some non-zeros far apart."""
    dtype = draw(FLOATS)
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=40))
    weight = np.zeros(shape, dtype)
    size = weight.size
    for position in draw(st.lists(st.integers(0, size - 1), max_size=20)):
        weight.reshape(-1)[position] = draw(hnp.from_dtype(np.dtype(dtype)))
    return weight


@given(weights())
def test_decode_gives_back_what_encode_was_given(weight):
    decoded = decode(*encode(weight))
    assert decoded.dtype == weight.dtype
    np.testing.assert_array_equal(decoded, weight)


@given(weights())
def test_positions_are_the_running_sum_of_the_gaps_minus_one(weight):
    values, gaps, shape = encode(weight)
    flat = np.zeros(weight.size, weight.dtype)
    flat[np.cumsum(gaps, dtype=np.int64) - 1] = values
    np.testing.assert_array_equal(flat.reshape(shape), weight)


def test_the_example_of_the_module_docstring():
    values, gaps, shape = encode(np.array([0, 0, 7, 0, 0, 0, 9], np.float32))
    assert (values.tolist(), gaps.tolist(), shape.tolist()) == ([7, 9], [3, 4], [7])
    assert (gaps.dtype, shape.dtype) == (np.uint8, np.int64)


@pytest.mark.parametrize(
    ("position", "expected"),
    [(254, [255]), (255, [255, 1]), (509, [255, 255]), (510, [255, 255, 1])],
)
def test_a_gap_above_255_is_bridged_by_fillers_of_value_zero(position, expected):
    weight = np.zeros(600, np.float32)
    weight[position] = 5
    values, gaps, _ = encode(weight)
    assert gaps.tolist() == expected
    assert values.tolist() == [0] * (len(expected) - 1) + [5]


def test_gaps_run_on_across_the_chunks_that_encode_works_in():
    weight = np.zeros(3 * CHUNK + 1, np.float32)
    positions = [0, CHUNK - 1, CHUNK, 3 * CHUNK]
    weight[positions] = [1, 2, 3, 4]
    values, gaps, _ = encode(weight)
    nonzero = values != 0
    assert (np.cumsum(gaps, dtype=np.int64) - 1)[nonzero].tolist() == positions
    assert values[nonzero].tolist() == [1, 2, 3, 4]


def test_nan_and_infinity_survive_and_negative_zero_counts_as_zero():
    weight = np.array([np.nan, -0.0, np.inf, -np.inf, 0.0], np.float32)
    encoded = encode(weight)
    assert len(encoded.values) == 3
    decoded = decode(*encoded)
    np.testing.assert_array_equal(decoded, weight)
    assert not np.signbit(decoded[1])


def test_a_weight_of_zeros_is_one_filler():
    encoded = encode(np.zeros((3, 5), np.float16))
    assert (encoded.values.tolist(), encoded.gaps.tolist()) == ([0], [1])
    assert decode(*encoded).tolist() == np.zeros((3, 5)).tolist()


def test_a_weight_without_elements_has_no_entries():
    encoded = encode(np.zeros((0, 5), np.float32))
    assert len(encoded.values) == len(encoded.gaps) == 0
    assert decode(*encoded).shape == (0, 5)


def test_a_transposed_view_is_read_in_its_own_order():
    weight = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(decode(*encode(weight)), weight)


@given(weights())
def test_encoded_bytes_predicts_the_size(weight):
    encoded = encode(weight)
    assert encoded_bytes(len(encoded.values), weight.itemsize, weight.ndim) == encoded.nbytes


GOOD = {
    "values": np.array([1, 2], np.float32),
    "gaps": np.array([1, 3], np.uint8),
    "shape": np.array([2, 2], np.int64),
}


def test_the_arrays_that_the_broken_ones_are_made_of_decode():
    assert decode(**GOOD).tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"gaps": np.array([1, 0], np.uint8)}, "gap 1 is 0"),
        ({"gaps": np.array([1, 4], np.uint8)}, "last value is at position 4 of 4"),
        ({"gaps": np.array([1], np.uint8)}, "2 values but 1 gaps"),
        ({"values": np.ones((1, 2), np.float32)}, "not one-dimensional"),
        ({"gaps": np.ones((2, 1), np.uint8)}, "not one-dimensional"),
        ({"shape": np.array(4)}, "not one-dimensional"),
        ({"gaps": np.array([1, 3], np.int8)}, "its gaps are int8"),
        ({"shape": np.array([2, 2], np.float32)}, "its shape is float32"),
        ({"shape": np.array([-2, -2])}, "negative dimension"),
        ({"shape": np.array([2**62, 2])}, "larger than memory"),
        ({"shape": np.array([2**62, 2**62])}, "larger than memory"),
        ({"shape": np.array([0, 2])}, "position 3 of 0"),
    ],
)
def test_arrays_that_are_no_encoding_are_refused(broken, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        decode(**{**GOOD, **broken}, name="fc.weight")
    assert str(caught.value).startswith("fc.weight cannot be decoded")
