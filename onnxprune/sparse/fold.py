"""Affine ∘ (Conv | Gemm | MatMul) -> Conv | Gemm | Add ∘ MatMul, with another weight and bias.

What multiplies and adds constants behind a weight, channel by channel, is computed once and for all:

    BatchNormalization   factor = scale / sqrt(variance + epsilon), shift = bias - mean * factor
    Mul                  factor = constant
    Add, Sum of two      shift = constant

The weight is multiplied by the factor of each output channel, so that its zeros stay zeros, in float64, and rounded
once. The names of the nodes, of their constants and of the values between are gone; that of the last value stays.

onnxscript's rules for this (`rewriter.rules.common`, 0.7.2) do not fit: they fold in training mode too, leave weights
of Constant nodes and of IR 3, give float16 weights the statistics' float32, fail on an empty bias, and write over a
constant that has the new bias's name. A shared weight takes one decision for all its nodes, before any is rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxprune.errors import some
from onnxprune.model.constants import constant_tensor, drop_constant, set_constant
from onnxprune.model.encoding import on_axis
from onnxprune.model.names import name_of
from onnxprune.model.operands import is_read, operand
from onnxprune.model.reading import RESHAPING, Use, out_axis_of
from onnxprune.model.shapes.inference import Shape, infer_shapes
from onnxprune.model.weights import Weight
from onnxprune.sparse.encode import halves
from onnxprune.sparse.functions import LAST_IR_WITH_LISTED_INITIALIZERS
from onnxprune.sparse.parts import add_constant, free_name, value_names

SUMS = frozenset({"Add", "Sum"})
AFFINE = SUMS | {"Mul", "BatchNormalization"}
# The input of Conv and Gemm that holds the bias.
BIAS_INDEX = 2
# Of ONNX's BatchNormalization, where the node does not say.
DEFAULT_EPSILON = 1e-5


class Folded(NamedTuple):
    """A node that is gone; where it had no name, that of its output."""

    op_type: str
    name: str


@dataclass(frozen=True)
class _Chain:
    """Affine nodes behind the product `node`: together they make x * factor + shift of what it gives without a bias.

    `factor` and `shift` are float64, one for each output channel, `axis` is that of these in the weight.
    """

    node: ir.Node
    axis: int
    nodes: tuple[ir.Node, ...]
    factor: np.ndarray
    shift: np.ndarray


def fold_all(model: ir.Model, weights: Sequence[Weight]) -> list[Folded]:
    """Fold what follows the nodes of weights into them, in place; the nodes that are gone."""
    folder = Folder(model, infer_shapes(model), value_names(model))
    return [node for weight in weights for node in folder.fold(weight, half=False)]


class Folder:
    """Folds what follows the weights of a model into them; `taken` are the names of the model's values."""

    def __init__(self, model: ir.Model, shapes: Mapping[ir.Value, Shape], taken: set[str]) -> None:
        self._listed = model.ir_version <= LAST_IR_WITH_LISTED_INITIALIZERS
        self._shapes = shapes
        self._taken = taken

    def fold(self, weight: Weight, *, half: bool) -> tuple[Folded, ...]:
        """Fold what follows the nodes of a weight; those that are gone, none where they do not all fold alike.

        `half`: the weight is to be stored in fp16, and not folded where that could not hold it.
        """
        chains = [self._chain(weight, use) for use in weight.uses]
        found = [chain for chain in chains if chain is not None]
        if len(found) < len(chains) or not any(chain.nodes for chain in found):
            return ()
        axis, factor = found[0].axis, found[0].factor
        if any(chain.axis != axis or not np.array_equal(chain.factor, factor) for chain in found):
            return ()
        array, dtype = weight.array(), weight.tensor.dtype.numpy()
        with np.errstate(over="ignore"):
            scaled = _scaled(array, factor, axis)
            biases = [chain.shift.astype(dtype) for chain in found]
        if not all(np.isfinite(each).all() for each in (scaled, *biases)):
            return ()
        if scaled is not array:
            if half and halves(scaled, axis) is None:
                return ()
            weight.assign(scaled)
        gone = tuple(Folded(node.op_type, name_of(node)) for chain in found for node in chain.nodes)
        for chain, bias in zip(found, biases, strict=True):
            if chain.nodes:
                self._replace(weight, chain, bias)
        return gone

    def _chain(self, weight: Weight, use: Use) -> _Chain | None:
        """What follows one node of a weight, perhaps nothing; None where nothing could be folded."""
        node, place = use.node, self._channels_of(weight, use)
        if place is None:
            return None
        rank, axis = place
        out_axis = out_axis_of(use, weight.value)
        channels = weight.shape[out_axis]
        shift = self._bias(node, channels)
        if shift is None:
            return None
        factor = np.ones(channels)
        nodes: list[ir.Node] = []
        value = node.outputs[0]
        while (step := self._step(value, rank, axis, channels)) is not None:
            reader, times, plus = step
            factor, shift = factor * times, shift * times + plus
            nodes.append(reader)
            value = reader.outputs[0]
        if node.op_type == "MatMul" and len(nodes) == 1 and nodes[0].op_type in SUMS:
            # Its bias, as it should be.
            nodes = []
        return _Chain(node, out_axis, tuple(nodes), factor, shift)

    def _channels_of(self, weight: Weight, use: Use) -> tuple[int, int] | None:
        """The number of axes that a node's output has, and which of them are the weight's output channels."""
        rank = len(weight.shape)
        if use.index == 1 and use.node.op_type == "Conv":
            return rank, 1
        if use.index != 1 or rank != 2 or use.node.op_type not in ("Gemm", "MatMul"):
            return None
        if use.node.op_type == "MatMul":
            shape = self._shapes.get(use.node.outputs[0])
            if shape is None:
                return None
            rank = len(shape)
        return rank, rank - 1

    def _bias(self, node: ir.Node, channels: int) -> np.ndarray | None:
        """The bias of a node for each channel, zeros where there is none; None where it is no constant."""
        bias = node.inputs[BIAS_INDEX] if len(node.inputs) > BIAS_INDEX else None
        if bias is None:
            return np.zeros(channels)
        rank = 1 if node.op_type == "Conv" else 2
        array = self._along(bias, rank, rank - 1, channels)
        return None if array is None else array * node.attributes.get_float("beta", 1.0)

    def _step(
        self, value: ir.Value, rank: int, axis: int, channels: int
    ) -> tuple[ir.Node, np.ndarray, np.ndarray] | None:
        """The one node that reads a value of `rank` axes, and its factor and shift along `axis`, if it is affine."""
        uses = tuple(value.uses())
        maker = value.producer()
        if len(uses) != 1 or value.is_graph_output() or maker is None:
            return None
        reader, index = uses[0]
        if reader.graph is not maker.graph or reader.domain or len(reader.outputs) != 1:
            return None
        found = None
        if reader.op_type == "BatchNormalization":
            if index == 0 and axis == 1:
                found = self._normalization(reader, channels)
        elif reader.op_type in AFFINE and len(reader.inputs) == 2:
            constant = self._along(reader.inputs[1 - index], rank, axis, channels)
            if constant is not None:
                nothing = np.zeros(channels)
                found = (constant, nothing) if reader.op_type == "Mul" else (nothing + 1, constant)
        if found is None or not all(np.isfinite(each).all() for each in found):
            return None
        return reader, *found

    def _normalization(self, node: ir.Node, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Factor and shift of a BatchNormalization (9, 14, 15) that does not train and has constant parameters."""
        parameters = [self._along(value, 1, 0, channels) for value in node.inputs[1:]]
        known = [parameter for parameter in parameters if parameter is not None]
        if node.attributes.get_int("training_mode", 0) or len(known) != 4:
            return None
        scale, bias, mean, variance = known
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", DEFAULT_EPSILON))
        return factor, bias - mean * factor

    def _along(self, value: ir.Value | None, rank: int, axis: int, channels: int) -> np.ndarray | None:
        """A constant's numbers, one for each channel, float64; None where it changes along other axes as well."""
        source = _unshaped(value)
        tensor = constant_tensor(source)
        if value is None or source is None or tensor is None:
            return None
        if not self.fixed(source) or tensor.size not in (1, channels):
            return None
        shape = tuple(tensor.shape.numpy()) if source is value else self._shapes.get(value)
        if shape is None or len(shape) > rank:
            return None
        aligned = (1,) * (rank - len(shape)) + shape
        sizes = [(1, channels) if at == axis else (1,) for at in range(rank)]
        if any(dim not in size for dim, size in zip(aligned, sizes, strict=True)):
            return None
        return np.broadcast_to(tensor.numpy().reshape(-1).astype(np.float64), (channels,))

    def fixed(self, value: ir.Value) -> bool:
        """Whether callers cannot give another value of a constant."""
        return self._listed or not value.is_graph_input()

    def _replace(self, weight: Weight, chain: _Chain, bias: np.ndarray) -> None:
        """Take a chain out of the graph; its bias goes to the product, or to a sum behind a MatMul."""
        last = chain.nodes[-1]
        holder, index = chain.node, BIAS_INDEX
        read = [value for node in (chain.node, *chain.nodes) for value in node.inputs]
        if chain.node.op_type == "MatMul" and bias.any():
            holder = next((node for node in chain.nodes if node.op_type in SUMS), last)
            index = _make_sum(holder, chain.node.outputs[0])
        if bias.any() or any(value is not None for value in holder.inputs[index:]):
            self._put_bias(weight, holder, index, bias)
        if holder is not last:
            _take_over(holder.outputs[0], last.outputs[0])
        assert last.graph is not None
        last.graph.remove([node for node in chain.nodes if node is not holder], safe=True)
        for value in read:
            self._drop(value)

    def _put_bias(self, weight: Weight, node: ir.Node, index: int, bias: np.ndarray) -> None:
        """Make a bias an input of a node: in the constant that is there, where nothing else reads that."""
        dtype = weight.tensor.dtype
        old = operand(node, index)
        node.attributes.pop("beta", None)
        alone = old is not None and len(old.uses()) == 1 and not old.is_graph_output()
        if old is not None and alone and constant_tensor(old) is not None:
            set_constant(old, bias, dtype)
            return
        name = free_name(f"{weight.value.name}.bias", self._taken)
        new = add_constant(weight.value, name, ".bias", ir.Tensor(bias, dtype=dtype, name=name))
        node.resize_inputs(max(len(node.inputs), index + 1))
        node.replace_input_with(index, new)

    def _drop(self, value: ir.Value | None) -> None:
        """Remove a constant that nothing reads any more, and what reshaped it."""
        if value is None or is_read(value):
            return
        maker = value.producer()
        if constant_tensor(value) is not None:
            if self.fixed(value):
                drop_constant(value)
        elif maker is not None and maker.graph is not None and maker.op_type in RESHAPING:
            inputs = tuple(maker.inputs)
            maker.graph.remove(maker, safe=True)
            for each in inputs:
                self._drop(each)


def folding_notes(folded: Sequence[Folded]) -> Iterator[str]:
    """What the reader of a report should know of nodes that are gone, if any are."""
    if not folded:
        return
    kinds = dict.fromkeys(node.op_type for node in folded)
    shown = some([node.name for node in folded])
    nodes = "node was" if len(folded) == 1 else "nodes were"
    yield (
        f"{len(folded):,} {' and '.join(kinds)} {nodes} folded into the sparse layers before them ({shown}): "
        "their constants are gone, or changed; --format dense keeps them."
    )


def _scaled(array: np.ndarray, factor: np.ndarray, axis: int) -> np.ndarray:
    """An array times the factor (float64) of each place of `axis`, rounded once to its dtype; itself, if that is 1."""
    if (factor == 1).all():
        return array
    across = on_axis(factor, axis, array.ndim)
    return np.multiply(array, across, out=np.empty_like(array, order="C"), casting="same_kind")


def _unshaped(value: ir.Value | None) -> ir.Value | None:
    """What a value is reshaped from, or the value itself."""
    while value is not None and (maker := value.producer()) is not None:
        if maker.domain or maker.op_type not in RESHAPING:
            break
        value = maker.inputs[0]
    return value


def _make_sum(node: ir.Node, product: ir.Value) -> int:
    """Make an affine node the sum of `product` and a constant; the index of the latter."""
    index = 1
    if node.op_type not in SUMS:
        node.resize_inputs(1)
    elif constant_tensor(_unshaped(node.inputs[0])) is not None:
        index = 0
    node.replace_input_with(1 - index, product)
    node.op_type = "Add"
    node.attributes.clear()
    return index


def _take_over(value: ir.Value, old: ir.Value) -> None:
    """Put a value in the place of another, under its name."""
    value.type, value.shape, value.doc_string = old.type, old.shape, old.doc_string
    value.metadata_props.clear()
    value.metadata_props.update(old.metadata_props)
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    value.name, old.name = old.name, None
