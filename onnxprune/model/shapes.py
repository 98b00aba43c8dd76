"""Shape inference for all values of a model and its If bodies, without changing it or copying its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.model import sizes
from onnxprune.model.constants import constant_tensor
from onnxprune.model.folding import folded_integers
from onnxprune.model.functions import OWN_DOMAIN

# Constants up to this size may be shapes or axes, whose values inference needs.
SMALL_TENSOR_BYTES = 1024
# ONNX's inference uses 100 bytes for each element of a vector, so the length of longer ones is withheld.
LONGEST_VECTOR = 1 << 16
MICROSOFT = "com.microsoft"
LARGEST_RANK = 8
# Prefix of the names that ONNX generates for unknown sizes; another inference may use them for other sizes.
GENERATED_PREFIX = "unk__"

Dim = sizes.Dim
Shape = tuple[Dim, ...]
Shapes = Mapping[str, Shape | None]

# Operators without shape inference in ONNX -> an operator, and the inputs for it, with the same output shape.
STAND_INS = {
    ("", "GroupNormalization"): ("Identity", (0,)),
    ("", "SimplifiedLayerNormalization"): ("Identity", (0,)),
    (MICROSOFT, "FusedConv"): ("Conv", (0, 1, 2)),
    (MICROSOFT, "FusedGemm"): ("Gemm", (0, 1, 2)),
    (MICROSOFT, "BiasAdd"): ("Identity", (0,)),
    (MICROSOFT, "BiasDropout"): ("Identity", (0,)),
    (MICROSOFT, "BiasGelu"): ("Identity", (0,)),
    (MICROSOFT, "BiasSoftmax"): ("Identity", (0,)),
    (MICROSOFT, "FastGelu"): ("Identity", (0,)),
    (MICROSOFT, "Gelu"): ("Identity", (0,)),
    (MICROSOFT, "QuickGelu"): ("Identity", (0,)),
    (MICROSOFT, "RotaryEmbedding"): ("Identity", (0,)),
    (MICROSOFT, "SkipLayerNormalization"): ("Identity", (0,)),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): ("Identity", (0,)),
    (MICROSOFT, "QGemm"): ("Gemm", (0, 3)),
    (MICROSOFT, "MatMulIntegerToFloat"): ("MatMul", (0, 1)),
    (MICROSOFT, "DynamicQuantizeMatMul"): ("MatMul", (0, 1)),
    (MICROSOFT, "QLinearAdd"): ("Add", (0, 3)),
    (MICROSOFT, "QLinearMul"): ("Mul", (0, 3)),
    (MICROSOFT, "QLinearSigmoid"): ("Identity", (0,)),
    (MICROSOFT, "QLinearLeakyRelu"): ("Identity", (0,)),
    (MICROSOFT, "QLinearSoftmax"): ("Identity", (0,)),
    # Functions that call one of these (sparse/between.py).
    (OWN_DOMAIN, "QLinearAdd"): ("Add", (0, 3)),
    (OWN_DOMAIN, "QLinearSoftmax"): ("Identity", (0,)),
}


def branches(node: ir.Node) -> tuple[ir.Graph, ...]:
    """The bodies of an If node; none for any other."""
    if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
        return ()
    return (node.attributes["then_branch"].as_graph(), node.attributes["else_branch"].as_graph())


def with_branches(graph: ir.Graph) -> Iterator[ir.Graph]:
    """A graph and the bodies of the If nodes in it, and in those."""
    yield graph
    for node in graph:
        for branch in branches(node):
            yield from with_branches(branch)


def infer_shapes(
    model: ir.Model, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[ir.Value, Shape]:
    """The shape of every value whose rank is known: declared by the model or inferred by ONNX.

    `input_shapes`, by graph input name, replace the shapes that the model declares for its values.
    """
    flat = _Flat(model, input_shapes)
    inferred = _infer(flat.proto(joined=True))
    if any(
        inferred.get(flat.names[left]) != inferred.get(flat.names[right]) for left, right, _ in flat.joins
    ):
        inferred = _infer(flat.proto(joined=False))
    shapes = {}
    for value, name in flat.names.items():
        tensor = constant_tensor(value)
        shape = inferred.get(name) if tensor is None else tuple(tensor.shape.numpy())
        if shape is not None:
            shapes[value] = shape
    return shapes


class _Flat:
    """The model as one graph: If bodies are merged into the graph, and large constants become inputs.

    `joins`: for each output of an If, the values of its two bodies, and the output.
    """

    def __init__(self, model: ir.Model, input_shapes: Mapping[str, Sequence[int]] | None):
        self.model = model
        self.input_shapes = input_shapes
        self.joins: list[tuple[ir.Value, ir.Value, ir.Value]] = []
        self.folded = folded_integers(model, list(with_branches(model.graph)))
        self.names: dict[ir.Value, str] = {}
        taken: set[str] = set()
        for graph in with_branches(model.graph):
            made = [value for node in graph for value in node.outputs]
            for value in (*graph.inputs, *graph.initializers.values(), *made):
                if value in self.names:
                    continue
                name = value.name or ""
                while name in taken:
                    name += "'"
                taken.add(name)
                self.names[value] = name
        for graph in with_branches(model.graph):
            for node in graph:
                if branches(node):
                    then, other = branches(node)
                    self.joins += zip(then.outputs, other.outputs, node.outputs, strict=True)

    def proto(self, *, joined: bool) -> onnx.ModelProto:
        """The graph for inference; `joined`: an If's output has the shape of its first body's output."""
        graph = onnx.GraphProto(name="shapes")
        outer = self.model.graph
        for value in outer.inputs:
            if not value.is_initializer():
                graph.input.append(self._input(value))
        graph.output.extend(ir.to_proto(value) for value in outer.outputs)
        edges = {*outer.inputs, *outer.outputs}
        for value, name in self.names.items():
            tensor = constant_tensor(value)
            if tensor is not None:
                self._add_constant(graph, value, name, tensor)
            elif self.input_shapes is None and value not in edges and value.type is not None:
                info = ir.to_proto(value)
                info.name = name
                for dim in info.type.tensor_type.shape.dim:
                    if dim.dim_param.startswith(GENERATED_PREFIX):
                        dim.Clear()
                graph.value_info.append(info)
        self._add_nodes(outer, graph, joined)
        opsets = [onnx.helper.make_opsetid(d, version) for d, version in outer.opset_imports.items()]
        functions = [ir.to_proto(function) for function in self.model.functions.values()]
        return onnx.helper.make_model(
            graph, ir_version=max(self.model.ir_version, 4), opset_imports=opsets, functions=functions
        )

    def _input(self, value: ir.Value) -> onnx.ValueInfoProto:
        info = ir.to_proto(value)
        shape = (self.input_shapes or {}).get(value.name or "")
        if shape is not None:
            info = onnx.helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, shape)
        dims = info.type.tensor_type.shape.dim
        if len(dims) == 1 and dims[0].dim_value > LONGEST_VECTOR:
            dims[0].Clear()
        return info

    def _add_constant(
        self, graph: onnx.GraphProto, value: ir.Value, name: str, tensor: ir.TensorProtocol
    ) -> None:
        if tensor.nbytes > SMALL_TENSOR_BYTES:
            shape: Sequence[int | None] = tensor.shape.numpy()
            if len(shape) == 1 and tensor.size > LONGEST_VECTOR:
                shape = (None,)
            graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.dtype, shape))
        elif value.producer() is None:
            small = ir.to_proto(tensor)
            small.name = name
            graph.initializer.append(small)

    def _add_nodes(self, scope: ir.Graph, graph: onnx.GraphProto, joined: bool) -> None:
        for node in scope:
            folded = self.folded.get(node.outputs[0]) if node.outputs else None
            if folded is not None:
                name = self.names[node.outputs[0]]
                graph.initializer.append(onnx.numpy_helper.from_array(folded, name))
                continue
            tensor = constant_tensor(node.outputs[0]) if node.outputs else None
            if tensor is not None and tensor.nbytes > SMALL_TENSOR_BYTES:
                continue
            if branches(node):
                for branch in branches(node):
                    self._add_nodes(branch, graph, joined)
                for left, _, out in self.joins if joined else ():
                    if out.producer() is node:
                        graph.node.append(
                            onnx.helper.make_node("Identity", [self.names[left]], [self.names[out]])
                        )
                continue
            proto = ir.to_proto(node)
            for index, value in enumerate(node.inputs):
                proto.input[index] = "" if value is None else self.names.get(value, value.name)
            for index, value in enumerate(node.outputs):
                proto.output[index] = self.names.get(value, value.name)
            graph.node.extend(_stand_ins(proto))


def _stand_ins(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    stand_in = STAND_INS.get((node.domain, node.op_type))
    if stand_in is None:
        return [node]
    op_type, indices = stand_in
    inputs = [node.input[index] for index in indices if index < len(node.input)]
    outputs = [name for name in (node.output[0], *node.output[3:]) if name]
    nodes = [onnx.helper.make_node(op_type, inputs, [name]) for name in outputs]
    for made in nodes:
        made.attribute.extend(
            a for a in node.attribute if op_type != "Identity" and not a.name.startswith("activation")
        )
    return nodes


def _infer(proto: onnx.ModelProto) -> dict[str, Shape | None]:
    """ONNX's inference, repeated while `SOLVERS` find further shapes, which are added to `proto`."""
    solved: dict[str, onnx.ValueInfoProto] = {}
    while True:
        try:
            graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
        except onnx.shape_inference.InferenceError:
            graph = proto.graph
        infos = {info.name: info for info in (*graph.input, *graph.value_info, *graph.output)}
        shapes = {name: _shape(info) for name, info in infos.items()}
        shapes.update({name: _shape(info) for name, info in solved.items()})
        shapes.update({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
        types = {name: info.type.tensor_type.elem_type for name, info in infos.items()}
        types.update({tensor.name: tensor.data_type for tensor in graph.initializer})
        improved = False
        values = _Values(graph, shapes)
        for node in graph.node:
            solve = SOLVERS.get((node.domain, node.op_type))
            if solve is None:
                continue
            name, shape = node.output[0], solve(node, values)
            element_type = types.get(node.input[TYPED_BY.get(node.op_type, 0)])
            if shape is None or element_type is None:
                continue
            if name not in solved or _known(shape) > _known(_shape(solved[name]) or ()):
                solved[name] = onnx.helper.make_tensor_value_info(name, element_type, shape)
                improved = True
        if not improved:
            return shapes
        kept = [info for info in proto.graph.value_info if info.name not in solved]
        del proto.graph.value_info[:]
        proto.graph.value_info.extend([*kept, *solved.values()])


class _Values:
    """The shapes of a graph's values, and the elements of values that are computed from shapes.

    ONNX's inference computes these only since opset 13, and no products with symbolic sizes.
    """

    def __init__(self, graph: onnx.GraphProto, shapes: Shapes):
        self.shapes = shapes
        self._makers = {name: node for node in graph.node for name in node.output}
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._found: dict[str, np.ndarray | None] = {}

    def elements(self, name: str) -> list[Dim] | None:
        """The elements of a small integer vector or scalar, -1 included; None for an unknown element."""
        found = self._elements(name)
        return None if found is None else [element.dim for element in found.ravel()]

    def _elements(self, name: str) -> np.ndarray | None:
        if name not in self._found:
            self._found[name] = self._evaluate(name)
        return self._found[name]

    def _evaluate(self, name: str) -> np.ndarray | None:
        node = self._makers.get(name)
        tensor = self._stored.get(name)
        if node is not None and node.op_type == "Constant":
            tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if tensor is not None:
            small = math.prod(tensor.dims) <= sizes.LARGEST and tensor.data_type in sizes.INTEGERS
            return sizes.constants(onnx.numpy_helper.to_array(tensor)) if small else None
        if node is None or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Shape":
            shape = self.shapes.get(node.input[0])
            if shape is None:
                return None
            start, end = (
                next((a.i for a in node.attribute if a.name == name), None) for name in ("start", "end")
            )
            found = np.empty(len(shape), object)
            found[:] = [sizes.Element(dim) for dim in shape]
            return found[start:end]
        if node.op_type not in sizes.FOLLOWED:
            return None
        return sizes.evaluate(
            node.op_type,
            [self._elements(operand) for operand in node.input],
            {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute},
            self.shapes.get(name),
        )


def _solve_reshape(node: onnx.NodeProto, values: _Values) -> Shape | None:
    """The shape of a Reshape's output, if ONNX leaves one size open that follows from the others; else None.

    ("N", 16, 5, 5) to ("N", None) gives ("N", 400); ("N", "T", 32) to ("N", None, 4, 8) gives ("N", "T", 4, 8).
    """
    left, inferred = values.shapes.get(node.input[0]), values.shapes.get(node.output[0])
    copies = not _attribute(node, "allowzero")
    target = values.elements(node.input[1])
    right = _target_shape(left, target) if copies or (target is not None and 0 not in target) else None
    right = _merged(inferred, right)
    better = right if right != inferred else None
    if left is None or right is None or 0 in left:
        return better
    open_axes = [axis for axis, dim in enumerate(right) if not _named(dim, left)]
    rest = [dim for axis, dim in enumerate(right) if axis not in open_axes]
    missing = sizes.over(sizes.times(*left), sizes.times(*rest)) if len(open_axes) == 1 else None
    if missing is None or _generated(missing):
        return better
    return tuple(missing if axis in open_axes else dim for axis, dim in enumerate(right))


def _known(shape: Shape) -> tuple[int, int]:
    """How many sizes are numbers, and how many are known at all."""
    return sum(isinstance(dim, int) for dim in shape), sum(dim is not None and not _generated(dim) for dim in shape)


def _merged(one: Shape | None, other: Shape | None) -> Shape | None:
    """What is known of a shape from two sources: a number before a name, and the first source's before the other's."""
    if one is None or other is None or len(one) != len(other):
        return other if one is None else one
    return tuple(
        min((a, b), key=lambda dim: (not isinstance(dim, int), dim is None or _generated(dim)))
        for a, b in zip(one, other, strict=True)
    )


def _named(dim: Dim, shape: Shape) -> bool:
    """Whether a size is a number or made of names of the shape."""
    found = sizes.factors(dim)
    names = {name for other in shape for name in (sizes.factors(other) or (1, ()))[1]}
    return found is not None and names.issuperset(found[1])


def _plain(attribute: Any) -> Any:
    return onnx.numpy_helper.to_array(attribute) if isinstance(attribute, onnx.TensorProto) else attribute


def _generated(dim: Dim) -> bool:
    return isinstance(dim, str) and GENERATED_PREFIX in dim


def _target_shape(left: Shape | None, target: list[Dim] | None) -> Shape | None:
    """A Reshape's output shape from its target: 0 is the size of the input there, -1 is unknown."""
    if left is None or target is None or len(target) > LARGEST_RANK:
        return None
    copied = [left[axis] if dim == 0 and axis < len(left) else dim for axis, dim in enumerate(target)]
    return tuple(None if dim == -1 or _generated(dim) else dim for dim in copied)


def _solve_broadcast(node: onnx.NodeProto, values: _Values) -> Shape | None:
    """The named size of an operand, where those of the others are not known.

    Where the model runs for every number of that name, they are equal to it, or 1.
    """
    shapes = [values.shapes.get(name) for name in node.input if name]
    return _better(_broadcast(shapes), values.shapes.get(node.output[0]))


def _solve_matmul(node: onnx.NodeProto, values: _Values) -> Shape | None:
    """The same for the batch axes of a product."""
    left, right = (values.shapes.get(name) for name in node.input)
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    batch = _broadcast([left[:-2], right[:-2]])
    return _better(None if batch is None else (*batch, left[-2], right[-1]), values.shapes.get(node.output[0]))


def _broadcast(shapes: Sequence[Shape | None]) -> Shape | None:
    if any(shape is None for shape in shapes):
        return None
    rank = max(len(shape or ()) for shape in shapes)
    padded = [(1,) * (rank - len(shape or ())) + tuple(shape or ()) for shape in shapes]
    dims: list[Dim] = []
    for operands in zip(*padded, strict=True):
        known = {dim for dim in operands if dim not in (None, 1) and not _generated(dim)}
        alone = not known and set(operands) == {1}
        dims.append(known.pop() if len(known) == 1 else 1 if alone else None)
    return tuple(dims)


def _better(found: Shape | None, inferred: Shape | None) -> Shape | None:
    """What is found and inferred, where that is more than what is inferred."""
    merged = _merged(inferred, found)
    if merged is None or inferred is None or _known(merged) > _known(inferred):
        return merged
    return None


def _solve_expand(node: onnx.NodeProto, values: _Values) -> Shape | None:
    """Each size of the target, or the one of the input where the target says 1."""
    data, target, inferred = (
        values.shapes.get(node.input[0]), values.elements(node.input[1]), values.shapes.get(node.output[0]),
    )  # fmt: skip
    if data is None or target is None or len(target) > LARGEST_RANK:
        return None
    rank = max(len(data), len(target))
    sides = [(1,) * (rank - len(side)) + tuple(side) for side in (data, target)]
    dims: list[Dim] = []
    for own, given in zip(*sides, strict=True):
        known = [dim for dim in (own, given) if dim is not None and not _generated(dim) and dim != 1]
        both_known = None not in (own, given) and not _generated(own) and not _generated(given)
        dims.append(known[0] if len(set(known)) == 1 else 1 if both_known and not known else None)
    return _better(tuple(dims), inferred)


def _solve_slice(node: onnx.NodeProto, values: _Values) -> Shape | None:
    """The lengths of slices of static axes between bounds that are computed."""
    data, inferred = values.shapes.get(node.input[0]), values.shapes.get(node.output[0])
    bounds = [values.elements(name) if name else None for name in node.input[1:]]
    if data is None or len(bounds) < 2 or inferred is None:
        return None
    starts, ends = bounds[:2]
    axes = bounds[2] if len(bounds) > 2 and node.input[3] else list(range(len(starts or ())))
    steps = bounds[3] if len(bounds) > 3 and node.input[4] else [1] * len(starts or ())
    if starts is None or ends is None or axes is None or steps is None:
        return None
    dims = list(inferred)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=False):
        given = (start, end, axis, step)
        if not all(isinstance(number, int) for number in given) or not -len(data) <= axis < len(data):  # type: ignore[operator]
            return None
        length = data[axis]  # type: ignore[index]
        if isinstance(length, int) and step:
            dims[axis] = len(range(length)[slice(start, end, step)])  # type: ignore[call-overload,index,misc]
    return _better(tuple(dims), inferred)


def _solve_fused_matmul(node: onnx.NodeProto, values: _Values) -> Shape | None:
    left, right = values.shapes.get(node.input[0]), values.shapes.get(node.input[1])
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    longer = left if len(left) >= len(right) else right
    rows = left[-1] if _attribute(node, "transA") else left[-2]
    columns = right[-2] if _attribute(node, "transB") else right[-1]
    return (*longer[:-2], rows, columns)


def _solve_attention(node: onnx.NodeProto, values: _Values) -> Shape | None:
    """(batch, length, hidden): hidden is the size of the values, which may be part of a packed projection."""
    data = values.shapes.get(node.input[0])
    other = values.shapes.get(node.input[1]) if len(node.input) > 1 else None
    if data is None or other is None or len(data) != 3:
        return None
    if node.op_type == "Attention":
        sizes = next((list(a.ints) for a in node.attribute if a.name == "qkv_hidden_sizes"), None)
        packed = other[-1]
        width = sizes[2] if sizes else packed // 3 if isinstance(packed, int) else None
        return (data[0], data[1], width)
    value = values.shapes.get(node.input[2]) if len(node.input) > 2 else None
    return None if value is None or len(value) != 3 else (data[0], data[1], value[2])


def _solve_grouped_attention(node: onnx.NodeProto, values: _Values) -> Shape | None:
    """The shape of the queries; of queries, keys and values in one array, the queries' part."""
    data, heads = values.shapes.get(node.input[0]), _attribute(node, "num_heads")
    if data is None or len(data) != 3 or (len(node.input) > 1 and node.input[1]):
        return data
    width, whole = data[2], heads + 2 * _attribute(node, "kv_num_heads")
    return (data[0], data[1], width * heads // whole if isinstance(width, int) and whole else None)


def _solve_embedding(node: onnx.NodeProto, values: _Values) -> Shape | None:
    """(batch, length, hidden): ids (batch, length), word embeddings (words, hidden)."""
    ids, words = values.shapes.get(node.input[0]), values.shapes.get(node.input[2])
    return None if ids is None or words is None or len(ids) != 2 else (*ids, words[1])


BROADCASTING = ("Add", "And", "Div", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Sum", "Where")
SOLVERS: dict[tuple[str, str], Callable[[onnx.NodeProto, _Values], Shape | None]] = {
    ("", "Reshape"): _solve_reshape,
    ("", "Expand"): _solve_expand,
    ("", "MatMul"): _solve_matmul,
    ("", "Slice"): _solve_slice,
    **{("", op_type): _solve_broadcast for op_type in BROADCASTING},
    (MICROSOFT, "FusedMatMul"): _solve_fused_matmul,
    (MICROSOFT, "Attention"): _solve_attention,
    (MICROSOFT, "EmbedLayerNormalization"): _solve_embedding,
    (MICROSOFT, "GroupQueryAttention"): _solve_grouped_attention,
    (MICROSOFT, "MultiHeadAttention"): _solve_attention,
}

# Operators whose output has the element type of another input than the first.
TYPED_BY = {"EmbedLayerNormalization": 2, "Where": 1}


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def _shape(info: onnx.ValueInfoProto) -> Shape | None:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in info.type.tensor_type.shape.dim)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    """A dim; None for -1 and "?", which exporters write for unrelated unknown sizes."""
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param if dim.dim_param not in ("", "?") else None
