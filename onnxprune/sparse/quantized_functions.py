"""The operators of domain `onnxprune` that compute in 8-bit integers, as model-local functions in standard operators.

Each is a quantized operator whose weight W comes as the blocks of `sparse/blocks.py`:

    SparseQLinearConv   QLinearConv (x, W, B)                   SparseQDQConv     Conv between DequantizeLinear and
    SparseQLinearMatMul QLinearMatMul (x, W)                                      QuantizeLinear
    SparseQGemm         com.microsoft::QGemm (x, W, B)          SparseQDQGemm     Gemm likewise
    SparseQGemmTransB   the same with transB = 1                SparseQDQGemmTransB
                                                                SparseQDQMatMul   MatMul likewise

or one whose x has a scale that the graph computes, as dynamic quantization writes it:

    SparseMatMulInteger, SparseConvInteger                      sums (int32)
    SparseMatMulIntegerCastMul, SparseConvIntegerCastMul        the same with what makes floats of sums
    SparseMatMulIntegerCastMulAdd                               the same with a bias of floats
    SparseMatMulIntegerToFloat, SparseDynamicQuantizeMatMul     those of com.microsoft, in one operator

All have those of these inputs that their operator reads, in this order:

    x, x_scale, x_zero_point, values, gaps, shape, w_scale, w_zero_point, y_scale, y_zero_point, B, B_scale

and names of their own where there is no B (SparseQLinearConvNoBias). x and y are uint8, or int8 where W is as well.
With the graph optimizations of its default, onnxruntime computes the QDQ forms as the others, in integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxprune.model.slots import MICROSOFT
from onnxprune.sparse.functions import CONV_ATTRIBUTES, MIN_OPSET, function_of

# DequantizeLinear along an axis came with it.
MIN_QDQ_OPSET = 13
PARTS = ("values", "gaps", "shape")
# The inputs of sparse nodes, in their order.
INPUTS = (
    *("x", "x_scale", "x_zero_point", *PARTS, "w_scale", "w_zero_point"),
    *("y_scale", "y_zero_point", "B", "B_scale"),
)
_QUANTIZED = ("x", "x_scale", "x_zero_point", "W", "w_scale", "w_zero_point")
_INTEGER = ("x", "W", "x_zero_point", "w_zero_point")
# The inputs of operators, as they order them; those of floats as the nodes around them have them.
OPERANDS = {
    "QLinearConv": (*_QUANTIZED, "y_scale", "y_zero_point", "B"),
    "QLinearMatMul": (*_QUANTIZED, "y_scale", "y_zero_point"),
    "QGemm": (*_QUANTIZED, "B", "y_scale", "y_zero_point"),
    "Conv": (*_QUANTIZED, "B", "B_scale", "y_scale", "y_zero_point"),
    "Gemm": (*_QUANTIZED, "B", "B_scale", "y_scale", "y_zero_point"),
    "MatMul": (*_QUANTIZED, "y_scale", "y_zero_point"),
    "MatMulInteger": _INTEGER,
    "ConvInteger": _INTEGER,
    "MatMulIntegerToFloat": ("x", "W", "x_scale", "w_scale", "x_zero_point", "w_zero_point", "B"),
    "DynamicQuantizeMatMul": ("x", "W", "w_scale", "w_zero_point", "B"),
}


@dataclass(frozen=True)
class QuantizedOp:
    """An operator of domain `onnxprune`, and the one it stands for: its text makes y of x, W and B."""

    op_type: str
    domain: str
    input_axis: int
    """The axis of inputs of the weight."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Name -> type of those that nodes may have."""
    fixed: Mapping[str, int] = field(default_factory=dict)
    """Those that every node has."""
    has_bias: bool = False
    qdq: bool = False
    scaled: bool = False
    """Whether sums are multiplied by the scales of x and W: Cast, Mul, and Add where there is a bias."""

    @property
    def name(self) -> str:
        base = f"QDQ{self.op_type}" if self.qdq else self.op_type
        trans = "".join(f"{name[0].upper()}{name[1:]}" for name in self.fixed)
        if self.scaled:
            return f"Sparse{base}CastMul{'Add' * self.has_bias}"
        return f"Sparse{base}{trans}{'' if self.has_bias or not self.may_have_bias else 'NoBias'}"

    @property
    def may_have_bias(self) -> bool:
        return "B" in OPERANDS[self.op_type] or (self.scaled and not self.one_zero_point)

    @property
    def inputs(self) -> tuple[str, ...]:
        has = {"x_scale", "w_scale"} if self.scaled else set()
        has |= set(OPERANDS[self.op_type]) - {"B", "B_scale"} | {*PARTS}
        has |= {"B"} if self.has_bias else set()
        has |= {"B_scale"} if self.has_bias and self.qdq else set()
        return tuple(name for name in INPUTS if name in has)

    @property
    def operands(self) -> tuple[str, ...]:
        """The inputs of the operator that it stands for, which is no operator of floats; "" where there is none."""
        given = [name if name in (*self.inputs, "W") else "" for name in OPERANDS[self.op_type]]
        while not given[-1]:
            del given[-1]
        return tuple(given)

    @property
    def out_axis(self) -> int:
        """The axis of outputs of the weight."""
        return 0 if self.input_axis else 1

    @property
    def one_zero_point(self) -> bool:
        """Whether all outputs of the weight have the same zero point: onnxruntime's convolutions demand it."""
        return "Conv" in self.op_type

    @property
    def dynamic(self) -> bool:
        """Whether the scale of x may come from the graph: there is none of y."""
        return "y_scale" not in OPERANDS[self.op_type]

    @property
    def min_opset(self) -> int:
        return MIN_QDQ_OPSET if self.qdq else MIN_OPSET

    def text(self) -> str:
        """What makes y of W, in ONNX text."""
        given = [f"{name}: {kind} = @{name}" for name, kind in self.attributes.items()]
        given += [f"{name} = {value}" for name, value in self.fixed.items()]
        passed = f"<{', '.join(given)}>" if given else ""
        call = f"{self.domain}.{self.op_type}" if self.domain else self.op_type
        if self.scaled:
            return f"""
                sums = {call} {passed} ({", ".join(self.operands)})
                whole = Cast <to = 1> (sums)
                scale = Mul (x_scale, w_scale)
                {"product" if self.has_bias else "y"} = Mul (whole, scale)
                {"y = Add (product, B)" if self.has_bias else ""}
            """
        if not self.qdq:
            return f"y = {call} {passed} ({', '.join(self.operands)})"
        bias = "bf = DequantizeLinear <axis = 0> (B, B_scale)" if self.has_bias else ""
        return f"""
            xf = DequantizeLinear (x, x_scale, x_zero_point)
            wf = DequantizeLinear <axis = {self.out_axis}> (W, w_scale, w_zero_point)
            {bias}
            yf = {call} {passed} (xf, wf{", bf" if self.has_bias else ""})
            y = QuantizeLinear (yf, y_scale, y_zero_point)
        """


def _forms() -> tuple[QuantizedOp, ...]:
    trans_b = {"transB": 1}
    bases = (
        QuantizedOp("QLinearConv", "", 1, CONV_ATTRIBUTES),
        QuantizedOp("QLinearMatMul", "", 0),
        QuantizedOp("QGemm", MICROSOFT, 0),
        QuantizedOp("QGemm", MICROSOFT, 1, fixed=trans_b),
        QuantizedOp("Conv", "", 1, CONV_ATTRIBUTES, qdq=True),
        QuantizedOp("MatMul", "", 0, qdq=True),
        QuantizedOp("Gemm", "", 0, qdq=True),
        QuantizedOp("Gemm", "", 1, fixed=trans_b, qdq=True),
        QuantizedOp("MatMulInteger", "", 0),
        QuantizedOp("MatMulInteger", "", 0, scaled=True),
        QuantizedOp("ConvInteger", "", 1, CONV_ATTRIBUTES),
        QuantizedOp("ConvInteger", "", 1, CONV_ATTRIBUTES, scaled=True),
        QuantizedOp("MatMulIntegerToFloat", MICROSOFT, 0),
        QuantizedOp("DynamicQuantizeMatMul", MICROSOFT, 0),
    )
    return (*bases, *(replace(op, has_bias=True) for op in bases if op.may_have_bias))


QUANTIZED_OPS = {op.name: op for op in _forms()}

# The blocks lie along the inputs of one output; what lies between outputs is seen as one axis before that of inputs and
# one behind it. `zeros` is one zero point, or one for each output.
_BLOCKS = """(values, gaps, shape, zeros) => (W) {{
    first = Constant <value = int64[1] {{0}}> ()
    one = Constant <value = int64[1] {{1}}> ()
    two = Constant <value = int64[1] {{2}}> ()
    every = Constant <value = int64[1] {{-1}}> ()
    {outer}
    end = Shape (shape)
    rest = Slice (shape, along, end)
    inputs = Slice (shape, along, behind)
    rest_size = ReduceProd (rest)
    inner = Div (rest_size, inputs)
    outputs = Mul (outer, inner)
    values_shape = Shape (values)
    block = Slice (values_shape, one, two)
    short = Sub (block, one)
    ample = Add (inputs, short)
    row = Div (ample, block)
    padded = Mul (row, block)
    zero_column = Constant <value = int64[3] {{-1, 1, 1}}> ()
    zero = Reshape (zeros, zero_column)
    place_shape = Concat <axis = 0> (outputs, row, block)
    spread = Expand (zero, place_shape)
    block_shape = Concat <axis = 0> (every, block)
    empty = Reshape (spread, block_shape)
    distances = Cast <to = 7> (gaps)
    axis = Constant <value = int64 {{0}}> ()
    ends = CumSum (distances, axis)
    positions = Sub (ends, one)
    column = Constant <value = int64[2] {{-1, 1}}> ()
    places = Reshape (positions, column)
    filled = ScatterND (empty, places, values)
    row_shape = Concat <axis = 0> (outer, inner, padded)
    rows = Reshape (filled, row_shape)
    kept = Slice (rows, first, inputs, two)
    moved = Transpose <perm = [0, 2, 1]> (kept)
    W = Reshape (moved, shape)
}}"""
# By the axis of inputs.
_BLOCKS_OF = {
    "Blocks0": "outer = Identity (one) along = Identity (first) behind = Identity (one)",
    "Blocks1": "outer = Slice (shape, first, one) along = Identity (one) behind = Identity (two)",
}
_ALL_ZEROS = "zeros = Identity (w_zero_point)"
_FIRST_ZERO = """
    every = Constant <value = int64[1] {-1}> ()
    first = Constant <value = int64[1] {0}> ()
    list = Reshape (w_zero_point, every)
    zeros = Gather (list, first)
"""


def blocks_function(name: str, opset: int) -> ir.Function | None:
    """The function that makes W of blocks, for an axis of inputs; None where there is none of this name."""
    if name not in _BLOCKS_OF:
        return None
    made = function_of(name, _BLOCKS.format(outer=_BLOCKS_OF[name]), opset)
    made.doc_string = (
        "A weight of which blocks of `values` are stored, and their distances. Written by onnxprune."
    )
    return made


def quantized_function(op: QuantizedOp, opset: int) -> ir.Function:
    """The model-local function of `op` for a model of this opset (`op.min_opset` or later)."""
    text = f"""<{", ".join(op.attributes)}> ({", ".join(op.inputs)}) => (y) {{
        {_FIRST_ZERO if op.one_zero_point else _ALL_ZEROS}
        W = onnxprune.{list(_BLOCKS_OF)[op.input_axis]} (values, gaps, shape, zeros)
        {op.text()}
    }}"""
    return function_of(op.name, text.removeprefix("<> "), opset)
