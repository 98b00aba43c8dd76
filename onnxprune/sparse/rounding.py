"""The parts that a weight of floats is stored in, by the type of the stored values.

fp32    values, gaps                              the weight's own values
fp16    values, packed -> gaps                    gaps packed where that is smaller
int8    coded -> quantized, gaps; scales, layout -> values
int4    the same; both like fp16 where the model is too small for coding to pay

Where few are zero, all are stored, int4 two a byte (halved), and no gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxprune.model.weights import Weight
from onnxprune.sparse.coding import smaller_code
from onnxprune.sparse.decoders import DEQUANTIZE, NIBBLES, ONES, UNPACK_GAPS
from onnxprune.sparse.encode import (
    LARGEST,
    MAX_HALF_GAP,
    encode,
    halved,
    halves,
    pack_gaps,
    quantize,
    quantize_again,
)
from onnxprune.sparse.stored import Constants

Quantize = Callable[[np.ndarray, int, int], tuple[np.ndarray, np.ndarray] | None]


class Parts(NamedTuple):
    """A weight in its parts; `values` is the type that it was rounded to, or empty where it keeps its own."""

    values: str
    kept: int
    arrays: Mapping[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        return _nbytes(self.arrays)

    def add_to(self, constants: Constants, dtype: ir.DataType) -> list[ir.Value]:
        """Values, gaps and shape for a sparse node, made of constants; `dtype` is the weight's."""
        arrays = self.arrays
        shape = None
        if "coded" in arrays:
            values, gaps = constants.unpack(arrays["coded"], ir.DataType.INT8)
        elif "halved" in arrays:
            packed = constants.add("halved", arrays["halved"], ir.DataType.UINT8)
            shape = constants.add("shape", arrays["shape"], ir.DataType.INT64)
            values = constants.make(NIBBLES, [packed, shape], "quantized")
            gaps = constants.make(ONES, [values], "gaps")
        else:
            name = "values" if "values" in arrays else "quantized"
            kind = ir.DataType.from_numpy(arrays[name].dtype) if self.values else dtype
            values = constants.add(name, arrays[name], kind)
            if "packed" in arrays:
                packed = constants.add("packed", arrays["packed"], ir.DataType.UINT8)
                gaps = constants.make(UNPACK_GAPS, [packed, values], "gaps")
            elif "gaps" not in arrays:
                gaps = constants.make(ONES, [values], "gaps")
            else:
                gaps = constants.add("gaps", arrays["gaps"], ir.DataType.UINT8)
        if "scales" in arrays:
            scales = constants.add("scales", arrays["scales"], ir.DataType.FLOAT)
            layout = constants.add("layout", arrays["layout"], ir.DataType.INT64)
            values = constants.make(DEQUANTIZE, [values, gaps, scales, layout], "values")
        if shape is None:
            shape = constants.add("shape", arrays["shape"], ir.DataType.INT64)
        return [values, gaps, shape]


def parts_of(weight: Weight, values: str, coded: bool = False) -> Parts:
    """The weight in its parts; one that the type cannot hold, or that is of integers, keeps its own values.

    `coded`: integers as by coding.py where that is smaller.
    """
    rounded = None if weight.quantized else _ROUNDED[values](weight, coded)
    return _own(weight) if rounded is None else rounded


def parts_again(weight: Weight, values: str, coded: bool = False) -> Parts:
    """The weight in its parts, of a type that it was stored in before, if that still holds its values exactly."""
    again = None if weight.quantized or not values else _AGAIN[values](weight, coded)
    return _own(weight) if again is None else again


def _own(weight: Weight) -> Parts:
    encoded = encode(weight.array())
    return Parts("", int(np.count_nonzero(encoded.values)), encoded._asdict())


def _half(weight: Weight, coded: bool) -> Parts | None:
    if weight.tensor.dtype == ir.DataType.FLOAT16:
        return None
    rounded = halves(weight.array(), weight.out_axis)
    if rounded is None:
        return None
    return Parts("fp16", int(np.count_nonzero(rounded)), _packed(rounded, "values"))


def _half_again(weight: Weight, coded: bool) -> Parts | None:
    rounded = halves(weight.array(), weight.out_axis)
    if rounded is None or not np.array_equal(rounded.astype(weight.array().dtype), weight.array()):
        return None
    return _half(weight, coded)


def _packed(rounded: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """Values so named, gaps and shape; two gaps a byte, where that saves more than the further fillers cost.

    Without gaps, and with all zeros, where that is the smallest.
    """
    encoded, tighter = encode(rounded), encode(rounded, MAX_HALF_GAP)
    tightest = tighter.values.nbytes + len(tighter.gaps) // 2
    if rounded.size and rounded.nbytes < min(tightest, encoded.values.nbytes + len(encoded.gaps)):
        # Where some are stored and others not, -0.0 becomes 0.0.
        return {name: rounded.reshape(-1) + rounded.dtype.type(0), "shape": encoded.shape}
    if tighter.values.nbytes + len(tighter.gaps) // 2 < encoded.values.nbytes + len(encoded.gaps):
        return {name: tighter.values, "packed": pack_gaps(tighter.gaps), "shape": tighter.shape}
    return {name: encoded.values, "gaps": encoded.gaps, "shape": encoded.shape}


def _integers(weight: Weight, coded: bool, values: str, quantized_by: Quantize = quantize) -> Parts | None:
    found = quantized_by(weight.array(), weight.out_axis, LARGEST[values])
    if found is None:
        return None
    quantized, scales = found
    encoded, plain = encode(quantized), _packed(quantized, "quantized")
    if values == "int4" and quantized.size:
        every = halved(quantized)
        if every.nbytes < _nbytes(plain) - plain["shape"].nbytes:
            plain = {"halved": every, "shape": encoded.shape}
    # What is stored whole loads in a third of the time and half of the memory of a code.
    whole = None if {"gaps", "packed"} & plain.keys() else _nbytes(plain)
    code = smaller_code(encoded.values.reshape(-1, 1), encoded.gaps, whole) if coded else None
    step = int(np.prod(weight.shape[weight.out_axis + 1 :], dtype=np.int64))
    arrays = {"scales": scales, "layout": np.array([len(scales), step], np.int64)}
    arrays |= plain if code is None else {"coded": code, "shape": encoded.shape}
    return Parts(values, int(np.count_nonzero(quantized)), arrays)


def _nbytes(arrays: Mapping[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays.values())


_ROUNDED: Mapping[str, Callable[[Weight, bool], Parts | None]] = {
    "fp32": lambda weight, coded: None,
    "fp16": _half,
    **{values: partial(_integers, values=values) for values in LARGEST},
}
_AGAIN: Mapping[str, Callable[[Weight, bool], Parts | None]] = {
    "fp16": _half_again,
    **{values: partial(_integers, values=values, quantized_by=quantize_again) for values in LARGEST},
}
