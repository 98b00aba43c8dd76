import numpy as np

from onnxprune.calibration.split import split
from onnxprune.data.batch import Batch


def numbers(batch):
    return batch.inputs["x"].tolist()


def test_every_so_many_th_sample_is_apart():
    fit, held = split(Batch({"x": np.arange(10)}), 4)
    assert numbers(held) == [3, 7] and numbers(fit) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert numbers(split(Batch({"x": np.arange(10)}), 4, most=1)[1]) == [3]


def test_of_few_samples_none_is():
    fit, held = split(Batch({"x": np.arange(4)}), 4)
    assert held is None and numbers(fit) == [0, 1, 2, 3]
