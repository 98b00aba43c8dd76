"""Weights of 8-bit integers in blocks: what is stored, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import ModelFileError
from onnxprune.sparse.blocks import bytes_of, decode_blocks, encode_blocks, share_of_fours, smallest_blocks
from onnxprune.sparse.coding import smaller_code
from onnxprune.sparse.encode import Encoded

NAME = "sparse weight 'w'"


def sparse_integers(shape, density, zero, dtype=np.int8, seed=0):
    """Integers of which this share is not `zero`."""
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    drawn = rng.integers(info.min, info.max, shape, endpoint=True)
    return np.where(rng.random(shape) < density, drawn, zero).astype(dtype)


def test_a_matrix_in_blocks_of_four_inputs():
    # Two outputs of four inputs each; the first has none that is not zero.
    weight = np.array([[0, 0, 0, 0], [0, 5, 0, 6]], np.int8)
    blocks = encode_blocks(weight, np.int8(0), 1, 4)
    assert blocks.values.tolist() == [[0, 5, 0, 6]]
    assert blocks.gaps.tolist() == [2]
    assert blocks.shape.tolist() == [2, 4]
    # Its transposed has its inputs along the other axis, and the same blocks.
    assert encode_blocks(weight.T, np.int8(0), 0, 4).values.tolist() == [[0, 5, 0, 6]]


def test_a_convolution_has_its_input_channels_in_blocks_at_each_tap():
    weight = np.zeros((1, 4, 1, 2), np.int8)
    weight[0, :, 0, 1] = [1, 2, 3, 4]
    blocks = encode_blocks(weight, np.int8(0), 1, 4)
    assert blocks.values.tolist() == [[1, 2, 3, 4]]
    assert blocks.gaps.tolist() == [2]


def test_inputs_that_fill_no_block_are_padded():
    weight = np.full((2, 5), 7, np.uint8)
    blocks = encode_blocks(weight, np.uint8(3), 1, 4)
    assert blocks.values.tolist() == [[7, 7, 7, 7], [7, 0, 0, 0]] * 2
    assert np.array_equal(decode_blocks(blocks, np.array(3, np.uint8), 1, NAME), weight)


def test_distances_are_bridged_by_blocks_of_zero_points():
    weight = np.full((300, 4), 9, np.int8)
    weight[299, 0] = 1
    blocks = encode_blocks(weight, np.int8(9), 1, 4)
    assert blocks.gaps.tolist() == [255, 45]
    assert blocks.values.tolist() == [[9] * 4, [1, 9, 9, 9]]


@pytest.mark.parametrize("coded", [False, True])
def test_the_smaller_of_both_forms_is_taken(coded):
    scattered = np.zeros((32, 64), np.int8)
    scattered[:, ::8] = 1
    assert smallest_blocks(scattered, np.int8(0), 1, coded)[0].values.shape == (256, 1)
    scattered[:, :32] = 2
    found, code = smallest_blocks(scattered, np.int8(0), 1, coded)
    assert coded or found.values.shape[1] == 4
    others = [encode_blocks(scattered, np.int8(0), 1, block) for block in (1, 4)]
    codes = [smaller_code(each.values, each.gaps, scattered.nbytes) if coded else None for each in others]
    assert bytes_of(found, code) == min(map(bytes_of, others, codes))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    data=st.data(),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    dtype=st.sampled_from([np.int8, np.uint8]),
    block=st.sampled_from([1, 4]),
)
def test_what_is_encoded_comes_back(shape, data, density, dtype, block):
    axis = data.draw(st.integers(0, len(shape) - 1))
    info = np.iinfo(dtype)
    zero = np.array(data.draw(st.integers(int(info.min), int(info.max))), dtype)
    weight = sparse_integers(shape, density, zero, dtype)
    blocks = encode_blocks(weight, zero, axis, block)
    back = decode_blocks(blocks, zero, axis, NAME)
    assert back.dtype == dtype
    assert np.array_equal(back, weight)
    moved = np.moveaxis(weight != zero, axis, -1)
    fours = np.pad(moved, [(0, 0)] * (moved.ndim - 1) + [(0, -moved.shape[-1] % 4)]).reshape(-1, 4).any(1)
    stored = max(int(fours.sum()), 1)
    if len(blocks.gaps) < 255 and (blocks.gaps < 255).all():
        assert share_of_fours(blocks, axis) == pytest.approx(stored * 4 / weight.size)


def test_zero_points_of_each_output_come_back():
    zeros = np.arange(6, dtype=np.int8) * 20 - 60
    weight = np.broadcast_to(zeros, (8, 6)).copy()
    weight[2, 3] = 1
    blocks = encode_blocks(weight, zeros, 0, 4)
    assert len(blocks.values) == 1
    assert np.array_equal(decode_blocks(blocks, zeros, 0, NAME), weight)


GOOD = Encoded(np.ones((2, 4), np.int8), np.array([1, 1], np.uint8), np.array([4, 8], np.int64))


@pytest.mark.parametrize(
    ("change", "zero", "reason"),
    [
        ({"values": np.ones((2, 4), np.float32)}, np.int8(0), "its values are float32"),
        ({}, np.uint8(0), "its zero points uint8"),
        ({"values": np.ones((2, 3), np.int8)}, np.int8(0), "not in blocks of 1 or 4"),
        ({"values": np.ones(8, np.int8)}, np.int8(0), "not in blocks of 1 or 4"),
        ({"values": np.ones((3, 4), np.int8)}, np.int8(0), "3 values but 2 gaps"),
        ({"gaps": np.array([1, 1], np.int8)}, np.int8(0), "its gaps are int8"),
        ({"gaps": np.array([1, 0], np.uint8)}, np.int8(0), "gap 1 is 0"),
        ({"gaps": np.array([1, 8], np.uint8)}, np.int8(0), "its last block is at position 8 of 8"),
        ({"shape": np.array([4, -8])}, np.int8(0), "negative dimension"),
        ({"shape": np.array([4])}, np.int8(0), "too few axes"),
        ({"shape": np.array([1 << 40, 1 << 40])}, np.int8(0), "larger than memory"),
        ({}, np.zeros(3, np.int8), "its zero points of shape \\[3\\] do not fit"),
    ],
)
def test_what_is_no_encoding_is_refused(change, zero, reason):
    with pytest.raises(ModelFileError, match=f"sparse weight 'w' cannot be decoded.*{reason}"):
        decode_blocks(GOOD._replace(**change), np.asarray(zero), 1, NAME)
