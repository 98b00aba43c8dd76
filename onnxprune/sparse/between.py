"""Operators of 8-bit integers between sparse nodes, by the library's kernels: onnxruntime's own take longer.

    com.microsoft::QLinearAdd (A, A_scale, ...)      <->  onnxprune::QLinearAdd
    com.microsoft::QLinearSoftmax (X, X_scale, ...)  <->  onnxprune::QLinearSoftmax
    MaxPool of bytes (X)                             <->  onnxprune::MaxPool

A node only changes its domain: the function of that name calls the operator itself, with the same inputs and
attributes, so stock onnxruntime takes it apart again.

Kernels have channels first, onnxruntime's dense convolutions of integers channels last: what reads or feeds one of
those stays as it is, and so does what kernels do not compute alike (attributes that are no default, several scales).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.slots import MICROSOFT, domain_of
from onnxprune.sparse.functions import DOMAIN, DOMAIN_VERSION, function_of, standard_opset
from onnxprune.sparse.quantized_functions import QUANTIZED_OPS

BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
# Since it, Softmax is along one axis.
SOFTMAX_OPSET = 13


@dataclass(frozen=True)
class Between:
    """An operator that keeps its name, with the names of its inputs and the types of its attributes.

    `fits(node)`: whether the kernel computes a node with these attributes and types alike.
    """

    domain: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, str]
    fits: Callable[[ir.Node], bool]


def _fits_sum(node: ir.Node) -> bool:
    return _zero_type(node, 7) in BYTES


def _fits_softmax(node: ir.Node) -> bool:
    # Onnxruntime's own of int8 overflows.
    return node.attributes.get_int("opset", 0) >= SOFTMAX_OPSET and _zero_type(node, 4) == ir.DataType.UINT8


def _fits_pool(node: ir.Node) -> bool:
    kernel = node.attributes.get_ints("kernel_shape", ())
    pads = node.attributes.get_ints("pads", (0,) * 2 * len(kernel))
    return (
        len(kernel) == 2
        and all(pad < size for pad, size in zip(pads, [*kernel, *kernel], strict=False))
        and all(step == 1 for step in node.attributes.get_ints("dilations", ()))
        and not node.attributes.get_int("ceil_mode", 0)
        and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and len(node.outputs) == 1
        and _is_bytes(node.inputs[0])
    )


BETWEEN: Mapping[str, Between] = {
    "QLinearAdd": Between(
        MICROSOFT,
        ("A", "A_scale", "A_zero_point", "B", "B_scale", "B_zero_point", "C_scale", "C_zero_point"),
        {},
        _fits_sum,
    ),
    "QLinearSoftmax": Between(
        MICROSOFT,
        ("X", "X_scale", "x_zero_point", "y_scale", "y_zero_point"),
        {"axis": "int", "opset": "int"},
        _fits_softmax,
    ),
    "MaxPool": Between(
        "",
        ("X",),
        dict.fromkeys(("kernel_shape", "strides", "pads", "dilations"), "ints")
        | {"ceil_mode": "int", "storage_order": "int", "auto_pad": "string"},
        _fits_pool,
    ),
}


def accompany(model: ir.Model) -> None:
    """Have what stands between the nodes that run by kernels run by kernels too, and nothing else."""
    leave(model)
    if not any(_by_kernel(node) for node in model.graph.all_nodes()):
        return
    found = [
        node
        for node in model.graph.all_nodes()
        if has_kernel(node) and not any(map(_is_dense, _beside(node)))
    ]
    for node in found:
        node.domain = DOMAIN
        if node.outputs[0].type is None and (zero := _zero_type(node, len(node.inputs) - 1)) is not None:
            # Readers that infer types, onnx.checker among them, see none behind a function of another domain.
            node.outputs[0].type = ir.TensorType(zero)
    opset = standard_opset(model)
    for name in sorted({node.op_type for node in found}):
        body = between_function(name, opset)
        model.functions[body.identifier()] = body
    if found:
        model.opset_imports[DOMAIN] = DOMAIN_VERSION


def leave(model: ir.Model) -> None:
    """Undo `accompany`, but for the functions."""
    for node in model.graph.all_nodes():
        if node.domain == DOMAIN and (op := BETWEEN.get(node.op_type)) is not None:
            node.domain = op.domain
            if op.domain:
                model.opset_imports.setdefault(op.domain, 1)


def between_function(name: str, opset: int) -> ir.Function:
    """The model-local function of an operator of `BETWEEN` for a model of this opset."""
    op = BETWEEN[name]
    inputs = ", ".join(op.inputs)
    taken = ", ".join(op.attributes)
    passed = ", ".join(f"{attribute}: {kind} = @{attribute}" for attribute, kind in op.attributes.items())
    call = f"{op.domain}.{name}" if op.domain else name
    text = f"<{taken}> ({inputs}) => (y) {{ y = {call} <{passed}> ({inputs}) }}".replace("<> ", "")
    parsed = function_of(name, text, opset)
    parsed.doc_string = f"{name} of bytes by a kernel, where there is one. Written by onnxprune."
    return parsed


def has_kernel(node: ir.Node) -> bool:
    """Whether there is a kernel for a node, whose scales and zero points are constants of one number."""
    op = BETWEEN.get(node.op_type)
    if op is None or domain_of(node) not in (op.domain, DOMAIN) or len(node.inputs) != len(op.inputs):
        return False
    for name, value in zip(op.inputs, node.inputs, strict=True):
        tensor = constant_tensor(value)
        if value is None or (name.endswith(("scale", "point")) and (tensor is None or tensor.size != 1)):
            return False
    return op.fits(node)


def _zero_type(node: ir.Node, index: int) -> ir.DataType | None:
    tensor = constant_tensor(node.inputs[index])
    return None if tensor is None else tensor.dtype


def _is_bytes(value: ir.Value | None) -> bool:
    """Whether a value is made by an operator of 8-bit integers, as far as that is seen."""
    maker = None if value is None else value.producer()
    if maker is None:
        return False
    op = QUANTIZED_OPS.get(maker.op_type)
    if op is not None:
        return not op.dynamic
    if maker.op_type.startswith("QLinear"):
        return _zero_type(maker, 7) in BYTES
    return maker.op_type == "MaxPool" and _is_bytes(maker.inputs[0])


def _by_kernel(node: ir.Node) -> bool:
    return node.domain == DOMAIN and node.op_type in QUANTIZED_OPS


def _is_dense(node: ir.Node) -> bool:
    """Whether a node is a convolution that onnxruntime runs, in integers."""
    quantized = node.op_type in QUANTIZED_OPS or node.op_type.startswith("QLinear")
    return quantized and "Conv" in node.op_type and not _by_kernel(node)


def _beside(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes that make what a node reads, and those that read what it makes."""
    for value in node.inputs:
        if value is not None and (maker := value.producer()) is not None:
            yield maker
    for value in node.outputs:
        for reader, _ in value.uses():
            yield reader
