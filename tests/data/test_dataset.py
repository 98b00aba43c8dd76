from dataclasses import replace

import numpy as np
import pytest

from onnxprune.data.dataset import Dataset, class_axis


def test_a_split_loses_no_sample_and_repeats_with_its_seed():
    data = Dataset.of({"x": np.arange(40, dtype=np.float32).reshape(40, 1)}, np.arange(40), "d")
    rest, validation = data.split(0.1, seed=3)
    assert len(validation) == 4
    assert sorted(value for part in (rest, validation) for value in part.read().labels[""]) == list(range(40))
    assert (data.split(0.1, seed=3)[1].numbers() == validation.numbers()).all()
    assert [len(part) for part in data.split(0.001, seed=3)] == [39, 1]
    assert [len(part) for part in data.split(0.999, seed=3)] == [1, 39]


@pytest.mark.parametrize(
    ("output", "labels", "axis"),
    [
        ((5, 3), (5,), 1),
        ((5, 7, 3), (5, 7), 2),
        ((5, 3, 7, 7), (5, 7, 7), 1),
        ((5, 3), (4,), None),
        ((5,), (5,), None),
    ],
)
def test_the_class_axis_follows_from_the_shapes(output, labels, axis):
    assert class_axis(output, labels) == axis


def test_spread_samples_are_ascending_and_whole_groups():
    data = Dataset.of({"x": np.arange(100, dtype=np.float32)[:, None]}, None, "d")
    assert data.spread(5).numbers().tolist() == [0, 24, 49, 74, 99]
    assert len(data.spread(1000)) == 100 and data.spread(1).numbers().tolist() == [0]
    pairs = replace(data, group=2).spread(6).numbers()
    assert pairs.tolist() == [0, 1, 48, 49, 98, 99]
    training, validation = replace(data, group=2).split(0.1, seed=0)
    for part in (training, validation):
        assert (part.numbers()[::2] + 1 == part.numbers()[1::2]).all() and (
            part.numbers()[::2] % 2 == 0
        ).all()
