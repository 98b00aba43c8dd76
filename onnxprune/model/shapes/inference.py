"""Shape inference for all values of a model and its If bodies, without changing it or copying its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.functions import OWN_DOMAIN
from onnxprune.model.shapes.folding import folded_integers
from onnxprune.model.shapes.sizes import Dim
from onnxprune.model.shapes.solvers import (
    FLOATS,
    OTHERS_ALIKE,
    SOLVERS,
    TYPED_BY,
    Shape,
    Values,
    is_generated,
    known,
)
from onnxprune.model.slots import MICROSOFT

# Constants up to this size may be shapes or axes, whose values inference needs.
SMALL_TENSOR_BYTES = 1024
# ONNX's inference uses 100 bytes for each element of a vector, so the length of longer ones is withheld.
LONGEST_VECTOR = 1 << 16

# Operators without shape inference in ONNX -> an operator, and the inputs for it, with the same output shape.
STAND_INS: Mapping[tuple[str, str], tuple[str, tuple[int, ...] | slice]] = {
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
    (MICROSOFT, "QLinearAveragePool"): ("AveragePool", (0,)),
    (MICROSOFT, "QLinearGlobalAveragePool"): ("GlobalAveragePool", (0,)),
    (MICROSOFT, "QLinearSigmoid"): ("Identity", (0,)),
    (MICROSOFT, "QLinearLeakyRelu"): ("Identity", (0,)),
    (MICROSOFT, "QLinearSoftmax"): ("Identity", (0,)),
    (MICROSOFT, "QLinearConcat"): ("Concat", slice(2, None, 3)),
    (MICROSOFT, "QLinearWhere"): ("Where", (0, 1, 4)),
    (MICROSOFT, "DynamicQuantizeLSTM"): ("LSTM", (0, 1, 2)),
    # Functions that call one of these (sparse/between.py).
    (OWN_DOMAIN, "QLinearAdd"): ("Add", (0, 3)),
    (OWN_DOMAIN, "QLinearSoftmax"): ("Identity", (0,)),
}
# Stand-ins whose outputs are those of the operator; of others, each output of the operator is made by one of its own.
SEVERAL_OUTPUTS = ("LSTM",)
OWN_ATTRIBUTES = ("activation", "channels_last")  # first letters of names that stand-ins do not have


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
    return infer_shapes_and_types(model, input_shapes)[0]


def infer_shapes_and_types(
    model: ir.Model, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[dict[ir.Value, Shape], dict[ir.Value, ir.DataType]]:
    """As `infer_shapes`, and the element type of every value whose type is known."""
    flat = _Flat(model, input_shapes)
    inferred, types_by_name = _infer(flat.proto(joined=True))
    if any(
        inferred.get(flat.names[left]) != inferred.get(flat.names[right]) for left, right, _ in flat.joins
    ):
        inferred, types_by_name = _infer(flat.proto(joined=False))
    shapes, types = {}, {}
    for value, name in flat.names.items():
        tensor = constant_tensor(value)
        shape = inferred.get(name) if tensor is None else tuple(tensor.shape.numpy())
        if shape is not None:
            shapes[value] = shape
        known_type = value.dtype if tensor is None else tensor.dtype
        if known_type is not None or types_by_name.get(name):
            types[value] = known_type or ir.DataType(types_by_name[name])
    return shapes, types


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
                dims = info.type.tensor_type.shape.dim
                for dim in dims:
                    if is_generated(dim.dim_param):
                        dim.Clear()
                # ONNX's inference takes sizes that are not given for sizes that cannot be known.
                if not dims or any(dim.WhichOneof("value") for dim in dims):
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
    if stand_in is None or any(a.name == "channels_last" and a.i for a in node.attribute):
        return [node]
    op_type, indices = stand_in
    listed = range(len(node.input))[indices] if isinstance(indices, slice) else indices
    inputs = [node.input[index] for index in listed if index < len(node.input)]
    outputs = [[name] for name in (node.output[0], *node.output[3:]) if name]
    if op_type in SEVERAL_OUTPUTS:
        outputs = [list(node.output)]
    nodes = [onnx.helper.make_node(op_type, inputs, names) for names in outputs]
    for made in nodes:
        made.attribute.extend(
            a for a in node.attribute if op_type != "Identity" and not a.name.startswith(OWN_ATTRIBUTES)
        )
    return nodes


def _infer(proto: onnx.ModelProto) -> tuple[dict[str, Shape | None], dict[str, int]]:
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
        values = Values(graph, shapes)
        for node in graph.node:
            solve = SOLVERS.get((node.domain, node.op_type))
            if solve is None:
                continue
            shape = solve(node, values)
            element_type = types.get(node.input[TYPED_BY.get(node.op_type, 0)])
            if node.op_type in FLOATS:
                element_type = onnx.TensorProto.FLOAT
            if shape is None or element_type is None:
                continue
            for place in (0, *OTHERS_ALIKE.get(node.op_type, ())):
                name = node.output[place] if place < len(node.output) else ""
                if name and (name not in solved or known(shape) > known(_shape(solved[name]) or ())):
                    solved[name] = onnx.helper.make_tensor_value_info(name, element_type, shape)
                    shapes[name], types[name], improved = shape, element_type, True
        if not improved:
            return shapes, types
        kept = [info for info in proto.graph.value_info if info.name not in solved]
        del proto.graph.value_info[:]
        proto.graph.value_info.extend([*kept, *solved.values()])


def _shape(info: onnx.ValueInfoProto) -> Shape | None:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in info.type.tensor_type.shape.dim)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    """A dim; None for -1 and "?", which exporters write for unrelated unknown sizes."""
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param if dim.dim_param not in ("", "?") else None
