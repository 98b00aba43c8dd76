"""Activation (Add (SparseOp (X, W), addend)) -> SparseOpAddActivation (X, W, addend), and back.

The rules are the fused operators themselves: what the body of one's function does after the Gemm, MatMul or Conv
(`SparseOp.tail`) is the pattern that is looked for, and what is put back. The nodes taken in must be the only
readers of what lies between them, and none of that may be a graph output, so that no value is missed.

The fused node stands where the last of its nodes stood, under the name of the first; its metadata keeps the other
names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count

import onnx.parser
import onnx_ir as ir

from onnxprune.errors import ModelFileError
from onnxprune.model.constants import constant_tensor
from onnxprune.model.shapes import Shape
from onnxprune.sparse.functions import DOMAIN, DOMAINS, FUSED_OPS, SPARSE_OPS, SparseOp, standard_opset

# Of a fused node's metadata: {"nodes": names of the nodes taken in, "values": names of what lay before each}.
NAMES_KEY = "onnxprune.fused"
COMMUTATIVE = frozenset({"Add", "Mul"})
# X and the weight's values, gaps and shape.
LEADING_INPUTS = 4


def fuse(model: ir.Model, shapes: Mapping[ir.Value, Shape]) -> None:
    """Give sparse nodes what follows them; `shapes` are those of the model's values, of the addends at least."""
    opset = standard_opset(model)
    for node in [node for node in model.graph.all_nodes() if node.domain == DOMAIN]:
        for op in FUSED_OPS:
            if op.base_name == node.op_type and op.activation.since <= opset:
                match = _match(op, node, shapes)
                if match is not None:
                    _take_in(node, match)
                    break


def unfuse(model: ir.Model, taken: set[str]) -> None:
    """Undo `fuse`; `taken` are the names of the model's values.

    Raises:
        ModelFileError: a node lacks inputs of its operator.
    """
    for node in [node for node in model.graph.all_nodes() if node.domain in DOMAINS]:
        op = SPARSE_OPS.get(node.op_type)
        if op is not None and op.tail:
            _let_out(node, op, taken)


def set_inputs(node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


@dataclass
class _Match:
    """The nodes of an operator's tail, and what stands for its values and attributes."""

    op: SparseOp
    values: dict[ir.Value, ir.Value]
    """By the pattern's values."""
    nodes: list[ir.Node] = field(default_factory=list)
    attributes: dict[str, ir.Attr] = field(default_factory=dict)


def _pattern(op: SparseOp) -> ir.Function:
    """The tail as a function of the standard operator's result and of `op.followers`."""
    return _parse(op.tail, (op.result, *op.followers), tuple(op.activation.attributes))


@cache
def _parse(body: str, inputs: tuple[str, ...], attributes: tuple[str, ...]) -> ir.Function:
    declared = f"<{', '.join(attributes)}>" if attributes else ""
    text = f'<domain: "{DOMAIN}", opset_import: ["": 1]> tail {declared} ({", ".join(inputs)}) => (Y) {{ {body} }}'
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))


def _match(op: SparseOp, node: ir.Node, shapes: Mapping[ir.Value, Shape]) -> _Match | None:
    pattern = _pattern(op)
    between = node.outputs[0]
    match = _Match(op, {pattern.inputs[0]: between})
    for step in pattern:
        before = next(value for value in step.inputs if value in match.values)
        assert before is not None
        readers = dict.fromkeys(use.node for use in match.values[before].uses())
        if not any(_bind(step, reader, node, match, shapes) for reader in readers):
            return None
    made = [between, *(taken.outputs[0] for taken in match.nodes[:-1])]
    for value in made:
        if value.is_graph_output() or any(use.node not in match.nodes for use in value.uses()):
            return None
    followers = [match.values[value] for value in pattern.inputs[1:]]
    return match if not set(made) & set(followers) else None


def _bind(
    step: ir.Node, reader: ir.Node, node: ir.Node, match: _Match, shapes: Mapping[ir.Value, Shape]
) -> bool:
    """Whether `reader` can be the pattern's `step`; if so, `match` is told."""
    if (
        reader.domain not in ("", "ai.onnx")
        or reader.op_type != step.op_type
        or reader.graph is not node.graph
    ):
        return False
    if not reader.attributes.keys() <= step.attributes.keys() or len(reader.inputs) != len(step.inputs):
        return False
    orders = [tuple(reader.inputs)]
    if step.op_type in COMMUTATIVE:
        orders.append(orders[0][::-1])
    for inputs in orders:
        new: dict[ir.Value, ir.Value] = {}
        for wanted, value in zip(step.inputs, inputs, strict=True):
            if wanted is None or value is None:
                break
            if wanted not in match.values:
                if not _fits(wanted.name or "", value, node, shapes):
                    break
                new[wanted] = value
            elif match.values[wanted] is not value:
                break
        else:
            match.values |= new | {step.outputs[0]: reader.outputs[0]}
            match.nodes.append(reader)
            for name, attribute in reader.attributes.items():
                reference = step.attributes[name].ref_attr_name
                assert reference is not None
                match.attributes[reference] = ir.AttrFloat32(reference, attribute.as_float())
            return True
    return False


def _fits(name: str, value: ir.Value, node: ir.Node, shapes: Mapping[ir.Value, Shape]) -> bool:
    """Whether a value can be the tail's `addend`, or one of its scalars."""
    tensor = constant_tensor(value)
    if name != "addend":
        return tensor is not None and tensor.size == 1 and len(tensor.shape) <= 1
    if node.op_type == "SparseMatMul" and tensor is not None:
        weight_shape = constant_tensor(node.inputs[3])
        # A bias, which leaves the shape of the product as it is.
        if weight_shape is not None and tuple(tensor.shape) == (int(weight_shape.numpy()[-1]),):
            return True
    # Of another shape it would be broadcast, or would broadcast the sum.
    shape = shapes.get(value)
    return shape is not None and None not in shape and shape == shapes.get(node.outputs[0])


def _take_in(node: ir.Node, match: _Match) -> None:
    """Make the last node of the tail the fused one: it is the one whose output stays."""
    *inner, last = match.nodes
    names = {
        "nodes": [taken.name or "" for taken in match.nodes],
        "values": [made.outputs[0].name for made in (node, *inner)],
    }
    followers = [match.values[value] for value in _pattern(match.op).inputs[1:]]
    inputs = [*node.inputs[:LEADING_INPUTS], *followers, *node.inputs[LEADING_INPUTS:]]
    set_inputs(last, inputs)
    last.domain, last.op_type, last.name = DOMAIN, match.op.name, node.name
    last.attributes.clear()
    last.attributes.update({**node.attributes, **match.attributes})
    last.doc_string = node.doc_string
    last.metadata_props.clear()
    last.metadata_props.update(node.metadata_props | {NAMES_KEY: json.dumps(names)})
    assert node.graph is not None
    node.graph.remove([node, *inner], safe=True)


def _let_out(node: ir.Node, op: SparseOp, taken: set[str]) -> None:
    """Put the operators before `node` of which it took over the work, and make it the last of them."""
    pattern = _pattern(op)
    followers = node.inputs[LEADING_INPUTS : LEADING_INPUTS + len(op.followers)]
    if len(followers) < len(op.followers) or None in followers:
        raise ModelFileError(
            f"{node.op_type} node {node.name!r} lacks inputs of its operator: write the model again with onnxprune"
        )
    node_names, value_names = _names(node, len(pattern), taken)
    first = ir.Node(
        DOMAIN,
        op.base_name,
        [*node.inputs[:LEADING_INPUTS], *node.inputs[LEADING_INPUTS + len(followers) :]],
        [attribute for name, attribute in node.attributes.items() if name not in op.activation.attributes],
        name=node.name,
        doc_string=node.doc_string,
        metadata_props={key: text for key, text in node.metadata_props.items() if key != NAMES_KEY},
    )
    given = dict(node.attributes)
    values: dict[ir.Value | None, ir.Value | None] = dict(zip(pattern.inputs[1:], followers, strict=True))
    values[pattern.inputs[0]] = first.outputs[0]
    *steps, last_step = pattern
    made = [first]
    for step, name in zip(steps, node_names, strict=False):
        inputs = [values[value] for value in step.inputs]
        made.append(ir.Node("", step.op_type, inputs, list(_attributes(step, given)), name=name))
        values[step.outputs[0]] = made[-1].outputs[0]
    for maker, name in zip(made, value_names, strict=True):
        maker.outputs[0].name = name
    assert node.graph is not None
    node.graph.insert_before(node, made)
    set_inputs(node, [values[value] for value in last_step.inputs])
    node.domain, node.op_type, node.name = "", last_step.op_type, node_names[-1]
    node.attributes.clear()
    node.attributes.update({attribute.name: attribute for attribute in _attributes(last_step, given)})
    node.doc_string = None
    node.metadata_props.clear()


def _attributes(step: ir.Node, given: Mapping[str, ir.Attr]) -> Iterator[ir.Attr]:
    """The step's attributes, of those that were given."""
    for name, attribute in step.attributes.items():
        reference = attribute.ref_attr_name
        if reference is not None and reference in given:
            yield ir.AttrFloat32(name, given[reference].as_float())


def _names(node: ir.Node, steps: int, taken: set[str]) -> tuple[list[str], list[str]]:
    """Names of the nodes that `node` took in and of the values before them; the old ones where they are known."""
    try:
        names = json.loads(node.metadata_props.get(NAMES_KEY, "{}"))
        nodes, values = [str(name) for name in names["nodes"]], [str(name) for name in names["values"]]
    except (ValueError, KeyError, TypeError):
        nodes, values = [], []
    if len(nodes) != steps or len(values) != steps:
        nodes, values = [""] * steps, [f"{node.outputs[0].name}.before"] * steps
    # Graphs side by side may hold values of one name: what is restored does not count as taken.
    unique: list[str] = []
    for value in values:
        numbered = (value if n == 1 else f"{value}_{n}" for n in count(1))
        unique.append(next(name for name in numbered if name not in taken and name not in unique))
    return nodes, unique
