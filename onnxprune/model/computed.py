"""Weights that are computed from constants alone (weight_norm, a scale, Split, W + B @ A): computed once and for all.

    MatMul(x, Mul(w, s))  ->  MatMul(x, v)

A part of the graph that makes a weight of constants gives way to its results, where these take about as many bytes as
the constants that go with it, and no other node needs those. What `find_weights` looks through (Transpose, Cast,
Identity, QuantizeLinear, DequantizeLinear) stays where it is the last before the weight's operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor, drop_constant
from onnxprune.model.evaluate import run_nodes
from onnxprune.model.excerpt import bodies
from onnxprune.model.operands import operand
from onnxprune.model.reading import FLOAT_TYPES, QUANTIZED_TYPES, RESHAPING, passes
from onnxprune.model.shapes.inference import Shape, infer_shapes
from onnxprune.model.slots import MICROSOFT, domain_of, slots

# The results may have this many times the elements that go, and the bytes: float16 weights cast to float32 take 2.
MORE_ELEMENTS, MORE_BYTES = 1.25, 2.0
# Larger constants are fed, and so not copied.
INITIALIZER_BYTES = 1 << 16
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)  # fmt: skip
FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS = 4


@dataclass(frozen=True)
class Computed:
    """A constant that was computed: its name, and the operators that made it."""

    name: str
    op_types: tuple[str, ...]


def fold_computed(model: ir.Model) -> tuple[Computed, ...]:
    """Replace the computed weights of a model by their values, in place; returns what was replaced.

    A result of one constant that has as many elements, as behind a Reshape, keeps the name of that constant.
    """
    computed = computed_nodes(model)
    inner = set(computed) - _ends(computed)
    operands = set(_operands(model, computed))
    starts = [node for node in computed if node in inner and not operands.isdisjoint(node.outputs)]
    if not starts:
        return ()
    shapes = cache(lambda: infer_shapes(model))
    places = {node: place for place, node in enumerate(computed)}
    found: list[Computed] = []
    seen: set[ir.Node] = set()
    for start in starts:
        if start in seen:
            continue
        part = dict.fromkeys(sorted(_connected(start, inner), key=places.__getitem__))
        seen.update(part)
        found += _fold(model, part, operands, shapes)
    return tuple(found)


def computed_nodes(model: ir.Model) -> dict[ir.Node, None]:
    """The nodes, subgraphs included, that compute something from constants alone, in order."""
    computed: dict[ir.Node, None] = {}
    known: set[ir.Value] = set()
    for node in model.graph.all_nodes():
        operands = [value for value in node.inputs if value is not None]
        constant = all(value in known or _fixed(value, model) for value in operands)
        if operands and constant and _deterministic(node, model):
            computed[node] = None
            known.update(node.outputs)
    return computed


def constants_behind(value: ir.Value, computed: Collection[ir.Node]) -> list[ir.Value]:
    """The constants that a value is computed from; none where it is not computed from constants alone."""
    found: dict[ir.Value, None] = {}
    open_values, seen = [value], {value}
    while open_values:
        one = open_values.pop()
        maker = one.producer()
        if maker in computed:
            assert maker is not None
            more = {operand for operand in maker.inputs if operand is not None} - seen
            seen |= more
            open_values += more
        elif constant_tensor(one) is not None:
            found[one] = None
    return list(found)


def _deterministic(node: ir.Node, model: ir.Model) -> bool:
    """Whether a node computes the same of the same inputs every time, for all that is known of its operator."""
    function = model.functions.get(node.op_identifier())
    if function is not None:
        return all(_deterministic(inner, model) for inner in function if inner.inputs)
    return domain_of(node) in ("", MICROSOFT) and node.op_type not in RANDOM and not bodies(node)


def _fixed(value: ir.Value, model: ir.Model) -> bool:
    """Whether a value is a constant that callers cannot replace."""
    tensor = constant_tensor(value)
    if tensor is None:
        maker = value.producer()
        return maker is not None and maker.op_type == "Constant" and not domain_of(maker)
    overridable = value.is_graph_input() and model.ir_version >= FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS
    return tensor.dtype != ir.DataType.STRING and not overridable


def _ends(computed: Mapping[ir.Node, None]) -> set[ir.Node]:
    """The nodes that weights are found through: nothing else is computed from what they make."""
    ends: set[ir.Node] = set()
    for node in reversed(list(computed)):
        readers = (reader for output in node.outputs for reader, _ in output.uses())
        last = all(reader not in computed or reader in ends for reader in readers)
        if last and passes(node) and node.op_type not in RESHAPING:
            ends.add(node)
    return ends


def _operands(model: ir.Model, computed: Collection[ir.Node]) -> Iterator[ir.Value]:
    """What the operators with weights read at the inputs of these, seen through the last nodes before them."""
    for node in model.graph.all_nodes():
        if node in computed:
            continue
        for slot in slots(node):
            value = operand(node, slot.input_index)
            while value is not None:
                yield value
                maker = value.producer()
                value = maker.inputs[0] if maker in computed and maker is not None and passes(maker) else None


def _connected(start: ir.Node, inner: Collection[ir.Node]) -> set[ir.Node]:
    """The inner nodes that share values or weights with a node, or with one that does."""
    part, waiting = {start}, [start]
    while waiting:
        node = waiting.pop()
        values = [value for value in node.inputs if value is not None]
        beside = {value.producer() for value in values}
        for value in (*node.outputs, *(value for value in values if _is_weighty(value))):
            beside.update(reader for reader, _ in value.uses())
        for other in beside:
            if other is not None and other in inner and other not in part:
                part.add(other)
                waiting.append(other)
    return part


def _is_weighty(value: ir.Value) -> bool:
    """Whether a constant may be a weight, and is no shape or scale that many nodes share."""
    tensor = constant_tensor(value)
    return tensor is not None and tensor.size > 1 and tensor.dtype in (*FLOAT_TYPES, *QUANTIZED_TYPES)


def _fold(
    model: ir.Model,
    part: Mapping[ir.Node, None],
    operands: Collection[ir.Value],
    shapes: Callable[[], Mapping[ir.Value, Shape]],
) -> list[Computed]:
    """Replace what `part` makes for other nodes by constants, if that pays; which `operands` were replaced."""
    made = {output: node for node in part for output in node.outputs}
    results = [
        value
        for value in made
        if value.is_graph_output() or any(reader not in part for reader, _ in value.uses())
    ]
    sources = list({value: None for node in part for value in node.inputs if value and value not in made})
    freed = [source for source in sources if _freed(source, part)]
    tensors = [tensor for source in freed if (tensor := constant_tensor(source)) is not None]
    elements = MORE_ELEMENTS * sum(tensor.size for tensor in tensors)
    nbytes = MORE_BYTES * sum(tensor.nbytes for tensor in tensors)
    if _known_elements(results, shapes()) > elements:
        return []
    arrays = _evaluate(model, part, sources, results)
    if arrays is None or sum(array.size for array in arrays) > elements:
        return []
    if sum(array.nbytes for array in arrays) > nbytes:
        return []
    name = _kept_name(part, results, arrays, freed)
    replaced = []
    for value, array in zip(results, arrays, strict=True):
        new = _constant(value, array)
        replaced.append((_graph_of(made[value]), new))
        value.replace_all_uses_with(new, replace_graph_outputs=True)
    for node in reversed(list(part)):
        _graph_of(node).remove(node, safe=True)
    for source in freed:
        drop_constant(source)
    for graph, new in replaced:
        if name is not None:
            new.name = name
        graph.register_initializer(new)
        if graph is model.graph and model.ir_version < FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS:
            graph.inputs.append(new)
    op_types = tuple(dict.fromkeys(node.op_type for node in part))
    pairs = zip(results, replaced, strict=True)
    return [Computed(new.name or "", op_types) for value, (_, new) in pairs if value in operands]


def _graph_of(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert isinstance(graph, ir.Graph), node.name
    return graph


def _freed(source: ir.Value, part: Collection[ir.Node]) -> bool:
    return not source.is_graph_output() and all(reader in part for reader, _ in source.uses())


def _known_elements(values: Sequence[ir.Value], shapes: Mapping[ir.Value, Shape]) -> int:
    """The elements of values, counted along the axes of which the length is known."""
    known = [shapes.get(value, ()) for value in values]
    return sum(math.prod(dim for dim in shape if isinstance(dim, int)) for shape in known)


def _evaluate(
    model: ir.Model, part: Collection[ir.Node], sources: Sequence[ir.Value], results: Sequence[ir.Value]
) -> list[np.ndarray] | None:
    """What the nodes make, each in a type that a constant may have; None where onnxruntime cannot compute it."""
    values = dict.fromkeys((*sources, *(output for node in part for output in node.outputs)))
    # Graphs side by side may use one name for two values.
    names = {value: f"value{number}" for number, value in enumerate(values)}
    feeds: dict[str, np.ndarray] = {}
    initializers: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for source in sources:
        tensor, maker = constant_tensor(source), source.producer()
        if tensor is None:
            assert maker is not None
            nodes.append(_renamed(maker, names))
            continue
        array = tensor.numpy()
        if array.nbytes > INITIALIZER_BYTES and array.dtype.isbuiltin == 1:
            feeds[names[source]] = array
        else:
            initializers.append(ir.to_proto(ir.Tensor(array, dtype=tensor.dtype, name=names[source])))
    nodes += [_renamed(node, names) for node in part]
    arrays = run_nodes(nodes, feeds, [names[value] for value in results], model, initializers)
    return arrays if arrays is not None and all(array.dtype.kind in "fiub" for array in arrays) else None


def _renamed(node: ir.Node, names: Mapping[ir.Value, str]) -> onnx.NodeProto:
    proto = ir.to_proto(node)
    proto.input[:] = ["" if value is None else names[value] for value in node.inputs]
    proto.output[:] = [names.get(value, "") for value in node.outputs]
    return proto


def _kept_name(
    part: Collection[ir.Node],
    results: Sequence[ir.Value],
    arrays: Sequence[np.ndarray],
    freed: Sequence[ir.Value],
) -> str | None:
    """The name of the one weight of which the one result has all elements, in another shape or type."""
    weights = [source for source in freed if _is_weighty(source)]
    if len(results) > 1 or len(weights) != 1 or not all(passes(node) for node in part):
        return None
    tensor, maker = constant_tensor(weights[0]), results[0].producer()
    assert tensor is not None and maker is not None
    same = tensor.size == arrays[0].size and weights[0].graph is maker.graph
    return weights[0].name if same and not results[0].is_graph_output() else None


def _constant(value: ir.Value, array: np.ndarray) -> ir.Value:
    """A constant in the place of a computed value, under its name; not yet in a graph."""
    dtype = ir.DataType.from_numpy(array.dtype)
    new = ir.Value(
        name=value.name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(dtype),
        doc_string=value.doc_string,
        const_value=ir.Tensor(array, dtype=dtype, name=value.name),
    )
    new.metadata_props.update(value.metadata_props)
    return new
