"""Inlining of model-local functions with weights, so that their weights are pruned and fine-tuned like any other.

Functions without weights are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from onnxprune.model.excerpt import bodies
from onnxprune.model.slots import slots

# The functions that onnxprune writes, of this domain and those below it; sparse/restore.py replaces them.
OWN_DOMAIN = "onnxprune"


def inline_weighted(model: ir.Model) -> tuple[str, ...]:
    """Inline, in place, every function with an operator with weights, or with a call of such a function.

    Returns the names of the inlined functions. Functions with an `obstacle` are kept.
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
    return inline(model, chosen)


def inline(model: ir.Model, chosen: Collection[ir.OperatorIdentifier]) -> tuple[str, ...]:
    """Inline functions without an `obstacle`, in place; returns their names."""
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
            return f"it has opset {version} and the model opset {model.opset_imports[domain]}"
    for node in _nodes(model):
        if node.op_identifier() == function.identifier():
            if bodies(node):
                return "a graph is one of its attributes"
            if len(node.inputs) > len(function.inputs):
                return "a call has more inputs than it"
    return None


def _rename(function: ir.Function, taken: set[str]) -> None:
    """Rename its values with a prefix that no name in the model has: InlinePass ignores the names of subgraphs."""
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
