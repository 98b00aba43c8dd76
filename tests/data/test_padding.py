"""Which positions of sequences are padding, and how they are cut off."""

import numpy as np

from onnxprune.data.axes import BatchAxes
from onnxprune.data.batch import Batch
from onnxprune.data.padding import Padding, paddings
from onnxprune.data.specs import InputSpec

MASK = np.array([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
PADDING = Padding("mask", {"ids": 1, "mask": 1})
SPECS = [
    InputSpec("ids", np.dtype(np.int64), ("N", "T")),
    InputSpec("mask", np.dtype(np.int64), ("N", "T")),
    InputSpec("pixels", np.dtype(np.float32), ("N", 3, "T")),
]


def test_a_sequence_ends_behind_the_last_position_that_is_not_zero():
    assert PADDING.lengths({"mask": MASK}).tolist() == [2, 3, 1, 0]


def test_the_axis_of_positions_may_be_any():
    mask = np.zeros((2, 1, 4, 3), np.float32)
    mask[0, 0, 2, 1] = mask[1, 0, 0, 0] = 1
    assert Padding("mask", {"mask": 2}).lengths({"mask": mask}).tolist() == [3, 1]


def test_runs_are_cut_to_their_longest_sequence():
    batch = Batch({"ids": 10 + MASK, "mask": MASK, "other": np.ones((4, 5))}, axes=BatchAxes(padding=PADDING))
    cut = batch.at(np.array([0, 2]))
    assert {name: array.shape for name, array in cut.inputs.items()} == {
        "ids": (2, 2), "mask": (2, 2), "other": (2, 5),
    }  # fmt: skip
    np.testing.assert_array_equal(cut.inputs["ids"], [[11, 11], [11, 10]])
    # A position is left where there is none.
    assert batch.at(np.array([3])).inputs["ids"].shape == (1, 1)


def test_a_batch_is_split_into_runs_of_similar_length_where_the_order_does_not_matter():
    lengths = np.arange(64) * 37 % 64 + 1
    mask = (np.arange(64) < lengths[:, None]).astype(np.int64)
    batch = Batch({"ids": mask, "mask": mask}, axes=BatchAxes(padding=PADDING))
    places = list(batch.places(64, ordered=False))
    assert [lengths[place].max() for place in places] == [16, 32, 48, 64]
    assert sorted(np.concatenate(places)) == list(range(64))
    assert [np.arange(64)[place].tolist() for place in batch.places(64)] == [list(range(64))]


def test_the_longest_of_the_inputs_that_end_in_zeros_counts():
    # Of two sequences, the second is longer in nearly all samples, and says nothing about the first.
    ids = np.array([[5, 0, 7, 0, 0]] * 4)
    pixels = np.zeros((4, 3, 5), np.float32) + 0.5
    found = list(paddings(SPECS, BatchAxes().of, {"ids": ids, "mask": MASK, "pixels": pixels}))
    assert [padding.masks for padding in found] == [("mask", "ids")]
    assert found[0].axes == {"ids": 1, "mask": 1, "pixels": 2}
    assert found[0].lengths({"ids": ids, "mask": MASK}).tolist() == [3, 3, 3, 3]
    assert found[0].lengths({"ids": 0 * ids, "mask": MASK}).tolist() == [2, 3, 1, 0]


def test_full_sequences_and_fixed_sizes_have_no_padding():
    full = np.ones((4, 5), np.int64)
    pixels = np.ones((4, 3, 5), np.float32)
    assert not list(paddings(SPECS, BatchAxes().of, {"ids": full, "mask": full, "pixels": pixels}))
    fixed = [InputSpec("mask", np.dtype(np.int64), ("N", 5))]
    assert not list(paddings(fixed, BatchAxes().of, {"mask": MASK}))
