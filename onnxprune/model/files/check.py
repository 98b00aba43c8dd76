"""Checks of a model file on the protobuf, before anything is allocated or given to onnxruntime.

Names resolve; nodes have the inputs, outputs and attributes of their operators, and can be ordered; the data of tensors
has the size of their dims; external data lies beside the model, or where links may lead. onnxruntime checks types and
shapes.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxprune.errors import ModelFileError
from onnxprune.model.files.external import BrokenError as _Broken
from onnxprune.model.files.external import UnreadableError, check_external, nbytes
from onnxprune.model.files.protos import attribute_tensors, bodies
from onnxprune.model.files.wire import with_data_apart
from onnxprune.model.names import name_of

# Largest number of nodes after inlining; functions that call each other twice grow exponentially.
MAX_NODES = 1_000_000
MAX_RANK = 64
# Largest dimension of inputs, outputs and intermediate values; constants are checked against the file size.
MAX_DIM = 2**30
_SIZE_UNKNOWN = -1
Option = onnx.defs.OpSchema.FormalParameterOption
# The field that an attribute of this type must have; protobuf reads an absent one as an empty message.
_HOLDERS = {onnx.AttributeProto.TENSOR: "t", onnx.AttributeProto.GRAPH: "g"}

# Element type -> the field with its elements, if they are not in `raw_data`.
_INT32_DATA = (
    *("INT32", "INT16", "INT8", "UINT16", "UINT8", "BOOL", "FLOAT16", "BFLOAT16"),
    *("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"),
)
_TYPED_FIELDS: dict[int, str] = {
    **{ir.DataType[name]: "int32_data" for name in _INT32_DATA},
    ir.DataType.FLOAT: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.UINT64: "uint64_data",
}


def check_model(proto: onnx.ModelProto, file: Path, name: str) -> None:
    """Check that a model is neither broken nor hostile; `file` is its path, with external data beside it.

    Raises:
        ModelFileError: what is wrong, and where.
    """
    try:
        _check_texts(*(entry.domain for entry in proto.opset_import))
        _check_texts(*(text for entry in proto.metadata_props for text in (entry.key, entry.value)))
        _check_functions(proto)
        _check_graph(proto.graph, set(), _Context(file, proto.opset_import))
        for function in proto.functions:
            context = _Context(file, function.opset_import, in_function=True)
            _check_nodes(function.node, set(function.input), set(), function.output, context, function.name)
    except _Broken as broken:
        raise ModelFileError(f"{name} is broken: {broken}; export it again") from None
    except UnreadableError as unreadable:
        raise ModelFileError(f"{name} cannot be read: {unreadable}") from None


def check_types(file: Path | onnx.ModelProto, name: str) -> None:
    """Check the types and shapes of a model that onnxruntime does not load, as far as its operators are known.

    Raises:
        ModelFileError: they contradict each other.
    """
    proto = with_data_apart(file) if isinstance(file, Path) else file
    try:
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ModelFileError(f"{name} is broken: {lines[-1].strip()}; export it again") from None


class _Context:
    """The context of all graphs of a model or function: the path of the model, and the opsets."""

    def __init__(
        self, file: Path, opsets: Iterable[onnx.OperatorSetIdProto], *, in_function: bool = False
    ) -> None:
        self.file = file
        self.in_function = in_function
        self.versions = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in opsets}
        self._schemas: dict[tuple[str, str], onnx.defs.OpSchema | None] = {}

    def schema(self, node: onnx.NodeProto) -> onnx.defs.OpSchema | None:
        """The schema of the node's operator; None if ONNX does not define it, or not in this version."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        key = (domain, node.op_type)
        if key not in self._schemas:
            version = self.versions.get(domain, 0)
            self._schemas[key] = None
            if 0 < version < 2**31:
                with contextlib.suppress(onnx.defs.SchemaError):
                    self._schemas[key] = onnx.defs.get_schema(node.op_type, version, domain)
        return self._schemas[key]


def _check_graph(graph: onnx.GraphProto, outer: set[str], context: _Context) -> None:
    where = graph.name or "the graph"
    inputs = Counter(value.name for value in graph.input)
    sparse = (tensor.values for tensor in graph.sparse_initializer)
    stored = Counter(tensor.name for tensor in (*graph.initializer, *sparse))
    for counts, what in ((inputs, "inputs"), (stored, "initializers")):
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise _Broken(f"two {what} of {where} are named {twice!r}")
    if "" in stored:
        raise _Broken(f"an initializer of {where} has no name")
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_type(value.type, value.name)
    for value in graph.input:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.elem_type:
            raise _Broken(f"the input {value.name!r} of {where} has no element type")
    for tensor in graph.initializer:
        _check_tensor(tensor, tensor.name, context.file)
    outputs = [value.name for value in graph.output]
    _check_nodes(graph.node, {*inputs, *stored}, outer, outputs, context, where)


def _check_nodes(
    nodes: Sequence[onnx.NodeProto],
    given: set[str],
    outer: set[str],
    outputs: Iterable[str],
    context: _Context,
    where: str,
) -> None:
    """Check the nodes of one graph or function, and the names that they read and write."""
    makers: dict[str, int] = {}
    for number, node in enumerate(nodes):
        _check_texts(node.op_type, node.domain, node.name, *node.input, *node.output)
        if not node.op_type:
            raise _Broken(f"node {name_of(node)!r} of {where} has no operator")
        _check_node(node, context)
        for made in filter(None, node.output):
            if made in makers or made in given:
                raise _Broken(f"{made!r} is produced twice in {where}: names must be unique")
            makers[made] = number
    known = given | makers.keys()
    for node in nodes:
        for tensor in attribute_tensors(node):
            _check_tensor(tensor, tensor.name or f"of {node.op_type} node {name_of(node)}", context.file)
        for body in bodies(node):
            _check_graph(body, outer | known, context)
        for read in filter(None, node.input):
            if read not in known and read not in outer:
                raise _Broken(f"{node.op_type} node {name_of(node)!r} reads {read!r}, which no node produces")
    for name in outputs:
        if name not in known and name not in outer:
            raise _Broken(f"no node produces the output {name!r} of {where}")
    _check_order(nodes, makers, where)


def _check_node(node: onnx.NodeProto, context: _Context) -> None:
    """Check that a node has the inputs, outputs and attributes of its operator."""
    schema = context.schema(node)
    what = f"{node.op_type} node {name_of(node)!r}"
    if schema is None:
        return
    for kind, names, least, most in (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, schema.min_output, schema.max_output),
    ):
        if not least <= len(names) <= most:
            raise _Broken(f"{what} has {len(names)} {kind}, its operator has {least} to {most}")
    for formal, name in zip(schema.inputs, node.input, strict=False):
        if not name and formal.option == Option.Single:
            raise _Broken(f"{what} lacks its input {formal.name!r}")
    counted = bool(schema.outputs) and schema.outputs[-1].option == Option.Variadic
    if counted and "" in node.output and node.op_type != "If":
        raise _Broken(f"{what} has an output without a name, on which onnxruntime crashes")
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, wanted in schema.attributes.items():
        attribute = given.get(name)
        if attribute is None:
            if wanted.required:
                raise _Broken(f"{what} lacks the attribute {name!r}")
        elif attribute.type != _type_number(wanted) and not attribute.ref_attr_name:
            raise _Broken(f"the attribute {name!r} of {what} has the wrong type")
        elif attribute.ref_attr_name and not context.in_function:
            raise _Broken(
                f"the attribute {name!r} of {what} refers to an attribute of a function, outside of any"
            )
        elif attribute.type in _HOLDERS and not attribute.ref_attr_name:
            if not attribute.HasField(_HOLDERS[attribute.type]):
                raise _Broken(f"the attribute {name!r} of {what} is empty")
        elif not _is_text(attribute.s):
            raise _Broken(f"the attribute {name!r} of {what} is not UTF-8 text")


def _type_number(attribute: onnx.defs.OpSchema.Attribute) -> int:
    """The type of an attribute in the numbering of AttributeProto."""
    return int(attribute.type)  # type: ignore[call-overload]


def _check_order(nodes: Sequence[onnx.NodeProto], makers: dict[str, int], where: str) -> None:
    """Check that the nodes can be ordered so that every value is produced before it is read."""
    waiting = []
    readers: dict[int, list[int]] = {}
    for number, node in enumerate(nodes):
        sources = {makers[name] for name in _reads(node) if name in makers}
        waiting.append(len(sources))
        for source in sources:
            readers.setdefault(source, []).append(number)
    ready = [number for number, count in enumerate(waiting) if not count]
    done = 0
    while ready:
        done += 1
        for reader in readers.get(ready.pop(), ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    if done < len(nodes):
        stuck = nodes[next(number for number, count in enumerate(waiting) if count)]
        raise _Broken(
            f"{stuck.op_type} node {stuck.name!r} of {where} depends on its own output: there is a cycle"
        )


def _reads(node: onnx.NodeProto) -> set[str]:
    """The names that a node reads from its own graph, also in its subgraphs."""
    names = set(node.input)
    for body in bodies(node):
        own = {value.name for value in (*body.input, *body.initializer)}
        own.update(name for inner in body.node for name in inner.output)
        read = {name for inner in body.node for name in _reads(inner)}
        names |= (read | {value.name for value in body.output}) - own
    return names


def _check_functions(proto: onnx.ModelProto) -> None:
    """Check that functions do not call themselves, and do not become too large when they are inlined."""
    functions = {(function.domain, function.name): function for function in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    calling: list[tuple[str, str]] = []

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            called = (node.domain, node.op_type)
            total += size_of(called) if called in functions else 1
            total += sum(size(body.node) for body in bodies(node))
            if total > MAX_NODES:
                raise _Broken(f"it has more than {MAX_NODES:,} nodes when its functions are inlined")
        return total

    def size_of(called: tuple[str, str]) -> int:
        if called in calling:
            raise _Broken(f"the function {called[1]!r} calls itself")
        if len(calling) > MAX_RANK:
            raise _Broken("its function calls are nested too deeply")
        if called not in sizes:
            calling.append(called)
            sizes[called] = size(functions[called].node)
            calling.pop()
        return sizes[called]

    size(proto.graph.node)
    for called in functions:
        size_of(called)


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_texts(*names: str | bytes) -> None:
    """Check that names are UTF-8 texts: protobuf returns others as bytes."""
    for name in names:
        if isinstance(name, bytes):
            raise _Broken(f"{name[:40]!r}, a name or metadata, is not UTF-8 text")


def _check_type(info: onnx.TypeProto, name: str) -> None:
    _check_texts(name)
    for dim in info.tensor_type.shape.dim if info.HasField("tensor_type") else ():
        if not _SIZE_UNKNOWN <= dim.dim_value <= MAX_DIM:
            raise _Broken(f"{name!r} has a dimension of {dim.dim_value}")


def _check_tensor(tensor: onnx.TensorProto, name: str, file: Path) -> None:
    _check_texts(name)
    dims = list(tensor.dims)
    if min(dims, default=0) < 0:
        raise _Broken(f"the tensor {name!r} has the shape {dims}, with a negative dimension")
    if len(dims) > MAX_RANK:
        raise _Broken(f"the tensor {name!r} has {len(dims)} dimensions")
    if tensor.data_type not in set(ir.DataType) or tensor.data_type == ir.DataType.UNDEFINED:
        raise _Broken(f"the tensor {name!r} has the type {tensor.data_type}, which ONNX does not define")
    if tensor.HasField("segment"):
        raise _Broken(f"the tensor {name!r} is a segment of another, which no runtime supports")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        check_external(tensor, name, file)
        return
    held, wanted, unit = _held_and_wanted(tensor)
    if held != wanted:
        raise _Broken(
            f"the tensor {name!r} of shape {dims} has {held:,} {unit} of data instead of {wanted:,}"
        )


def _held_and_wanted(tensor: onnx.TensorProto) -> tuple[int, int, str]:
    """How much data a tensor has, how much its dims require, and the unit of both."""
    dtype, size = ir.DataType(tensor.data_type), math.prod(tensor.dims)
    if dtype == ir.DataType.STRING:
        return len(tensor.string_data), size, "texts"
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data), nbytes(tensor), "bytes"
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        parts = tensor.float_data if dtype == ir.DataType.COMPLEX64 else tensor.double_data
        return len(parts), 2 * size, "numbers"
    # Types below a byte are packed; each entry of int32_data is a byte of them.
    if dtype not in _TYPED_FIELDS:
        return len(tensor.int32_data), nbytes(tensor), "bytes"
    return len(getattr(tensor, _TYPED_FIELDS[dtype])), size, "numbers"
