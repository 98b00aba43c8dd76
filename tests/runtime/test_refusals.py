import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.sessions import needs_kernels, run_kernels, sparse_model
from tests.sparse.graphs import dense_array, sparse_array

pytestmark = needs_kernels

WEIGHT = sparse_array(8, 6)
INT64 = np.iinfo(np.int64)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (
            {"gaps": np.array([40, 9], np.uint8), "values": np.ones(2, np.float32)},
            "value 1 is at position 48 of 48",
        ),
        ({"gaps": np.array([1, 0], np.uint8), "values": np.ones(2, np.float32)}, "gap 1 is 0"),
        ({"gaps": np.ones(3, np.uint8), "values": np.ones(2, np.float32)}, "2 values but 3 gaps"),
        (
            {"gaps": np.ones((1, 2), np.uint8), "values": np.ones(2, np.float32)},
            "gaps are not one-dimensional",
        ),
        ({"values": np.ones(2, np.int32), "gaps": np.ones(2, np.uint8)}, "values have an element type"),
        ({"shape": np.array([-8, -6], np.int64)}, "negative dimension"),
        ({"shape": np.array([INT64.max, 2], np.int64)}, "larger than memory"),
        ({"shape": np.array([1 << 27, 1 << 27], np.int64)}, "larger than memory"),
        ({"shape": np.array([48], np.int64)}, "not that of a matrix"),
        ({"shape": np.array([], np.int64)}, "position"),
    ],
)
def test_a_malformed_weight_is_refused_by_the_name_of_its_node(parts, reason):
    with pytest.raises(Exception, match=f"node 'sparse' cannot run.*{reason}"):
        run_kernels(sparse_model("SparseMatMul", WEIGHT, parts=parts), dense_array(3, 8))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"group": 3}, "cannot be divided into 3 groups"),
        ({"group": 0}, "0 groups"),
        ({"strides": [0, 1]}, "strides"),
        ({"strides": [1]}, "strides"),
        ({"dilations": [1, -1]}, "dilations"),
        ({"pads": [1, 1]}, "pads"),
        ({"kernel_shape": [3, 5]}, "kernel_shape"),
        ({"dilations": [9, 9]}, "larger than its padded input"),
        ({"dilations": [INT64.max, INT64.max]}, "dilations"),
        ({"pads": [INT64.max, 0, 0, 0]}, "pads"),
        ({"strides": [INT64.max, 1]}, "strides"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(attributes, reason):
    model = sparse_model("SparseConvNoBias", sparse_array(8, 4, 3, 3), **attributes)
    with pytest.raises(Exception, match=f"node 'sparse' cannot run.*{reason}"):
        run_kernels(model, dense_array(1, 4, 9, 9))


@pytest.mark.parametrize("x_shape", [(3, 7), (8,), (2, 3, 8, 1), (3, 0)])
def test_an_input_that_does_not_fit_the_weight_is_refused(x_shape):
    with pytest.raises(Exception, match=r"node 'sparse' cannot run.*its input"):
        run_kernels(sparse_model("SparseGemm", WEIGHT), dense_array(*x_shape))


def test_an_instruction_set_that_the_machine_lacks_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("ONNXPRUNE_ISA", "abacus")
    with pytest.raises(Exception, match=r"ONNXPRUNE_ISA is 'abacus', but this machine has .*portable"):
        run_kernels(sparse_model("SparseMatMul", WEIGHT), dense_array(3, 8))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    values=st.lists(st.floats(-2, 2, width=32), max_size=12),
    gaps=st.lists(st.integers(0, 255), max_size=12),
    shape=st.lists(st.sampled_from([0, 1, 3, 8, 255, -1, INT64.max, INT64.min]), max_size=4),
    op_type=st.sampled_from(["SparseMatMul", "SparseGemm", "SparseConvNoBias"]),
)
def test_whatever_the_file_says_the_answer_is_an_output_or_an_error(values, gaps, shape, op_type):
    parts = {
        "values": np.array(values, np.float32),
        "gaps": np.array(gaps, np.uint8),
        "shape": np.array(shape, np.int64),
    }
    x = dense_array(
        2, shape[1] if op_type == "SparseConvNoBias" and len(shape) > 1 and 0 < shape[1] < 9 else 3, 9
    )
    try:
        run_kernels(sparse_model(op_type, WEIGHT, parts=parts), x)
    except Exception as error:
        assert "cannot run" in str(error) or "Invalid" in str(error)
