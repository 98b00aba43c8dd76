"""Which node of the input model a node of the pruned file was, and which record of a weight is its own.

Names of nodes are optional in ONNX, and may be given twice. A node without a name of its own is known by the weight
that it reads, or else by its first output: names of values are unique.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import onnx_ir as ir

from onnxprune.sparse.fuse import output_before

# What onnxruntime's quantizer appends to the names of nodes, and of their outputs.
QUANTIZED, QUANTIZED_OUTPUT = "_quant", "_quantized"
# What a weight goes through on its way to the node that computes with it, and what appends to its name there.
CARRIERS = {"Cast", "DequantizeLinear", "Identity", "Reshape", "SparseWeight", "Transpose"}
PARTS = (".values", ".coded", ".gaps", "_quantized")

Item = TypeVar("Item")


class Pairing:
    """The nodes of a file beside those of the input model (None: it is not known) and the records of its weights."""

    def __init__(self, model: ir.Model, before: ir.Model | None, layers: Sequence[Mapping[str, Any]]):
        nodes = [] if before is None else list(before.graph)
        self._by_output = {_first_output(node): node for node in nodes}
        self._by_name = _listed((node.name or "", node) for node in nodes)
        constants = set() if before is None else _constants(before)
        self._readers = _listed((name, node) for node in nodes for name in constants & set(_read(node)))
        self._layers = _listed((name, layer) for layer in layers for name in layer.get("nodes") or ())
        self._of_weight = {layer["name"]: layer for layer in layers}
        self._called = Counter(_name(node) for node in model.graph)
        self._old = {node: self._find(node) for node in model.graph}

    def old(self, node: ir.Node) -> ir.Node | None:
        """The node of the input model that a node of the file was; None for a new one."""
        return self._old[node]

    def layer(self, node: ir.Node) -> Mapping[str, Any] | None:
        """The record of the weight that a node computes with, the last one of several."""
        name = _name(node)
        if name and self._called[name] == 1 and name in self._layers:
            return self._layers[name][-1]
        if node.op_type in CARRIERS:
            return None
        own = [self._of_weight[each] for each in _read(node) if each in self._of_weight]
        return own[-1] if own else None

    def gone(self) -> list[ir.Node]:
        """The nodes of the input model that the file has no more."""
        kept = set(self._old.values())
        return [node for node in self._by_output.values() if node not in kept]

    def _find(self, node: ir.Node) -> ir.Node | None:
        same = self._by_name.get(_name(node), [])
        if _name(node) and len(same) == 1:
            return same[0]
        readers = {old for name in _read(node) for old in self._readers.get(name, ())}
        found = [old for old in same if old in readers]
        if len(found) == 1:
            return found[0]
        old = self._by_output.get(_output(node))
        return old if old in same else None


def _listed(pairs: Iterable[tuple[str, Item]]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for name, item in pairs:
        found.setdefault(name, []).append(item)
    return found


def _constants(model: ir.Model) -> set[str]:
    made = {_first_output(node) for node in model.graph if node.op_type == "Constant"}
    return {*model.graph.initializers, *made}


def _name(node: ir.Node) -> str:
    """The name of a node in the input model."""
    return (node.name or "").removesuffix(QUANTIZED)


def _first_output(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), "")


def _output(node: ir.Node) -> str:
    """The first output of a node in the input model, before it took others in."""
    return (output_before(node) or _first_output(node)).removesuffix(QUANTIZED_OUTPUT)


def _read(node: ir.Node) -> Iterator[str]:
    """The names of what a node reads, among them those of its weights before they were encoded."""
    for value in node.inputs:
        if value is None:
            continue
        name = value.name or ""
        yield name
        yield from (name.removesuffix(part) for part in PARTS if name.endswith(part))
        producer = value.producer()
        if producer is not None and producer.op_type in CARRIERS:
            yield from _read(producer)
