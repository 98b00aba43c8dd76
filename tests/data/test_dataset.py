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
