"""The operators of domain `onnxprune`, as model-local functions in standard ONNX operators.

Each is a Gemm, MatMul or Conv whose weight comes as the three constants of `sparse/encode.py`:

    SparseGemm       (X, values, gaps, shape[, C])    Gemm(X, W, C)
    SparseGemmLeft   (X, values, gaps, shape[, C])    Gemm(W, X, C)
    SparseMatMul     (X, values, gaps, shape)         MatMul(X, W)
    SparseMatMulLeft (X, values, gaps, shape)         MatMul(W, X)
    SparseConv       (X, values, gaps, shape, B)      Conv(X, W, B)
    SparseConvNoBias (X, values, gaps, shape)         Conv(X, W)

What any other operator reads, or several nodes do, is decoded in front of them:

    SparseWeight     (values, gaps, shape)            W

Those that multiply X from the right also come with what follows them: an addition, an activation, or both. Their
names end in the operators that they took in, and what those read stands before the bias:

    SparseConvRelu   (X, values, gaps, shape, B)               Relu(Conv(X, W, B))
    SparseConvAddClip(X, values, gaps, shape, addend, low, high, B)
                                                               Clip(Add(Conv(X, W, B), addend), low, high)

Attributes are those of the standard operators, present or absent as there, and `dtype`: the weight's element
type (TensorProto.DataType), to which `values` are cast, so that they may be stored in another one.

What is stored smaller than that is made larger by functions in front (decoders.py).

Conv without a bias has a name of its own: in a function that could have one, the absent bias becomes an empty
input, and with that onnxruntime (1.18 and 1.32 tried) does not take its blocked convolution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import onnx.parser
import onnx_ir as ir

from onnxprune.model.functions import OWN_DOMAIN

DOMAIN = OWN_DOMAIN
# The same operators where they shall run dense: no library has kernels for this domain, so that onnxruntime takes
# the function and folds it into the standard operator.
DENSE_DOMAIN = "onnxprune.dense"
DOMAINS = (DOMAIN, DENSE_DOMAIN)
DOMAIN_VERSION = 1
# The function's operators at the lowest: CumSum and ScatterElements came with opset 11, functions with IR 8.
MIN_OPSET = 11
MIN_IR_VERSION = 8
# Up to this IR version every initializer had to be listed as a graph input, and was constant all the same.
LAST_IR_WITH_LISTED_INITIALIZERS = 3

_GEMM_ATTRIBUTES = {"alpha": "float", "beta": "float", "transA": "int", "transB": "int"}
CONV_ATTRIBUTES = {
    "auto_pad": "string",
    "dilations": "ints",
    "group": "int",
    "kernel_shape": "ints",
    "pads": "ints",
    "strides": "ints",
}


@dataclass(frozen=True)
class Activation:
    """Operators that make Y of a sum Z, as ONNX text: its other inputs are `scalars`, its attributes @references."""

    text: str
    scalars: tuple[str, ...] = ()
    since: int = MIN_OPSET
    """The opset that brought the operators."""

    @property
    def name(self) -> str:
        return "".join(re.findall(r"= (\w+) ", self.text))

    @property
    def attributes(self) -> dict[str, str]:
        """Name -> type on the sparse node; no operator that has a weight calls one of its own so."""
        return dict.fromkeys(re.findall(r"@(\w+)", self.text), "float")


NO_ACTIVATION = Activation("")
ACTIVATIONS = (
    Activation("Y = Relu (Z)"),
    Activation("Y = Clip (Z, low, high)", ("low", "high")),
    Activation("Y = LeakyRelu <alpha: float = @slope> (Z)"),
    Activation("Y = Sigmoid (Z)"),
    # SiLU, as exporters spell it, and as opset 24 does.
    Activation("gate = Sigmoid (Z) Y = Mul (Z, gate)"),
    Activation("Y = Swish <alpha: float = @slope> (Z)", since=24),
    # HardSwish and its spellings.
    Activation("Y = HardSwish (Z)", since=14),
    Activation("gate = HardSigmoid <alpha: float = @slope, beta: float = @offset> (Z) Y = Mul (Z, gate)"),
    Activation(
        "shifted = Add (Z, shift) clipped = Clip (shifted, low, high) "
        "gate = Div (clipped, divisor) Y = Mul (Z, gate)",
        ("shift", "low", "high", "divisor"),
    ),
    Activation(
        "shifted = Add (Z, shift) clipped = Clip (shifted, low, high) "
        "product = Mul (Z, clipped) Y = Div (product, divisor)",
        ("shift", "low", "high", "divisor"),
    ),
)


@dataclass(frozen=True)
class SparseOp:
    """An operator of domain `onnxprune`, and the standard one it stands for, whose weight is called W."""

    base_name: str
    op_type: str
    operands: tuple[str, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Name -> type of the standard operator's attributes."""
    has_addend: bool = False
    activation: Activation = NO_ACTIVATION

    @cached_property
    def name(self) -> str:
        return f"{self.base_name}{'Add' if self.has_addend else ''}{self.activation.name}"

    @property
    def weight_index(self) -> int:
        return self.operands.index("W")

    @property
    def followers(self) -> tuple[str, ...]:
        """What the operators after the standard one read, beside its output."""
        return ("addend",) * self.has_addend + self.activation.scalars

    @property
    def result(self) -> str:
        """The standard operator's output."""
        if self.has_addend:
            return "P"
        return "Z" if self.activation.text else "Y"

    @property
    def tail(self) -> str:
        """The operators after the standard one, in ONNX text: of its result they make Y."""
        if not self.has_addend:
            return self.activation.text
        return f"{'Z' if self.activation.text else 'Y'} = Add (P, addend) {self.activation.text}"


_WITH_WEIGHT_RIGHT = (
    # Of two that differ in the number of operands only, the smaller comes first.
    SparseOp("SparseGemm", "Gemm", ("X", "W", "C"), _GEMM_ATTRIBUTES),
    SparseOp("SparseMatMul", "MatMul", ("X", "W")),
    SparseOp("SparseConvNoBias", "Conv", ("X", "W"), CONV_ATTRIBUTES),
    SparseOp("SparseConv", "Conv", ("X", "W", "B"), CONV_ATTRIBUTES),
)
_WITH_WEIGHT_LEFT = (
    SparseOp("SparseGemmLeft", "Gemm", ("W", "X", "C"), _GEMM_ATTRIBUTES),
    SparseOp("SparseMatMulLeft", "MatMul", ("W", "X")),
)
BASE_OPS = (*_WITH_WEIGHT_RIGHT, *_WITH_WEIGHT_LEFT)
FUSED_OPS = tuple(
    replace(op, has_addend=has_addend, activation=activation)
    for has_addend in (True, False)
    for activation in (*ACTIVATIONS, NO_ACTIVATION)
    if has_addend or activation.text
    for op in _WITH_WEIGHT_RIGHT
)
SPARSE_WEIGHT = "SparseWeight"
# Of integers, SparseWeight holds these; the sparse operators compute in floats.
STORED_INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8)
SPARSE_OPS = {op.name: op for op in (*BASE_OPS, *FUSED_OPS)}

# Zeros of the right type are one cast and expanded: ConstantOfShape takes no type from an attribute, and casting
# what it gives doubled the load time of a 4096x25088 weight (1.6 s against 3.2 s).
_DECODED = """<dtype> (values, gaps, shape) => (W) {
    distances = Cast <to = 7> (gaps)
    axis = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    ends = CumSum (distances, axis)
    positions = Sub (ends, one)
    size = ReduceProd (shape)
    nought = Constant <value = uint8 {0}> ()
    zero = Cast <to: int = @dtype> (nought)
    zeros = Expand (zero, size)
    entries = Cast <to: int = @dtype> (values)
    flat = ScatterElements (zeros, positions, entries)
    W = Reshape (flat, shape)
}"""
_TEXT = """<{declared}> ({inputs}) => (Y) {{
    W = onnxprune.{weight} <dtype: int = @dtype> (values, gaps, shape)
    {op.result} = {op.op_type} {passed} ({operands})
    {op.tail}
}}"""


def function_of(name: str, text: str, opset: int, domain: str = DOMAIN) -> ir.Function:
    """A model-local function from ONNX text, for a model of this opset (11 or later): they must be the same.

    What lies between its inputs and outputs is numbered, for the size of the file, and its nodes have names that are
    unique in a model, as some readers ask for.
    """
    called = sorted(set(re.findall(r"([\w.]+)\.\w+\s*(?:<[^>]*>)?\s*\(", text)))
    imports = ", ".join([f'"": {opset}', *(f'"{each}": 1' for each in called)])
    parsed = ir.serde.deserialize_function(
        onnx.parser.parse_function(f'<domain: "{domain}", opset_import: [{imports}]> {name} {text}')
    )
    made = [output for node in parsed for output in node.outputs if output not in parsed.outputs]
    for number, value in enumerate(made):
        value.name = f"{number}"
    for number, node in enumerate(parsed):
        node.name = f"{name}/{number}"
    return parsed


def weight_function(opset: int) -> ir.Function:
    """The model-local function `SparseWeight` for a model of this opset."""
    made = function_of(SPARSE_WEIGHT, _DECODED, opset)
    made.doc_string = (
        "A sparse weight: `values` stand at cumsum(gaps) - 1 of it, flattened; it is zero elsewhere. Written by "
        "onnxprune."
    )
    return made


def standard_opset(model: ir.Model) -> int:
    """The opset of standard operators that the model imports; 0 where it imports none."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def sparse_op(node: ir.Node, weight_index: int) -> SparseOp:
    """The operator that takes the place of a Gemm, MatMul or Conv whose weight is input `weight_index`."""
    return next(
        op
        for op in BASE_OPS
        if op.op_type == node.op_type
        and op.weight_index == weight_index
        and len(node.inputs) <= len(op.operands)
    )


def has_sparse_op(node: ir.Node, weight_index: int) -> bool:
    """Whether there is an operator that can take the place of a node whose weight is input `weight_index`."""
    return node.domain in ("", "ai.onnx", *DOMAINS) and any(
        op.weight_index == weight_index and node.op_type in (op.op_type, op.name)
        for op in SPARSE_OPS.values()
    )


def function(op: SparseOp, opset: int) -> ir.Function:
    """The model-local function of `op` for a model of this opset."""
    first, *others = (name for name in op.operands if name != "W")
    references = ", ".join(f"{name}: {kind} = @{name}" for name, kind in op.attributes.items())
    text = _TEXT.format(
        op=op,
        weight=SPARSE_WEIGHT,
        declared=", ".join([*op.attributes, *op.activation.attributes, "dtype"]),
        inputs=", ".join([first, "values", "gaps", "shape", *op.followers, *others]),
        passed=f"<{references}>" if references else "",
        operands=", ".join(op.operands),
    )
    return function_of(op.name, text, opset)
