"""The graph of a pruned file beside that of the input model: its nodes in order, and what changed in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.errors import OnnxPruneError
from onnxprune.model.files.io import load
from onnxprune.model.names import name_of
from onnxprune.model.shapes.inference import Shape, infer_shapes
from onnxprune.reports.pairing import Pairing

# What changed in a node, the strongest first.
PRUNED, SMALLER, NEW, UNCHANGED = "pruned", "smaller", "new", ""
INPUT, OUTPUT, RUN = "input", "output", "run"
# Larger graphs have one box for consecutive nodes that did not change.
FEW_NODES = 24
# A picture has no more boxes than this.
MOST_BOXES = 300
# Operators that the box of a run names.
NAMED = 4


@dataclass(frozen=True)
class Box:
    """A node of the file, an input or output of the model, or a run of unchanged nodes; shapes are texts.

    `operator_before`, `shape_before`: those in the input model, where they differ. `weight`: its shape, and that before
    where it differs; `removed`: the fraction of its elements that is removed, None without a weight that is pruned.
    """

    kind: str
    operator: str
    name: str
    shape: str = ""
    operator_before: str = ""
    shape_before: str = ""
    weight: str = ""
    removed: float | None = None


def graph_view(pruned: Path, baseline: Path | None, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The boxes of a picture from top to bottom, `edges` between them, and what is not in it, as JSON types.

    `layers`: the records of the weights; without `baseline` they tell alone what changed. `gone`: operators and names
    of the nodes of the input model that the file has no more; `nodes`: how many nodes the file has; `left_out`: boxes
    of a large graph beyond `MOST_BOXES`. Empty where a file cannot be read.
    """
    try:
        model = load(pruned)[0]
        before = None if baseline is None else load(baseline)[0]
    except OnnxPruneError:
        return {}
    shapes, old_shapes = _shapes(model), {} if before is None else _shapes(before)
    pairing = Pairing(model, before, layers)
    boxes: list[Box] = []
    # The box that gives a value.
    source: dict[ir.Value, int] = {}
    edges: set[tuple[int, int]] = set()

    def add(box: Box, inputs: Sequence[ir.Value | None], outputs: Sequence[ir.Value]) -> None:
        edges.update((source[value], len(boxes)) for value in inputs if value in source)
        source.update(dict.fromkeys(outputs, len(boxes)))
        boxes.append(box)

    def shape_texts(value: ir.Value) -> tuple[str, str]:
        now, then = shapes.get(value.name or ""), old_shapes.get(value.name or "")
        return _text(now), _text(then) if then is not None and _sizes(then) != _sizes(now) else ""

    for value in model.graph.inputs:
        if value.name not in model.graph.initializers:
            add(Box(INPUT, "input", value.name or "", shape_texts(value)[0]), (), [value])
    for node in model.graph:
        shape, shape_before = shape_texts(node.outputs[0]) if node.outputs else ("", "")
        box = _box(node, pairing.old(node), pairing.layer(node), shape, shape_before, before is None)
        add(box, list(_read(node)), node.outputs)
    for value in model.graph.outputs:
        add(Box(OUTPUT, "output", value.name or "", shape_texts(value)[0]), [value], ())
    gone = [[node.op_type, name_of(node)] for node in pairing.gone()]
    nodes = len(model.graph)
    if nodes > FEW_NODES:
        boxes, edges = _with_runs(boxes, edges)
    left_out = max(0, len(boxes) - MOST_BOXES)
    boxes = boxes[:MOST_BOXES]
    return {
        "boxes": [asdict(box) for box in boxes],
        "edges": sorted([list(edge) for edge in edges if max(edge) < len(boxes)]),
        "gone": gone,
        "nodes": nodes,
        "left_out": left_out,
    }


def _shapes(model: ir.Model) -> dict[str, Shape]:
    return {value.name or "": shape for value, shape in infer_shapes(model).items()}


def _read(node: ir.Node) -> Iterator[ir.Value | None]:
    """What a node reads, also in its bodies."""
    yield from node.inputs
    for attribute in node.attributes.values():
        graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []
        for inner in (each for graph in graphs for each in graph):
            yield from _read(inner)


def _box(
    node: ir.Node,
    old: ir.Node | None,
    layer: Mapping[str, Any] | None,
    shape: str,
    shape_before: str,
    alone: bool,
) -> Box:
    operator_before = old.op_type if old is not None and old.op_type != node.op_type else ""
    weight, removed, slimmer = "", None, bool(shape_before)
    if layer is not None:
        after = layer.get("shape_after") or layer.get("shape")
        given = layer.get("shape") or after
        texts = ["x".join(map(str, sizes)) for sizes in (given, after) if sizes]
        weight = " → ".join(dict.fromkeys(texts))
        slimmer = slimmer or len(set(texts)) > 1
        removed = 1 - layer["kept"] / layer["size"] if layer["kept"] < layer["size"] else None
    kind = UNCHANGED
    if removed is not None:
        kind = PRUNED
    elif slimmer:
        kind = SMALLER
    elif operator_before or (old is None and not alone):
        kind = NEW
    return Box(kind, node.op_type, name_of(node), shape, operator_before, shape_before, weight, removed)


def _with_runs(boxes: Sequence[Box], edges: set[tuple[int, int]]) -> tuple[list[Box], set[tuple[int, int]]]:
    """One box for consecutive ones that did not change; edges go forward, so they do between the new boxes too."""
    made: list[list[Box]] = []
    place = []
    for box in boxes:
        if box.kind != UNCHANGED or not made or made[-1][-1].kind != UNCHANGED:
            made.append([])
        made[-1].append(box)
        place.append(len(made) - 1)
    joined = {(place[start], place[end]) for start, end in edges if place[start] != place[end]}
    return [_run(each) for each in made], joined


def _run(boxes: Sequence[Box]) -> Box:
    if len(boxes) == 1:
        return boxes[0]
    operators = list(dict.fromkeys(box.operator for box in boxes))
    names = ", ".join(operators[:NAMED]) + (", …" if len(operators) > NAMED else "")
    return Box(RUN, f"{len(boxes)} unchanged nodes", names, boxes[-1].shape)


def _sizes(shape: Shape | None) -> tuple[int | None, ...]:
    """The sizes that are known: names of dims may differ from file to file."""
    return () if shape is None else tuple(size if isinstance(size, int) else None for size in shape)


def _text(shape: Shape | None) -> str:
    if shape is None:
        return ""
    return (
        "x".join("?" if size is None or str(size).startswith("unk__") else str(size) for size in shape)
        or "scalar"
    )
