"""A model for tools that need the size of everything: free dims fixed, and what computes shapes folded.

Shape(x: [N, 50, 4, 4]) -> Gather -> Concat -> Reshape    with N = 1 becomes    Reshape(x, [1, 800])
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants

from onnxprune.model.constants import constant_tensor
from onnxprune.model.shapes.inference import infer_shapes, with_branches

# Shape computations are of a few numbers; larger constants stay as they are.
FOLDED_ELEMENTS = 1024
# A fold can make another one possible.
MOST_ROUNDS = 8


def fix_dims(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Give the inputs these shapes, in place, and fold what is known by that; returns the values still of unknown size.

    `shapes`: of every input, by name. Unknown stay what depends on the data (NonZero) and what custom operators make.
    """
    given = {value.name or "": value for value in model.graph.inputs}
    for name, shape in shapes.items():
        given[name].shape = ir.Shape(shape)
    # Outputs of the graph have to have a shape, whether inference finds one or not (an unknown one behind a Loop).
    outputs = {value: value.shape for value in model.graph.outputs if value.shape is not None}
    for value in _made(model):
        if value.shape is not None and value.shape.is_dynamic():
            value.shape = None
    for _ in range(MOST_ROUNDS):
        for value, dims in infer_shapes(model).items():
            if not value.is_graph_input() and constant_tensor(value) is None:
                value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in dims])
        folded = fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=FOLDED_ELEMENTS,
            output_size_limit=FOLDED_ELEMENTS,
            should_fold=_always_folded,
        )
        RemoveUnusedNodesPass()(model)
        if not folded.modified:
            break
    for value, before in outputs.items():
        if value.shape is None:
            value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in before])
    return tuple(
        value.name or "" for value in _made(model) if value.shape is None or value.shape.is_dynamic()
    )


def _always_folded(node: ir.Node) -> bool | None:
    """True for zeros or ones of a few numbers, which are not folded by default; None for what has other rules."""
    if node.op_type != "ConstantOfShape" or node.domain not in ("", "ai.onnx"):
        return None
    # The pass knows constants of all forms.
    dims = None if node.inputs[0] is None else node.inputs[0].const_value
    return dims is not None and math.prod(dims.numpy().tolist()) <= FOLDED_ELEMENTS


def _made(model: ir.Model) -> Iterator[ir.Value]:
    """The outputs of nodes that are tensors, in the graph and in the bodies of If nodes."""
    for graph in with_branches(model.graph):
        for node in graph:
            for value in node.outputs:
                if value.name and not isinstance(value.type, ir.SequenceType | ir.OptionalType):
                    yield value
