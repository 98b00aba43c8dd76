"""The functions in front of sparse nodes, which make values and gaps of what is stored smaller: operators and kernels
need not know.

    values, gaps = Unpack (coded)                              coded as by sparse/coding.py
    values = Dequantize (quantized, gaps, scales, layout)      int8 by the scale of its output channel
    gaps = UnpackGaps (packed, values)                         two a byte, as many as there are values
    gaps = Ones (values)                                       zeros are stored too, so that every gap is 1
    quantized = Nibbles (halved, shape)                        int4 plus 8, two a byte, of every element

`dtype` of Unpack is the type of the values, `layout` (int64, 2) the number of output channels and the elements from one
to the next in the flattened weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelFileError
from onnxprune.model.constants import constant_tensor
from onnxprune.sparse.coding import uncode
from onnxprune.sparse.encode import dequantize, unhalved, unpack_gaps
from onnxprune.sparse.functions import DOMAIN, function_of

UNPACK, DEQUANTIZE, UNPACK_GAPS = "Unpack", "Dequantize", "UnpackGaps"
ONES, NIBBLES = "Ones", "Nibbles"


@dataclass(frozen=True)
class Decoder:
    """A function in front: its text in standard operators, and what it computes of arrays (attributes, *inputs)."""

    text: str
    decode: Callable[..., tuple[np.ndarray, ...]]


# Reshape refuses scales of another number.
_DEQUANTIZE = """(quantized, gaps, scales, layout) => (values) {
    distances = Cast <to = 7> (gaps)
    axis = Constant <value = int64 {0}> ()
    first = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    all = Constant <value = int64[1] {-1}> ()
    ends = CumSum (distances, axis)
    positions = Sub (ends, one)
    channels = Gather (layout, first)
    step = Gather (layout, one)
    blocks = Div (positions, step)
    channel = Mod (blocks, channels)
    every = Reshape (scales, channels)
    scale = Gather (every, channel)
    list = Reshape (quantized, all)
    whole = Cast <to = 1> (list)
    values = Mul (whole, scale)
}"""
_UNPACK_GAPS = """(packed, values) => (gaps) {
    four = Constant <value = uint8 {4}> ()
    sixteen = Constant <value = uint8 {16}> ()
    column = Constant <value = int64[2] {-1, 1}> ()
    flat = Constant <value = int64[1] {-1}> ()
    first = Constant <value = int64[1] {0}> ()
    low = Mod (packed, sixteen)
    high = BitShift <direction = "RIGHT"> (packed, four)
    lows = Reshape (low, column)
    highs = Reshape (high, column)
    pairs = Concat <axis = 1> (lows, highs)
    all = Reshape (pairs, flat)
    count = Shape (values)
    gaps = Slice (all, first, count)
}"""
_ONES = """(values) => (gaps) {
    one = Constant <value = uint8[1] {1}> ()
    count = Shape (values)
    gaps = Expand (one, count)
}"""
_NIBBLES = """(halved, shape) => (quantized) {
    four = Constant <value = uint8 {4}> ()
    sixteen = Constant <value = uint8 {16}> ()
    eight = Constant <value = int32 {8}> ()
    column = Constant <value = int64[2] {-1, 1}> ()
    flat = Constant <value = int64[1] {-1}> ()
    first = Constant <value = int64[1] {0}> ()
    low = Mod (halved, sixteen)
    high = BitShift <direction = "RIGHT"> (halved, four)
    lows = Reshape (low, column)
    highs = Reshape (high, column)
    pairs = Concat <axis = 1> (lows, highs)
    every = Reshape (pairs, flat)
    count = ReduceProd (shape)
    used = Slice (every, first, count)
    whole = Cast <to = 6> (used)
    moved = Sub (whole, eight)
    quantized = Cast <to = 3> (moved)
}"""
# After the size of blocks, their number. Each byte is seen with the next one, where bits may go on.
_UNPACK = """<dtype> (coded) => (values, gaps) {
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    start = Constant <value = int64[1] {5}> ()
    last = Constant <value = int64[1] {-1}> ()
    powers = Constant <value = int64[4] {1, 256, 65536, 16777216}> ()
    head = Slice (coded, zero, start)
    sizes = Cast <to = 7> (head)
    block = Slice (sizes, zero, one)
    digits = Slice (sizes, one, start)
    parts = Mul (digits, powers)
    count = ReduceSum (parts)
    all = Mul (count, block)
    bytes = Cast <to = 6> (coded)
    end = Shape (coded)
    low = Slice (bytes, zero, last)
    high = Slice (bytes, one, end)
    place = Constant <value = int32 {256}> ()
    above = Mul (high, place)
    pairs = Add (low, above)
    flat, next = onnxprune.Numbers <dtype: int = @dtype> (coded, pairs, start, all)
    shape = Concat <axis = 0> (count, block)
    values = Reshape (flat, shape)
    gaps, rest = onnxprune.Numbers <dtype = 2> (coded, pairs, next, count)
}"""
# `count` numbers from byte `start` on, and where they end.
_NUMBERS = """<dtype> (coded, pairs, start, count) => (numbers, end) {
    zero = Constant <value = int64 {0}> ()
    one = Constant <value = int64[1] {1}> ()
    step = Constant <value = int64 {1}> ()
    two = Constant <value = int64[1] {2}> ()
    three = Constant <value = int64[1] {3}> ()
    four = Constant <value = int64[1] {4}> ()
    five = Constant <value = int64[1] {5}> ()
    seven = Constant <value = int64 {7}> ()
    eight = Constant <value = int64 {8}> ()
    all = Constant <value = int64 {256}> ()
    every = Constant <value = int64[1] {256}> ()
    column = Constant <value = int64[2] {-1, 1}> ()
    flat = Constant <value = int64[1] {-1}> ()
    first = Constant <value = int64[1] {0}> ()
    powers_of_two = Constant <value = int64[8] {1, 2, 4, 8, 16, 32, 64, 128}> ()
    a = Add (start, five)
    head = Slice (coded, start, a)
    sizes = Cast <to = 7> (head)
    width = Slice (sizes, first, one)
    listed = Slice (sizes, one, two)
    joined = Slice (sizes, two, three)
    highest = Slice (sizes, three, four)
    low = Slice (sizes, four, five)
    groups = Gather (powers_of_two, width)
    b = Add (a, joined)
    c = Add (b, groups)
    d = Add (c, groups)
    e = Add (d, listed)
    f = Slice (coded, a, b)
    powers = Cast <to = 7> (f)
    g = Slice (coded, b, c)
    furthers = Cast <to = 6> (g)
    h = Slice (coded, c, d)
    firsts = Cast <to = 6> (h)
    i = Slice (coded, d, e)
    table = Cast <to = 7> (i)
    j = Range (zero, all, step)
    k = Slice (j, listed, every)
    l = Concat <axis = 0> (table, k)
    symbols = Reshape (l, column)
    levels = Add (highest, one)
    m = Div (symbols, powers)
    digits = Mod (m, levels)
    n = Add (digits, low)
    o = Mod (n, every)
    p = Cast <to = 2> (o)
    rows = Cast <to: int = @dtype> (p)
    q = Add (count, joined)
    r = Sub (q, one)
    length = Div (r, joined)
    s = Cast <to = 6> (width)
    widths = Expand (s, length)
    at = CumSum <exclusive = 1> (widths, zero)
    group = onnxprune.Bits (pairs, e, at, width)
    t = Mul (length, width)
    u = Add (t, seven)
    v = Div (u, eight)
    middle = Add (e, v)
    further = Gather (furthers, group)
    from = Gather (firsts, group)
    used = CumSum <exclusive = 1> (further, zero)
    more = onnxprune.Bits (pairs, middle, used, further)
    number = Add (from, more)
    w = Gather (rows, number)
    x = Reshape (w, flat)
    numbers = Slice (x, first, count)
    y = ReduceSum (further)
    z = Cast <to = 7> (y)
    aa = Add (z, seven)
    bb = Div (aa, eight)
    end = Add (middle, bb)
}"""
# Numbers of `width` bits each, from the bits `at` on, counted from byte `start`.
_BITS = """(pairs, start, at, width) => (numbers) {
    eight = Constant <value = int32 {8}> ()
    powers = Constant <value = int32[9] {1, 2, 4, 8, 16, 32, 64, 128, 256}> ()
    end = Shape (pairs)
    own = Slice (pairs, start, end)
    byte = Div (at, eight)
    bit = Mod (at, eight)
    pair = Gather (own, byte)
    low = Gather (powers, bit)
    moved = Div (pair, low)
    size = Gather (powers, width)
    numbers = Mod (moved, size)
}"""

DECODERS = {
    UNPACK: Decoder(_UNPACK, lambda dtype, coded: uncode(coded, ir.DataType(dtype).numpy())),
    DEQUANTIZE: Decoder(_DEQUANTIZE, lambda *arrays: (dequantize(*arrays),)),
    ONES: Decoder(_ONES, lambda values: (np.ones(len(values), np.uint8),)),
    NIBBLES: Decoder(_NIBBLES, lambda halved, shape: (unhalved(halved, shape),)),
    UNPACK_GAPS: Decoder(_UNPACK_GAPS, lambda packed, values: (unpack_gaps(packed, len(values)),)),
}
_TEXTS = {name: each.text for name, each in DECODERS.items()} | {"Numbers": _NUMBERS, "Bits": _BITS}


def decoder_function(name: str, opset: int) -> ir.Function | None:
    """A function in front, or one that these call, for a model of this opset; None where there is none of the name."""
    return function_of(name, _TEXTS[name], opset) if name in _TEXTS else None


def decoder_of(value: ir.Value | None) -> ir.Node | None:
    """The node of a function in front that makes a value, or None."""
    maker = None if value is None else value.producer()
    return maker if maker is not None and maker.domain == DOMAIN and maker.op_type in DECODERS else None


def part_array(value: ir.Value) -> np.ndarray:
    """A part of a sparse weight as its node reads it: a constant, or what functions in front make of constants.

    Raises:
        ModelFileError: it does not decode.
    """
    maker = decoder_of(value)
    if maker is not None:
        return _decoded(maker)[maker.outputs.index(value)]
    tensor = constant_tensor(value)
    assert tensor is not None
    try:
        return tensor.numpy()
    except (ValueError, TypeError) as error:
        raise ModelFileError(
            f"{value.name!r} holds other data than its shape says: write the model again"
        ) from error


def _decoded(maker: ir.Node) -> tuple[np.ndarray, ...]:
    try:
        arrays = [part_array(value) for value in maker.inputs if value is not None]
        attributes = [attribute.value for attribute in maker.attributes.values()]
        return DECODERS[maker.op_type].decode(*attributes, *arrays)
    except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        raise ModelFileError(
            f"{maker.op_type} node of {maker.outputs[0].name!r} cannot be decoded ({error}): write the model again "
            "with onnxprune"
        ) from error


def is_constant(part: ir.Value | None) -> bool:
    """Whether a part of a weight is constant, or decoded of what is."""
    maker = decoder_of(part)
    if maker is not None:
        return all(is_constant(value) for value in maker.inputs)
    return constant_tensor(part) is not None


def stored_constant(part: ir.Value) -> ir.Value:
    """The constant that a part of a weight is, or is decoded of."""
    maker = decoder_of(part)
    if maker is None:
        return part
    assert maker.inputs[0] is not None
    return stored_constant(maker.inputs[0])
