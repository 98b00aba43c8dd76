"""Model-local functions that compute with weights: their calls give way to their bodies, so that each weight is one
of the graph, to be pruned, retrained and stored like any other. Functions without weights stay."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from onnxprune.model.slots import slots

# The functions that files of our own carry, of this domain and those below it, are undone by sparse/restore.py.
OWN_DOMAIN = "onnxprune"


def inline_weighted(model: ir.Model) -> tuple[str, ...]:
    """Inline, in place, every function in which an operator with weights stands, or a call of such a function.

    Returns the names of those that were inlined. What `obstacle` tells of one leaves it as it is.
    """
    own = {identifier for identifier in model.functions if identifier[0].split(".")[0] == OWN_DOMAIN}
    weighted: set[ir.OperatorIdentifier] = set()
    while True:
        found = {
            identifier
            for identifier, function in model.functions.items()
            if any(slots(node) or node.op_identifier() in weighted for node in function.all_nodes())
        } - own
        if found == weighted:
            break
        weighted = found
    chosen = {identifier for identifier in weighted if obstacle(model.functions[identifier], model) is None}
    if chosen:
        taken = {
            value.name or "" for node in _nodes(model) for value in (*node.inputs, *node.outputs) if value
        }
        for identifier in chosen:
            _rename(model.functions[identifier], taken)
        InlinePass(lambda function: function.identifier() in chosen)(model)
    return tuple(name for _, name, _ in sorted(chosen))


def obstacle(function: ir.Function, model: ir.Model) -> str | None:
    """Why a function cannot be inlined, or None."""
    for domain, version in function.opset_imports.items():
        if model.opset_imports.get(domain, version) != version:
            return f"it is of opset {version} and the model of opset {model.opset_imports[domain]}"
    for node in _nodes(model):
        if node.op_identifier() == function.identifier():
            if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
                return "a graph is one of its attributes"
            if len(node.inputs) > len(function.inputs):
                return "a node gives it more inputs than it has"
    return None


def _rename(function: ir.Function, taken: set[str]) -> None:
    """Give its values names that begin like none in the model: InlinePass does not look at those of subgraphs."""
    prefix = f"{function.name}/"
    while any(name.startswith(prefix) for name in taken):
        prefix = f"_{prefix}"
    for node in function.all_nodes():
        node.name = f"{prefix}{node.name or node.op_type}"
        for value in node.outputs:
            value.name = f"{prefix}{value.name}"


def _nodes(model: ir.Model) -> Iterable[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()
