import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxprune.pruning.selection import CHUNK, kth_smallest


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(0, 2.0**100, width=32)), st.data())
def test_the_kth_smallest_is_what_sorting_gives(values, data):
    k = data.draw(st.integers(1, len(values)))
    assert kth_smallest([values], k) == np.sort(values)[k - 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, CHUNK, 2 * CHUNK, 2 * CHUNK + 7])
def test_the_kth_smallest_is_right_over_many_chunks(dtype, k):
    values = np.abs(np.random.default_rng(0).standard_normal(2 * CHUNK + 7)).astype(dtype)
    assert kth_smallest([values], k) == np.sort(values)[k - 1]
