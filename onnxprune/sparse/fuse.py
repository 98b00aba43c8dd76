"""Add ∘ SparseOp -> SparseOpAdd, Activation ∘ SparseOp -> SparseOpActivation, both one after the other; and back.

The rules are read off the fused operators themselves (`functions.py`): an activation's text is the pattern that is
looked for, and what is put back. A Sum of two is an Add, and comes back as one. The nodes taken in must be the only
readers of what lies between them, and none of that may be a graph output, so that no value is missed.

The fused node stands where the last of its nodes stood, under the name of the first; its metadata keeps the other
names. onnxscript finds the patterns but does not replace them: its `RewriteRuleSet` names all nodes of the model that
have no name, and gives a new node the metadata of all that it replaces.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import onnx.parser
import onnx_ir as ir
from onnxscript.rewriter.pattern import AttrVar, OpsetPatternBuilder, RewriteRule, Var

from onnxprune.errors import ModelFileError
from onnxprune.model.constants import constant_tensor
from onnxprune.model.names import name_of
from onnxprune.model.shapes.inference import Shape
from onnxprune.sparse.functions import (
    ACTIVATIONS,
    DOMAIN,
    DOMAINS,
    SPARSE_OPS,
    Activation,
    SparseOp,
    standard_opset,
)

# Of a fused node's metadata: {"nodes": names of the nodes taken in, "values": names of what lay before each}.
NAMES_KEY = "onnxprune.fused"
# X and the weight's values, gaps and shape.
LEADING_INPUTS = 4
ADDITIONS = (Activation("Y = Add (Z, addend)", ("addend",)), Activation("Y = Sum (Z, addend)", ("addend",)))


def fuse(model: ir.Model, shapes: Mapping[ir.Value, Shape]) -> None:
    """Give sparse nodes what follows them; `shapes` are those of the model's values, of the addends at least."""
    opset = standard_opset(model)
    rules = _rules()
    for node in list(model.graph.all_nodes()):
        for rule in rules[node.op_type]:
            if rule.tail.since <= opset and _fuse(rule, model, node, shapes):
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


@dataclass(frozen=True)
class _Rule:
    """What may follow a sparse node, as a pattern, and the nodes of it by the names of what they make, in order."""

    tail: Activation
    pattern: RewriteRule
    made: tuple[str, ...]


@cache
def _rules() -> Mapping[str, Sequence[_Rule]]:
    """By the operator that the tail ends in; with the operands of sums and products in either order."""
    rules = defaultdict(list)
    for tail in (*ADDITIONS, *ACTIVATIONS):
        body = _parse(tail.text, ("Z", *tail.scalars), tuple(tail.attributes))
        made = tuple(step.outputs[0].name or "" for step in body)
        for pattern in RewriteRule(_pattern(body), lambda op: None).commute():
            rules[body[-1].op_type].append(_Rule(tail, pattern, made))
    return rules


def _pattern(body: ir.Function) -> Callable[[OpsetPatternBuilder], Any]:
    """A tail behind any operator of ours, whose output is the first input of `body`; names are those of its values."""

    def pattern(op: OpsetPatternBuilder) -> Any:
        product, *others = body.inputs
        leading = [Var(name) for name in ("X", "values", "gaps", "shape")]
        values: dict[Any, Any] = {value: Var(value.name) for value in others}
        values[product] = op.submodule("Sparse")(
            *leading, _domain=DOMAIN, _allow_other_inputs=True, _outputs=[product.name]
        )
        for step in body:
            attributes = {
                name: AttrVar(attribute.ref_attr_name, can_match_none=True)
                for name, attribute in step.attributes.items()
            }
            values[step.outputs[0]] = getattr(op, step.op_type)(
                *(values[value] for value in step.inputs),
                _outputs=[step.outputs[0].name],
                _allow_other_attributes=False,
                **attributes,
            )
        return values[body.outputs[0]]

    return pattern


@cache
def _parse(body: str, inputs: tuple[str, ...], attributes: tuple[str, ...]) -> ir.Function:
    declared = f"<{', '.join(attributes)}>" if attributes else ""
    text = f'<domain: "{DOMAIN}", opset_import: ["": 1]> tail {declared} ({", ".join(inputs)}) => (Y) {{ {body} }}'
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))


def _fuse(rule: _Rule, model: ir.Model, last: ir.Node, shapes: Mapping[ir.Value, Shape]) -> bool:
    """Give a sparse node the tail that ends in `last`, if one stands before it; whether it was."""
    assert last.graph is not None
    found = rule.pattern.match(model, last.graph, last)
    if not found:
        return False
    named = found.bindings
    node = named["Z"].producer()
    suffix = "Add" if rule.tail in ADDITIONS else rule.tail.name
    op = SPARSE_OPS.get(f"{node.op_type}{suffix}")
    if op is None or not all(_fits(name, named[name], node, shapes) for name in rule.tail.scalars):
        return False
    attributes = {
        name: ir.AttrFloat32(name, named[name].as_float())
        for name in rule.tail.attributes
        if named[name] is not None
    }
    followers = [named[name] for name in rule.tail.scalars]
    _take_in(op, node, [named[name].producer() for name in rule.made], followers, attributes)
    return True


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
    shape, product = shapes.get(value), node.outputs[0]
    return value is not product and shape is not None and None not in shape and shape == shapes.get(product)


def _take_in(
    op: SparseOp,
    node: ir.Node,
    tail: Sequence[ir.Node],
    followers: Sequence[ir.Value],
    attributes: Mapping[str, ir.Attr],
) -> None:
    """Make the last node of the tail the fused one: it is the one whose output stays."""
    *inner, last = tail
    nodes, values = _kept_names(node)
    names = {
        "nodes": nodes + [taken.name or "" for taken in tail],
        "values": values + [made.outputs[0].name or "" for made in (node, *inner)],
    }
    before = LEADING_INPUTS + len(SPARSE_OPS[node.op_type].followers)
    set_inputs(last, [*node.inputs[:before], *followers, *node.inputs[before:]])
    last.domain, last.op_type, last.name = DOMAIN, op.name, node.name
    last.attributes.clear()
    last.attributes.update({**node.attributes, **attributes})
    last.doc_string = node.doc_string
    last.metadata_props.clear()
    last.metadata_props.update(node.metadata_props | {NAMES_KEY: json.dumps(names)})
    assert node.graph is not None
    node.graph.remove([node, *inner], safe=True)


def _let_out(node: ir.Node, op: SparseOp, taken: set[str]) -> None:
    """Put the operators before `node` of which it took over the work, and make it the last of them."""
    body = _parse(op.tail, (op.result, *op.followers), tuple(op.activation.attributes))
    followers = node.inputs[LEADING_INPUTS : LEADING_INPUTS + len(op.followers)]
    if len(followers) < len(op.followers) or None in followers:
        raise ModelFileError(
            f"{node.op_type} node {name_of(node)!r} lacks inputs of its operator: write the model again with onnxprune"
        )
    node_names, value_names = _names(node, len(body), taken)
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
    values: dict[ir.Value | None, ir.Value | None] = dict(zip(body.inputs[1:], followers, strict=True))
    values[body.inputs[0]] = first.outputs[0]
    *steps, last_step = body
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
    nodes, values = _kept_names(node)
    if len(nodes) != steps or len(values) != steps:
        nodes, values = [""] * steps, [f"{node.outputs[0].name}.before"] * steps
    # Graphs side by side may hold values of one name: what is restored does not count as taken.
    unique: list[str] = []
    for value in values:
        numbered = (value if n == 1 else f"{value}_{n}" for n in count(1))
        unique.append(next(name for name in numbered if name not in taken and name not in unique))
    return nodes, unique


def output_before(node: ir.Node) -> str:
    """The name of a node's output before other nodes joined it; empty where none did."""
    _, values = _kept_names(node)
    return values[0] if values else ""


def _kept_names(node: ir.Node) -> tuple[list[str], list[str]]:
    """What a fused node's metadata says of names; nothing where there is none, or it is damaged."""
    try:
        names = json.loads(node.metadata_props.get(NAMES_KEY, "{}"))
        return [str(name) for name in names["nodes"]], [str(name) for name in names["values"]]
    except (ValueError, KeyError, TypeError):
        return [], []
