import numpy as np

from onnxprune.data.axis_choice import declared_axes
from onnxprune.data.random import random_data
from onnxprune.data.specs import InputSpec


def test_random_data_fits_any_input_type():
    specs = [InputSpec("a", np.dtype(np.int64), (None, None)), InputSpec("b", np.dtype(np.float16), ("N", 3))]
    data = random_data(specs, declared_axes(specs), 4, seed=0)
    assert data.read().inputs["a"].shape == (16, 4) and set(np.unique(data.read().inputs["a"])) <= {0, 1}
    assert data.read().inputs["b"].shape == (16, 3) and data.read().inputs["b"].dtype == np.float16
    assert len(data) == 16
