"""Samples of code that yields batches, called anew at every pass."""

import numpy as np
import pytest

from onnxprune.data.axes import FIRST_AXES
from onnxprune.data.stream import StreamSource, regrouped, shuffled
from onnxprune.errors import DataError

SIZES = (3, 5, 1, 8, 4)
ROWS = np.arange(sum(SIZES))


def passes(epoch=0):
    start = 0
    for size in SIZES:
        yield {
            "x": np.arange(start, start + size, dtype=np.float32)[:, None] + 100 * epoch,
            "rate": np.int64(7),
        }
        start += size


def values(batches):
    return [int(value) for batch in batches for value in batch["x"][:, 0]]


def test_batches_of_any_sizes_are_regrouped():
    groups = list(regrouped(map(FIRST_AXES.rows, passes()), 4))
    assert [len(group["x"]) for group in groups] == [4, 4, 4, 4, 4, 1] and values(groups) == ROWS.tolist()
    assert all((group["rate"] == 7).all() for group in groups)


def test_a_stream_is_read_by_number_and_in_order():
    source = StreamSource(passes, "batches")
    assert len(source) == 21
    assert source.read(np.array([20, 3, 0, 11]))["x"][:, 0].tolist() == [20, 3, 0, 11]
    index = np.array([1, 2, 9, 20])
    assert values(source.scan(index, 3)) == [1, 2, 9, 20]
    assert values(source.scan(index, 3, epoch=2)) == [201, 202, 209, 220]


@pytest.mark.parametrize("kept", [1, 6, 21, 100])
def test_a_shuffled_pass_gives_every_sample_once_in_an_order_that_seed_and_epoch_fix(kept):
    source = StreamSource(lambda epoch: passes(), "batches")

    def order(epoch, seed):
        batches = list(shuffled(source, ROWS, 4, epoch, seed, kept))
        assert [len(batch["x"]) for batch in batches] == [4] * 5 + [1]
        return values(batches)

    assert sorted(order(0, 0)) == ROWS.tolist()
    assert order(1, 0) == order(1, 0) != ROWS.tolist()
    assert order(1, 0) != order(2, 0) and order(1, 0) != order(1, 1)
    # What is held is not far from where it came from.
    far = max(position - number for position, number in enumerate(order(0, 0)))
    assert kept > 6 or far >= -(kept + 8)


def test_batches_of_the_caller_are_not_changed():
    batch = {"x": np.arange(8.0)}
    source = StreamSource(lambda epoch: [batch, {"x": np.arange(8.0, 16)}], "batches")
    list(shuffled(source, np.arange(16), 4, 0, 0, 8))
    assert (batch["x"] == np.arange(8)).all()


def test_a_pass_that_ends_early_or_fails_is_refused():
    lengths = iter([8, 8, 4])
    source = StreamSource(lambda epoch: [{"x": np.zeros(next(lengths))}], "batches")
    with pytest.raises(DataError, match="batches gave 4 samples in a later pass, 8 in the first one"):
        source.read(np.arange(8))

    def broken(epoch):
        yield {"x": np.zeros(3)}
        raise OSError("disk on fire")

    with pytest.raises(DataError, match="broken failed while yielding batches: OSError: disk on fire"):
        StreamSource(broken, "broken")


def test_samples_that_differ_from_pass_to_pass_are_told():
    random = np.random.default_rng(0)
    source = StreamSource(lambda epoch: [{"x": random.random((4, 2))}], "samples")
    assert "gave other samples in a second pass" in source.notes[0]
    assert not StreamSource(lambda epoch: [{"x": np.ones((4, 2))}], "samples").notes
