import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.sparse.coding import MAX_WIDTH, code, smaller_code, uncode
from onnxprune.sparse.decoders import decoder_function

SPREADS = st.sampled_from([0.3, 1, 3, 20, 200])


@st.composite
def weights(draw):
    """Blocks of values around zero with gaps between them, as quantizing and pruning leave them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, block = draw(st.integers(1, 300)), draw(st.sampled_from([1, 4]))
    dtype = draw(st.sampled_from([np.int8, np.uint8]))
    values = rng.normal(0, draw(SPREADS), (count, block)).clip(-128, 127).astype(np.int8).view(dtype)
    gaps = rng.geometric(draw(st.sampled_from([0.9999, 0.5, 0.05])), count).clip(1, 255).astype(np.uint8)
    return values, gaps


def session(dtype, opset=13):
    """Stock onnxruntime with a graph of one Unpack node."""
    text = f"""<ir_version: 8, opset_import: ["": {opset}, "onnxprune": 1]>
        g (uint8[n] coded) => ({dtype.__name__}[m, b] v, uint8[m] g) {{
            v, g = onnxprune.Unpack <dtype: int = {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}> (coded)
        }}"""
    model = onnx.parser.parse_model(text)
    for name in ("Unpack", "Numbers", "Bits"):
        model.functions.append(ir.to_proto(decoder_function(name, opset)))
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


SESSIONS = {np.dtype(dtype): session(dtype) for dtype in (np.int8, np.uint8)}


def same(one, other):
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(weights())
def test_what_is_coded_comes_back_in_python_and_in_stock_onnxruntime(weight):
    dtype, coded = weight[0].dtype, code(*weight)
    if coded is None:
        assert len(np.unique(weight[0])) == 1
        return
    assert same(uncode(coded, dtype), weight)
    assert same(SESSIONS[dtype].run(None, {"coded": coded}), weight)


def test_the_example_of_the_module_docstring():
    numbers = [1, 0, 1, 255, 0, 1, 0, 2, 5, 8, 0b1010, 0b1100]
    ones = [0, 0, 1, 255, 0, 1, 0, 1]
    values, gaps = uncode(np.array([1, 4, 0, 0, 0, *numbers, *ones, 0, 0], np.uint8), np.dtype(np.uint8))
    assert (values.tolist(), gaps.tolist()) == ([[5], [8], [5], [11]], [1, 1, 1, 1])


@pytest.mark.parametrize(("levels", "most"), [(3, 0.25), (7, 0.25), (15, 0.25), (255, 0.3)])
def test_numbers_take_hardly_more_bits_than_their_information(levels, most):
    rng = np.random.default_rng(0)
    top = levels // 2
    values = np.rint(rng.normal(0, top / 2.5, 40_000)).clip(-top, top).astype(np.int8)
    gaps = rng.geometric(0.08, 40_000).clip(1, 255).astype(np.uint8)
    information = 0.0
    for numbers in (values, gaps):
        share = np.unique(numbers, return_counts=True)[1] / len(numbers)
        information -= float((share * np.log2(share)).sum())
    coded = code(values.reshape(-1, 1), gaps)
    assert information <= len(coded) * 8 / 40_000 <= information + most


def test_a_dense_weight_spends_no_bits_on_gaps():
    values = np.arange(-64, 64, dtype=np.int8).repeat(40).reshape(-1, 4)
    assert len(code(values, np.ones(len(values), np.uint8))) < values.size * 7 / 8 + 32


def test_what_would_not_get_smaller_is_not_coded():
    rng = np.random.default_rng(0)
    any_gaps, ones = rng.integers(1, 256, 2000).astype(np.uint8), np.ones(2000, np.uint8)
    assert smaller_code(rng.integers(-128, 128, (2000, 1), np.int8), any_gaps) is None
    assert smaller_code(rng.integers(-7, 8, (2000, 1), np.int8), ones) is not None
    assert smaller_code(np.ones((20, 1), np.int8), ones[:20]) is None
    whole = np.rint(rng.normal(0, 30, (2000, 1))).clip(-127, 127).astype(np.int8)
    assert smaller_code(whole, ones) is not None
    assert smaller_code(whole, ones, dense=2000) is None


CODED = code(np.arange(-9, 9, dtype=np.int8).reshape(-1, 1), np.arange(1, 19, dtype=np.uint8))


def changed(index, value):
    coded = CODED.copy()
    coded[index] = value
    return coded


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (CODED[:-1], "more are needed|bytes, not"),
        (CODED[:1], "more are needed"),
        (np.append(CODED, CODED), "bytes, not"),
        (CODED.astype(np.int8), "no list of bytes"),
        (CODED.reshape(1, -1), "no list of bytes"),
        (changed(4, 255), "bytes for"),
        (changed(5, MAX_WIDTH + 1), "8 bits for a group"),
        (changed(7, 0), "0 numbers in a symbol"),
        (changed(10, 0), "powers \\[0\\]"),
        (changed(11, 9), "9 further bits"),
    ],
)
def test_what_is_no_coding_is_refused(broken, reason):
    with pytest.raises(ValueError, match=reason):
        uncode(broken, np.dtype(np.int8))


@settings(max_examples=500, deadline=None)
@given(weights(), st.data())
def test_damaged_bytes_are_refused_or_give_as_many_values_as_gaps(weight, data):
    coded = code(*weight)
    if coded is None:
        return
    for _ in range(data.draw(st.integers(1, 4))):
        coded[data.draw(st.integers(0, len(coded) - 1))] = data.draw(st.integers(0, 255))
    try:
        values, gaps = uncode(coded[: data.draw(st.integers(0, len(coded)))], weight[0].dtype)
    except ValueError:
        return
    assert len(values) == len(gaps) and values.size <= 64 * len(coded)
