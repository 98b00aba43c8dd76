"""The prunable weights of a model, each with its nodes and a view as an (out, in) matrix."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.model.computed import computed_nodes, constants_behind
from onnxprune.model.constants import constant_tensor, constants, set_constant
from onnxprune.model.encoding import Encoding
from onnxprune.model.functions import obstacle
from onnxprune.model.names import name_of
from onnxprune.model.operands import operand
from onnxprune.model.reading import FLOAT_TYPES, QUANTIZING, Use, encoding_of, out_axis_of, source
from onnxprune.model.slots import UNHANDLED, domain_of, embedding_slots, slots

# Smaller constants of other operators are no weights worth naming, such as anchors and masks.
NAMED_SHARE = 0.001
NO_WEIGHT_TYPES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.STRING)
EMBEDDING = "it is an embedding, which is pruned where --include names it"


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant operand of an operator in `WEIGHT_SLOTS`; one that several nodes share is one weight.

    `name`: of the initializer (or of the Constant node's output), made unique by `#2`, `#3` where subgraphs repeat one.
    `out_axis`: the axis of output channels or neurons, for the first use. The zero of a quantized weight is its zero
    point.
    """

    name: str
    value: ir.Value
    uses: tuple[Use, ...]
    out_axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape.numpy())

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The stored tensor, in its own dtype."""
        tensor = constant_tensor(self.value)
        assert tensor is not None, self.name
        return tensor

    @property
    def encoding(self) -> Encoding:
        """The encoding of the stored numbers, in the current graph."""
        found = encoding_of(self.uses[0], self.value)
        assert isinstance(found, Encoding), (self.name, found)
        return found

    @property
    def quantized(self) -> bool:
        """Whether the weight is stored as integers."""
        return self.tensor.dtype not in FLOAT_TYPES

    @property
    def op_type(self) -> str:
        return self.uses[0].node.op_type

    @property
    def in_axis(self) -> int:
        """The axis of inputs: the other one of the first two axes of a convolution, or of the two axes of a product."""
        if "Conv" in self.op_type:
            return 1 - self.out_axis
        rank = len(self.shape)
        return min(max(2 * rank - 3 - self.out_axis, 0), rank - 1)

    @property
    def node_names(self) -> tuple[str, ...]:
        """What its nodes are called, those without a name by their first output."""
        return tuple(name_of(use.node) for use in self.uses)

    def array(self) -> np.ndarray:
        """The weight's values in their own dtype; read-only, and possibly mapped from the file."""
        return self.tensor.numpy()

    def copy(self) -> np.ndarray:
        """A writable copy of the values in their own dtype, read from the file without mapping it as well."""
        tensor = self.tensor
        if not isinstance(tensor, ir.ExternalTensor) or tensor.dtype.bitwidth < 8:
            return self.array().copy()
        dtype = np.dtype(tensor.dtype.numpy())
        array = np.fromfile(tensor.path, dtype.newbyteorder("<"), self.size, offset=tensor.offset or 0)
        return array.astype(dtype, copy=False).reshape(self.shape)

    def numbers(self) -> np.ndarray:
        """The dequantized values, float32; the values themselves, read-only, if they are not quantized."""
        return self.encoding.decode(self.array())

    def present(self) -> np.ndarray:
        """Which elements are not zero, of the weight's shape, bool."""
        return self.encoding.present(self.array())

    def clear_zeros(self, mask: np.ndarray) -> None:
        """Set the mask (bool, True = kept) to False where the weight is zero, in place."""
        np.logical_and(mask, self._truth(), out=mask)

    def nonzero(self) -> int:
        """Number of elements that are not zero."""
        return int(np.count_nonzero(self._truth()))

    def outputs_present(self) -> np.ndarray:
        """Which outputs have an element that is not zero, bool."""
        return np.asarray(self.matrix(self._truth()).any(axis=1))

    def _truth(self) -> np.ndarray:
        """An array that is true where an element is not zero: for floats the array itself, to save memory."""
        return self.present() if self.quantized else self.array()

    def matrix(self, array: np.ndarray | None = None) -> np.ndarray:
        """The weight (or another array of its shape) as an (out, in) view or copy."""
        array = self.array() if array is None else array
        if array.ndim < 2:
            return array.reshape(1, -1)
        return np.moveaxis(array, self.out_axis, 0).reshape(array.shape[self.out_axis], -1)

    def channels_last(self, array: np.ndarray) -> np.ndarray:
        """An array of the weight's shape as (rows, inputs): the inputs of one output at one kernel position."""
        return np.moveaxis(array, self.in_axis, -1).reshape(-1, self.shape[self.in_axis])

    def channels_back(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `channels_last`."""
        others = np.delete(self.shape, self.in_axis)
        return np.moveaxis(rows.reshape(*others, -1), -1, self.in_axis)

    def prune(self, removed: np.ndarray) -> None:
        """Zero elements in the model; `removed`: bool, of the weight's shape."""
        array = self.copy()
        np.copyto(array, self.encoding.zero, where=removed)
        self.assign(array)

    def assign(self, array: np.ndarray) -> None:
        """Replace the stored values by an array of the same shape, which is cast to the weight's dtype."""
        old = self.tensor
        assert array.shape == self.shape, (self.name, array.shape, self.shape)
        new = np.ascontiguousarray(array.astype(old.dtype.numpy(), copy=False))
        set_constant(self.value, new, old.dtype)


def constants_by_name(model: ir.Model) -> dict[str, ir.Value]:
    """Every constant by its name, the first one where subgraphs repeat one; weights by their unique names."""
    named: dict[str, ir.Value] = {}
    for value in constants(model):
        named.setdefault(value.name or "", value)
    return named | {weight.name: weight.value for weight in find_weights(model).prunable}


@dataclass(frozen=True)
class Unprunable:
    """A weight that is left as it is, and the reason; `size`: elements of its constants, each counted once."""

    node: str
    op_type: str
    weight: str
    reason: str
    size: int = 0


@dataclass(frozen=True)
class Weights:
    """The weights of a model that are pruned, those that are pruned only on request, and those that cannot be."""

    prunable: tuple[Weight, ...]
    embeddings: tuple[Weight, ...]
    unprunable: tuple[Unprunable, ...]

    @property
    def all(self) -> tuple[Weight, ...]:
        """Every weight of which the elements are known, pruned or not."""
        return (*self.prunable, *self.embeddings)

    @property
    def left(self) -> tuple[Unprunable, ...]:
        """What is left as it is, largest first; operands that are no weights, such as attention's, last."""
        embeddings = (
            Unprunable(weight.node_names[0], weight.op_type, weight.name, EMBEDDING, weight.size)
            for weight in self.embeddings
        )
        return tuple(sorted((*embeddings, *self.unprunable), key=lambda one: -one.size))

    def including(self, chosen: Collection[Weight]) -> Weights:
        """The same, with the chosen embeddings among those that are pruned."""
        added = tuple(weight for weight in self.embeddings if weight in chosen)
        rest = tuple(weight for weight in self.embeddings if weight not in chosen)
        return Weights((*self.prunable, *added), rest, self.unprunable)


@dataclass(frozen=True)
class _Left:
    """A weight that is left as it is, and the constants that it is, or is computed from."""

    weight: Unprunable
    constants: Sequence[ir.Value]


def find_weights(model: ir.Model) -> Weights:
    """Every weight of the operators in `WEIGHT_SLOTS`, subgraphs included, in node order, shared ones once.

    What else may be a weight is named with the reason why it is not pruned.
    """
    uses: dict[ir.Value, list[Use]] = {}
    looked_up: dict[ir.Value, list[Use]] = {}
    left: list[_Left] = []
    computed = computed_nodes(model)
    for node in model.graph.all_nodes():
        for use, reason in _weight_operands(node, computed):
            value = source(node.inputs[use.index])
            assert value is not None
            if reason is None:
                uses.setdefault(value, []).append(use)
            else:
                left.append(_left(use, value, reason, computed))
        for use in _embedding_operands(node):
            value = source(node.inputs[use.index])
            assert value is not None
            looked_up.setdefault(value, []).append(use)
    for function in model.functions.values():
        left += (_Left(weight, ()) for weight in _function_weights(function, model))
    embeddings = {value: found for value, found in looked_up.items() if value not in uses}
    names: dict[str, int] = {}
    prunable: list[Weight] = []
    tables: list[Weight] = []
    for value, value_uses in (uses | embeddings).items():
        name = value.name or ""
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name}#{names[name]}"
        weight = Weight(unique, value, tuple(value_uses), out_axis_of(value_uses[0], value))
        if _zeros_differ(weight):
            reason = "its nodes have different zero points for it"
            left += (_left(use, value, reason, computed) for use in value_uses)
        else:
            (tables if value in embeddings else prunable).append(weight)
    counted = {weight.value: weight.size for weight in (*prunable, *tables)}
    named = [_sized(one, counted) for one in left]
    named += _others(model, counted)
    return Weights(tuple(prunable), tuple(tables), tuple(named))


def _left(use: Use, value: ir.Value, reason: str, computed: Collection[ir.Node]) -> _Left:
    return _Left(_unprunable(use, value, reason), constants_behind(value, computed))


def _unprunable(use: Use, value: ir.Value, reason: str) -> Unprunable:
    return Unprunable(name_of(use.node), use.node.op_type, value.name or "", reason)


def _sized(one: _Left, counted: dict[ir.Value, int]) -> Unprunable:
    """With the number of elements that are not `counted` yet, and then are."""
    new = {value: size for value in one.constants if value not in counted and (size := _size(value)) > 1}
    counted |= new
    return replace(one.weight, size=sum(new.values()))


def _size(value: ir.Value) -> int:
    """The number of elements of a constant that may be a weight; 0 for shapes and the like."""
    tensor = constant_tensor(value)
    return 0 if tensor is None or tensor.dtype in NO_WEIGHT_TYPES else int(tensor.size)


def _others(model: ir.Model, counted: dict[ir.Value, int]) -> Iterator[Unprunable]:
    """Large matrices of floats, not zero, that only operators without a place for a weight read."""
    found = {}
    for value in constants(model):
        tensor = constant_tensor(value)
        assert tensor is not None
        matrix = tensor.dtype in FLOAT_TYPES and sum(dim > 1 for dim in tensor.shape.numpy()) > 1
        if matrix and value not in counted and value.uses() and not _is_parameter(value):
            found[value] = int(tensor.size)
    least = NAMED_SHARE * (sum(counted.values()) + sum(found.values()))
    for value, size in found.items():
        node, _ = next(iter(value.uses()))
        reason = f"no weights of {node.op_type} are pruned"
        tensor = constant_tensor(value)
        if size >= least and tensor is not None and tensor.numpy().any():
            yield Unprunable(name_of(node), node.op_type, value.name or "", reason, size)


def _is_parameter(value: ir.Value) -> bool:
    """Whether a constant is a bias, state or scale of an operator with a weight."""
    return all(slots(node) or (node.op_type in QUANTIZING and index) for node, index in value.uses())


def _embedding_operands(node: ir.Node) -> Iterator[Use]:
    for slot in embedding_slots(node):
        value = source(operand(node, slot.input_index))
        tensor = constant_tensor(value)
        if value is not None and tensor is not None and _is_array(tensor):
            use = Use(node, slot.input_index)
            if isinstance(encoding_of(use, value), Encoding):
                yield use


def _weight_operands(node: ir.Node, computed: Collection[ir.Node]) -> Iterator[tuple[Use, str | None]]:
    """Each operand that is or looks like a weight, with the reason why it cannot be pruned, or None."""
    uses = [Use(node, slot.input_index) for slot in slots(node) if slot.input_index < len(node.inputs)]
    sources = [source(node.inputs[use.index]) for use in uses]
    # If any operand may be the weight, a computed one is the data of the other.
    weighted = any(use.index == 0 for use in uses) and any(constant_tensor(value) for value in sources)
    for use, value in zip(uses, sources, strict=True):
        tensor = constant_tensor(value)
        if tensor is None:
            constant = value is not None and value.producer() in computed
            if value is not None and (constant or (use.index and not weighted)):
                yield use, _why_not_constant(value, constant)
        elif _is_array(tensor):
            assert value is not None
            encoding = encoding_of(use, value)
            yield use, encoding if isinstance(encoding, str) else None
        elif tensor.size and value is not node.inputs[use.index]:
            yield use, "it is stored as a vector that other nodes read too"
    reason = UNHANDLED.get((domain_of(node), node.op_type))
    for index, value in enumerate(node.inputs if reason else ()):
        tensor = constant_tensor(value)
        if tensor is not None and _is_array(tensor):
            yield Use(node, index), reason


def _is_array(tensor: ir.TensorProtocol) -> bool:
    """Whether a constant has the form of a weight: two axes or more, and elements (a layer of no channels has none)."""
    return len(tensor.shape) >= 2 and tensor.size > 0


def _zeros_differ(weight: Weight) -> bool:
    if not weight.quantized or len(weight.uses) == 1:
        return False
    found = [encoding_of(use, weight.value) for use in weight.uses]
    zeros = [each.zero for each in found if isinstance(each, Encoding)]
    return any((np.broadcast_to(zero, weight.shape) != zeros[0]).any() for zero in zeros)


def _why_not_constant(value: ir.Value, constant: bool) -> str:
    producer = value.producer()
    if producer is None:
        return "its weight is a graph input without a value"
    by = f"its weight is computed in the graph, by {producer.op_type} node {name_of(producer)!r}"
    if not constant:
        return by
    return f"{by}, from constants that other nodes read too or that are much smaller"


def _function_weights(function: ir.Function, model: ir.Model) -> Iterator[Unprunable]:
    reason, cause = f"it is inside the model-local function {function.name}", obstacle(function, model)
    if cause is not None:
        reason += f", which cannot be inlined because {cause}: inline it with onnx.inliner first"
    for node in function.all_nodes():
        for slot in slots(node):
            value = operand(node, slot.input_index)
            if value is not None and slot.input_index:
                yield _unprunable(Use(node, slot.input_index), value, reason)
