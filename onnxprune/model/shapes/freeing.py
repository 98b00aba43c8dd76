"""Freeing a fixed batch size for a while: the dims, and the constants that repeat it, until they are put back.

Exporters fix the batch size in more places than the inputs: `Reshape(x, [1, 400])` becomes `Reshape(x, [-1, 400])`, and
zeros as the initial state of a recurrent operator, of shape (directions, 1, hidden), are left out: that means the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.operands import operand
from onnxprune.model.shapes.inference import Dim, infer_shapes, with_branches

BATCH = "onnxprune_batch"
# The inputs of recurrent operators that are initial states.
STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}


class FreedBatch:
    """A model, changed in place, whose inputs are of any batch size; `restore` puts back what it had.

    `axes`: the batch axis of the inputs that have one; `size`: the one that the model fixes.
    """

    def __init__(self, model: ir.Model, axes: Mapping[str, int], size: int):
        self._model = model
        self._shapes: dict[ir.Value, ir.Shape] = {}
        self._operands: list[tuple[ir.Node, int, ir.Value | None]] = []
        self._made: list[ir.Value] = []
        fixed = infer_shapes(model)
        self._free_dims(axes, size)
        self._leave_out_states()
        self._free_reshapes(fixed, axes)

    def restore(self) -> None:
        """Put back the dims and the constants that the model had."""
        for node, index, value in self._operands:
            node.replace_input_with(index, value)
        for value in self._made:
            self._model.graph.initializers.pop(value.name or "")
        for value, shape in self._shapes.items():
            value.shape = shape

    def _free_dims(self, axes: Mapping[str, int], size: int) -> None:
        """Open the batch axes of inputs; elsewhere, any dim of that size may be one."""
        for graph in with_branches(self._model.graph):
            for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
                if value.shape is None or constant_tensor(value) is not None or value.is_initializer():
                    continue
                asked = axes.get(value.name or "") if value.is_graph_input() else None
                dims = [
                    None if (axis == asked if value.is_graph_input() else dim == size) else dim
                    for axis, dim in enumerate(value.shape)
                ]
                self._shapes[value] = value.shape
                value.shape = ir.Shape(dims)

    def _replace(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        self._operands.append((node, index, node.inputs[index]))
        node.replace_input_with(index, value)

    def _leave_out_states(self) -> None:
        for node in self._model.graph:
            for index in STATES.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ():
                state = constant_tensor(operand(node, index))
                if state is not None and not state.numpy().any():
                    self._replace(node, index, None)

    def _free_reshapes(self, fixed: Mapping[ir.Value, Sequence[Dim]], axes: Mapping[str, int]) -> None:
        """Let every Reshape with a constant target keep the batch axis, from the inputs on."""
        dims = {
            value.name or "": [
                BATCH if axes.get(value.name or "") == axis else dim for axis, dim in enumerate(shape)
            ]
            for value in self._model.graph.inputs
            if (shape := fixed.get(value)) is not None
        }
        waiting = [
            node
            for node in self._model.graph
            if node.op_type == "Reshape"
            and len(node.inputs) > 1
            and constant_tensor(node.inputs[1]) is not None
        ]
        while waiting:
            shapes = infer_shapes(self._model, dims)  # type: ignore[arg-type]
            reached = [node for node in waiting if _open_axis(shapes.get(node.inputs[0])) is not None]  # type: ignore[arg-type]
            if not reached:
                return
            for node in reached:
                waiting.remove(node)
                self._free_reshape(node, fixed, shapes)

    def _free_reshape(
        self, node: ir.Node, fixed: Mapping[ir.Value, Sequence[Dim]], shapes: Mapping[ir.Value, Sequence[Dim]]
    ) -> None:
        data, operand = node.inputs[0], node.inputs[1]
        tensor = constant_tensor(operand)
        assert data is not None and tensor is not None
        target, whole = tensor.numpy().tolist(), fixed.get(data)
        axis = _open_axis(shapes[data])
        if whole is None or axis is None or not all(isinstance(dim, int) for dim in whole):
            return
        freed = open_target(target, [int(dim) for dim in whole if isinstance(dim, int)], axis)
        if freed is None or freed == target:
            return
        name = f"{BATCH}_{len(self._made)}"
        value = ir.Value(name=name, const_value=ir.Tensor(np.array(freed, np.int64), name=name))
        self._model.graph.register_initializer(value)
        self._made.append(value)
        self._replace(node, 1, value)


def open_target(target: Sequence[int], dims: Sequence[int], axis: int) -> list[int] | None:
    """The target of a Reshape with -1 where the batch axis of data of these dims goes; None if that is not known.

    ([1, -1], [1, 16, 5, 5], 0) gives [-1, 400]; ([7, 8, 64], [7, 1, 512], 1) gives [7, -1, 64].
    """
    sizes = [dims[place] if size == 0 and place < len(dims) else size for place, size in enumerate(target)]
    known = math.prod(size for size in sizes if size != -1)
    if not known:
        return None
    sizes = [math.prod(dims) // known if size == -1 else size for size in sizes]
    before = math.prod(dims[:axis])
    place = next((place for place in range(len(sizes)) if math.prod(sizes[:place]) == before), None)
    if place is None:
        return None
    if target[place] == -1 or (target[place] == 0 and place == axis):
        return list(target)
    return [-1 if each == place else size for each, size in enumerate(sizes)]


def _open_axis(shape: Sequence[Dim] | None) -> int | None:
    """The only axis whose size is not a number."""
    axes = [axis for axis, dim in enumerate(shape or ()) if not isinstance(dim, int)]
    return axes[0] if len(axes) == 1 else None
