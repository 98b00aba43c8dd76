"""Weights that integers stand for: zero is the zero point, sizes are (q - zero point) * scale, files stay quantized."""

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

import onnxprune
from onnxprune.errors import NothingToPruneError
from onnxprune.model.encoding import along
from onnxprune.model.files.io import load
from onnxprune.model.weights import find_weights
from tests.builders import cnn, initializer, mlp, normal
from tests.fuzz.models import written

X, Y = "float[N,8] x", "float[N,6] y"
IMAGE, MAP = "float[N,3,9,9] x", "float[N,4,7,7] y"
QUANTIZED_X = "xq = QuantizeLinear (x, s, z) xd = DequantizeLinear (xq, s, z)"
SCALES = {"s": np.float32(0.05), "z": np.uint8(128)}


def integers(*shape, dtype=np.int8, seed=0):
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype, endpoint=True)


def per(axis_length, dtype=np.int8):
    """Scales, and zero points of which most are not 0."""
    scales = np.linspace(0.01, 0.1, axis_length, dtype=np.float32)
    middle = 0 if dtype == np.int8 else 128
    return scales, (middle + np.arange(axis_length) * 3 - 5).astype(dtype)


def quantized_product(node, weight, weight_scale, weight_zero, **further):
    """A model around one product whose second operand is `w`, with scale `ws` and zero point `wz`."""
    ends = f"g ({X}) => ({Y})" if weight.ndim == 2 else f"g ({IMAGE}) => ({MAP})"
    constants = {"w": weight, "ws": weight_scale, "wz": weight_zero, **SCALES, **further}
    return written(f"{ends} {{ {QUANTIZED_X} {node} }}", constants, opset=21, ir_version=10)


OUT = "ys = Identity (s) yz = Identity (z) y = DequantizeLinear (yq, ys, yz)"
DYNAMIC = "xi, xs, xz = DynamicQuantizeLinear (x)"
SCALED = "yf = Cast <to = 1> (yi) t = Mul (xs, ws) y = Mul (yf, t)"
U8 = np.uint8
FORMS = {
    "DequantizeLinear": lambda: quantized_product(
        "wd = DequantizeLinear (w, ws, wz) y = MatMul (xd, wd)", integers(8, 6), np.float32(0.02), np.int8(7)
    ),
    "DequantizeLinear without zero point": lambda: quantized_product(
        "wd = DequantizeLinear (w, ws) y = MatMul (xd, wd)", integers(8, 6), np.float32(0.02), np.int8(0)
    ),
    "DequantizeLinear by axis": lambda: quantized_product(
        "wd = DequantizeLinear <axis = 1> (w, ws, wz) y = MatMul (xd, wd)",
        integers(8, 6, dtype=U8),
        *per(6, U8),
    ),
    "Transpose behind DequantizeLinear": lambda: quantized_product(
        "wd = DequantizeLinear <axis = 0> (w, ws, wz) t = Transpose (wd) y = MatMul (xd, t)",
        integers(6, 8),
        *per(6),
    ),
    "Transpose before DequantizeLinear": lambda: quantized_product(
        "t = Transpose (w) wd = DequantizeLinear <axis = 1> (t, ws, wz) y = MatMul (xd, wd)",
        integers(6, 8),
        *per(6),
    ),
    "Gemm": lambda: quantized_product(
        "wd = DequantizeLinear <axis = -2> (w, ws, wz) y = Gemm <transB = 1> (xd, wd)",
        integers(6, 8),
        *per(6),
    ),
    "DequantizeLinear by blocks": lambda: quantized_product(
        "wd = DequantizeLinear <axis = 0, block_size = 4> (w, ws, wz) y = MatMul (x, wd)",
        integers(8, 6),
        per(12)[0].reshape(2, 6),
        per(12)[1].reshape(2, 6),
    ),
    "int16": lambda: quantized_product(
        "wd = DequantizeLinear (w, ws, wz) y = MatMul (xd, wd)",
        integers(8, 6, dtype=np.int16),
        np.float32(1e-4),
        np.int16(300),
    ),
    "int4": lambda: quantized_product(
        "wd = DequantizeLinear (w, ws, wz) y = MatMul (x, wd)",
        (np.arange(48).reshape(8, 6) * 7 % 16 - 8).astype(ml_dtypes.int4),
        np.float32(0.2),
        np.array(2, ml_dtypes.int4),
    ),
    "Conv": lambda: quantized_product(
        "wd = DequantizeLinear <axis = 0> (w, ws, wz) y = Conv (xd, wd)", integers(4, 3, 3, 3), *per(4)
    ),
    "QLinearConv": lambda: quantized_product(
        f"yq = QLinearConv (xq, s, z, w, ws, wz, s, z) {OUT}",
        integers(4, 3, 3, 3),
        per(4)[0],
        np.zeros(4, np.int8),
    ),
    "QLinearConv in uint8": lambda: quantized_product(
        f"yq = QLinearConv (xq, s, z, w, ws, wz, s, z) {OUT}",
        integers(4, 3, 3, 3, dtype=U8),
        np.float32(0.02),
        U8(131),
    ),
    "ConvInteger": lambda: quantized_product(
        f"{DYNAMIC} yi = ConvInteger (xi, w, xz, wz) {SCALED}",
        integers(4, 3, 3, 3, dtype=U8),
        np.float32(0.02),
        U8(125),
    ),
    "QLinearMatMul": lambda: quantized_product(
        f"yq = QLinearMatMul (xq, s, z, w, ws, wz, s, z) {OUT}", integers(8, 6, dtype=U8), *per(6, U8)
    ),
    "MatMulInteger": lambda: quantized_product(
        f"{DYNAMIC} yi = MatMulInteger (xi, w, xz, wz) {SCALED}", integers(8, 6, dtype=U8), *per(6, U8)
    ),
    "QGemm": lambda: quantized_product(
        f"yq = com.microsoft.QGemm <transB = 1> (xq, s, z, w, ws, wz, , s, z) {OUT}",
        integers(6, 8),
        np.float32(0.02),
        np.int8(-9),
    ),
    "DynamicQuantizeMatMul": lambda: quantized_product(
        "y = com.microsoft.DynamicQuantizeMatMul (x, w, ws, wz)",
        integers(8, 6, dtype=U8),
        np.float32(0.02),
        U8(130),
    ),
    "MatMulIntegerToFloat": lambda: quantized_product(
        "y = com.microsoft.MatMulIntegerToFloat (xq, w, s, ws, z, wz)",
        integers(8, 6),
        np.float32(0.02),
        np.int8(3),
    ),
}


def only_weight(model):
    (weight,) = find_weights(load(model)[0]).prunable
    return weight


def meant(weight):
    """What the model means by the integers, worked out here from its operator's definition."""
    return weight.encoding.decode(weight.array())


@pytest.mark.parametrize("form", ["ops", "dense", "coo"])
@pytest.mark.parametrize("name", FORMS)
def test_half_of_a_quantized_weight_becomes_its_zero_point_and_the_rest_is_unchanged(name, form):
    model = FORMS[name]()
    result = onnxprune.prune(model, rate=0.5, format=form, remove_dead=False)
    before, after = initializer(model, "w"), initializer(result.model, "w")
    zero = np.broadcast_to(only_weight(model).encoding.zero, before.shape)
    assert after.dtype == before.dtype
    assert np.count_nonzero(after == zero) == round(0.5 * after.size)
    kept = after != zero
    assert np.array_equal(after[kept], before[kept])
    sizes = np.abs(meant(only_weight(model)))
    assert sizes[kept].min() >= sizes[~kept].max()
    (layer,) = result.report.layers
    assert layer.kept == kept.sum()
    assert layer.bytes_after == layer.bytes
    assert {n.op_type for n in result.model.graph.node} == {n.op_type for n in model.graph.node}


@pytest.mark.parametrize("name", FORMS)
def test_the_dequantized_weight_is_what_onnxruntime_computes_with(name):
    """Each element alone: cutting it moves the outputs as much as its size, for an input of ones."""
    model = FORMS[name]()
    weight = only_weight(model)
    dense = meant(weight).copy()
    if weight.array().ndim == 2:
        axes, x = (weight.in_axis,), np.ones((1, 8), np.float32)
    else:
        axes, x = (
            tuple(a for a in range(dense.ndim) if a != weight.out_axis),
            np.ones((1, 3, 9, 9), np.float32),
        )
    for tensor in model.graph.initializer:  # finer, so that outputs are not clipped
        if tensor.name == "w":
            small = np.where(
                np.arange(dense.size).reshape(dense.shape) % 3, weight.encoding.zero, weight.array()
            )
            tensor.CopyFrom(onnx.numpy_helper.from_array(small.astype(weight.array().dtype), "w"))
    expected = meant(only_weight(model)).sum(axis=axes)
    (found,) = outputs(model, x)
    found = found[0] if found.ndim == 2 else found[0, :, 0, 0]
    clipped = np.clip(expected, -128 * 0.05, 127 * 0.05) if "Q" in name[:1] else expected
    assert np.allclose(found, clipped, atol=0.06, rtol=0.02)


@pytest.mark.parametrize("name", FORMS)
def test_a_quantized_file_at_rate_0_keeps_every_integer(name):
    model = FORMS[name]()
    result = onnxprune.prune(model, rate=0)
    assert np.array_equal(initializer(model, "w"), initializer(result.model, "w"))


def outputs(model, x):
    import onnxruntime as ort

    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )


def test_thresholds_compare_quantized_weights_with_floats():
    """A scale of 1e-3 makes one weight small beside the other, whose numbers are about 1."""
    model = written(
        f"g ({X}) => ({Y}) {{ wd = DequantizeLinear (w, ws) h = MatMul (x, wd) y = MatMul (h, v) }}",
        {"w": integers(8, 8), "ws": np.float32(1e-3), "v": 1 + np.abs(normal(8, 6))},
    )
    result = onnxprune.prune(model, rate=0.5, allocation="global", remove_dead=False)
    small, large = result.report.layers
    assert small.kept == 8
    assert large.kept == 48


def test_a_unit_of_stored_zeros_is_not_dead_where_zero_is_another_number():
    w = integers(8, 8)
    w[:, 2] = 0
    w[:, 5] = 9  # the zero point: dead
    model = written(
        f"g ({X}) => ({Y}) {{ wd = DequantizeLinear (w, ws, wz) h = MatMul (x, wd) r = Relu (h) y = MatMul (r, v) }}",
        {"w": w, "ws": np.float32(0.02), "wz": np.int8(9), "v": normal(8, 6)},
    )
    result = onnxprune.prune(model, rate=0)
    assert initializer(result.model, "w").shape == (8, 7)
    assert np.array_equal(initializer(result.model, "w")[:, 2], w[:, 2])
    x = normal(4, 8)
    for before, after in zip(outputs(model, x), outputs(result.model, x), strict=True):
        assert np.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("name", ["static QDQ", "static QOperator", "dynamic"])
def test_removing_dead_units_keeps_the_outputs_of_quantized_models(name, rate, tmp_path):
    model = quantized(cnn(), name, tmp_path)
    whole = onnxprune.prune(model, rate=rate, format="dense", remove_dead=False).model
    removed = onnxprune.prune(model, rate=rate, format="dense").model
    x = normal(4, 1, 8, 8)
    for before, after in zip(outputs(whole, x), outputs(removed, x), strict=True):
        assert np.allclose(before, after, atol=1e-4 * np.abs(before).max())


class Reader(CalibrationDataReader):
    def __init__(self, shape):
        self.left = [{"x": normal(4, *shape, seed=seed)} for seed in range(4)]

    def get_next(self):
        return self.left.pop() if self.left else None


def quantized(model, way, folder):
    """The model as onnxruntime.quantization writes it, per channel and in uint8 where it can."""
    source, target = folder / "in.onnx", folder / "out.onnx"
    onnx.save(model, source)
    if way == "dynamic":
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8, per_channel=True)
    else:
        form = QuantFormat.QDQ if way == "static QDQ" else QuantFormat.QOperator
        shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
        types = {"weight_type": QuantType.QUInt8, "activation_type": QuantType.QUInt8}
        quantize_static(source, target, Reader(shape), quant_format=form, per_channel=True, **types)
    return onnx.load(target)


@pytest.mark.parametrize("way", ["static QDQ", "static QOperator", "dynamic"])
@pytest.mark.parametrize("build", [mlp, cnn])
def test_zeros_from_before_quantization_are_counted_and_kept(build, way, tmp_path):
    pruned = onnxprune.prune(build(), rate=0.6, format="dense", remove_dead=False)
    zeros = [layer.size - layer.kept for layer in pruned.report.layers]
    result = onnxprune.prune(quantized(pruned.model, way, tmp_path), rate=0, remove_dead=False)
    assert len(result.report.layers) == len(zeros)
    for layer, count in zip(result.report.layers, zeros, strict=True):
        # What rounds to the zero point is zero as well.
        assert layer.size - layer.kept >= count
    again = onnxprune.prune(result.model, rate=0.6, remove_dead=False)
    for layer, count in zip(again.report.layers, zeros, strict=True):
        assert layer.size - layer.kept >= count


@pytest.mark.parametrize("pattern", ["2:4", "4x1"])
@pytest.mark.parametrize("name", ["Gemm", "QLinearConv", "QLinearMatMul"])
def test_patterns_hold_in_quantized_weights(name, pattern):
    model = FORMS[name]()
    result = onnxprune.prune(model, rate=0.5, pattern=pattern, remove_dead=False)
    weight = only_weight(result.model)
    if pattern == "2:4":
        rows = weight.channels_last(weight.present())
        assert all(rows[:, start : start + 4].sum(1).max() <= 2 for start in range(0, rows.shape[1], 4))
    else:
        blocks = weight.matrix(weight.present())[:4]
        assert (blocks.all(0) | ~blocks.any(0)).mean() > 0.9
    assert weight.nonzero() < weight.size * 0.7


@pytest.mark.parametrize(
    ("nodes", "constants", "reason"),
    [
        ("wd = DequantizeLinear (w, ws, p) y = MatMul (x, wd)", {"c": np.int8(1)}, "zero point is computed"),
        ("a = MatMulInteger (xq, w) y = Cast <to = 1> (a)", {}, None),
        (
            "r = Reshape (w, shape) wd = DequantizeLinear <axis = 1> (r, cs) y = MatMul (x, wd)",
            {"shape": np.array([8, 6]), "cs": per(6)[0]},
            None,
        ),
    ],
)
def test_quantized_weights_whose_zero_is_not_known_are_named(nodes, constants, reason):
    before = "p = Add (c, c) " if "p)" in nodes else ""
    w = integers(6, 8) if "Reshape" in nodes else integers(8, 6)
    model = written(
        f"g ({X}) => ({Y}) {{ {QUANTIZED_X if 'xq' in nodes else ''} {before}{nodes} }}",
        {"w": w, "ws": np.float32(0.1), **SCALES, **constants},
    )
    if reason is None:
        assert onnxprune.prune(model, rate=0.5, remove_dead=False).report.layers[0].kept == 24
        return
    with pytest.raises(NothingToPruneError, match=reason):
        onnxprune.prune(model, rate=0.5)


def test_quantized_weights_that_are_reshaped_for_one_reader_of_two_are_named():
    nodes = """r = Reshape (w, shape) wd = DequantizeLinear <axis = 1> (r, cs) y = MatMul (x, wd)
        also = DequantizeLinear (w, ws)"""
    model = written(
        f"g ({X}) => ({Y}, float[6,8] also) {{ {nodes} }}",
        {"w": integers(6, 8), "ws": np.float32(0.1), "shape": np.array([8, 6]), "cs": per(6)[0]},
    )
    with pytest.raises(NothingToPruneError, match="reshaped between the weight and its scales"):
        onnxprune.prune(model, rate=0.5)


def test_a_constant_whose_readers_differ_on_zero_is_left_as_it_is():
    model = written(
        f"""g ({X}) => (float[N,8] y) {{
            a = DequantizeLinear (w, s, p) b = DequantizeLinear (w, s, q) h = MatMul (x, a) y = MatMul (h, b)
        }}""",
        {"w": integers(8, 8), "s": np.float32(0.1), "p": np.int8(1), "q": np.int8(2)},
    )
    with pytest.raises(NothingToPruneError, match="have different zero points"):
        onnxprune.prune(model, rate=0.5)


def test_parameters_lie_along_their_axes():
    scales = np.arange(1, 4, dtype=np.float32)
    assert along(scales[:1], (3, 4), (0,)).shape == ()
    assert along(scales, (3, 4), (0,)).shape == (3, 1)
    assert along(np.ones((2, 6)), (2, 5, 6), (0, 2)).shape == (2, 1, 6)
    blocks = along(np.array([[1.0], [2.0]]), (5, 1), (0,), block=3)
    assert blocks.ravel().tolist() == [1, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="broadcast"):
        along(scales, (4, 4), (0,))
