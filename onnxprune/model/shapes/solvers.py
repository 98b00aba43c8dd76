"""Shapes of the outputs of single nodes, beyond what ONNX infers: of computed and symbolic sizes, and other domains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnxprune.model.shapes import sizes
from onnxprune.model.shapes.sizes import Dim
from onnxprune.model.slots import MICROSOFT

LARGEST_RANK = 8
# Prefix of the names that ONNX generates for unknown sizes; another inference may use them for other sizes.
GENERATED_PREFIX = "unk__"
CLASSICAL = "ai.onnx.ml"  # pipelines of scikit-learn, as skl2onnx writes them

Shape = tuple[Dim, ...]
Shapes = Mapping[str, Shape | None]


class Values:
    """The shapes of a graph's values, and the elements of values that are computed from shapes.

    ONNX's inference computes these only since opset 13, and no products with symbolic sizes.
    """

    def __init__(self, graph: onnx.GraphProto, shapes: Shapes):
        self.shapes = shapes
        self._makers = {name: node for node in graph.node for name in node.output}
        self._products = {
            node.input[0]: node for node in graph.node if node.op_type == "MatMul" and not node.domain
        }
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._found: dict[str, np.ndarray | None] = {}

    def columns_read(self, name: str) -> Dim:
        """How many columns a value must have, since it is multiplied with a matrix of as many rows; or None."""
        node = self._products.get(name)
        rows = None if node is None else self.shapes.get(node.input[1])
        return rows[-2] if rows is not None and len(rows) > 1 and isinstance(rows[-2], int) else None

    def elements(self, name: str) -> list[Dim] | None:
        """The elements of a small integer vector or scalar, -1 included; None for an unknown element."""
        found = self._elements(name)
        return None if found is None else [element.dim for element in found.ravel()]

    def _elements(self, name: str) -> np.ndarray | None:
        if name not in self._found:
            self._found[name] = self._evaluate(name)
        return self._found[name]

    def _evaluate(self, name: str) -> np.ndarray | None:
        node = self._makers.get(name)
        tensor = self._stored.get(name)
        if node is not None and node.op_type == "Constant":
            tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if tensor is not None:
            small = math.prod(tensor.dims) <= sizes.LARGEST and tensor.data_type in sizes.INTEGERS
            return sizes.constants(onnx.numpy_helper.to_array(tensor)) if small else None
        if node is None or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Shape":
            shape = self.shapes.get(node.input[0])
            if shape is None:
                return None
            start, end = (
                next((a.i for a in node.attribute if a.name == name), None) for name in ("start", "end")
            )
            found = np.empty(len(shape), object)
            found[:] = [sizes.Element(dim) for dim in shape]
            return found[start:end]
        if node.op_type not in sizes.FOLLOWED:
            return None
        return sizes.evaluate(
            node.op_type,
            [self._elements(operand) for operand in node.input],
            {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute},
            self.shapes.get(name),
        )


def _solve_reshape(node: onnx.NodeProto, values: Values) -> Shape | None:
    """The shape of a Reshape's output, if ONNX leaves one size open that follows from the others; else None.

    ("N", 16, 5, 5) to ("N", None) gives ("N", 400); ("N", "T", 32) to ("N", None, 4, 8) gives ("N", "T", 4, 8).
    """
    left, inferred = values.shapes.get(node.input[0]), values.shapes.get(node.output[0])
    copies = not _attribute(node, "allowzero")
    target = values.elements(node.input[1])
    right = _target_shape(left, target) if copies or (target is not None and 0 not in target) else None
    if left is not None and right is not None and target is not None and target.count(-1) == 1:
        given = [
            left[axis] if dim == 0 and copies and axis < len(left) else dim for axis, dim in enumerate(target)
        ]
        # Symbols that ONNX's inference generated cancel in the quotient: it is used where it is an integer.
        inferred_size = sizes.over(sizes.times(*left), sizes.times(*(dim for dim in given if dim != -1)))
        if isinstance(inferred_size, int):
            right = tuple(
                inferred_size if dim == -1 else made for dim, made in zip(target, right, strict=True)
            )
    right = _merged(inferred, right)
    better = right if right != inferred else None
    if left is None or right is None or 0 in left:
        return better
    open_axes = [axis for axis, dim in enumerate(right) if not _named(dim, left)]
    rest = [dim for axis, dim in enumerate(right) if axis not in open_axes]
    missing = sizes.over(sizes.times(*left), sizes.times(*rest)) if len(open_axes) == 1 else None
    if missing is None and len(right) - 1 in open_axes:
        columns = values.columns_read(node.output[0])
        return _better((*right[:-1], columns), inferred) if columns else better
    if missing is None or is_generated(missing):
        return better
    return tuple(missing if axis in open_axes else dim for axis, dim in enumerate(right))


def known(shape: Shape) -> tuple[int, int]:
    """How many sizes are numbers, and how many are known at all."""
    return sum(isinstance(dim, int) for dim in shape), sum(
        dim is not None and not is_generated(dim) for dim in shape
    )


def _merged(one: Shape | None, other: Shape | None) -> Shape | None:
    """What is known of a shape from two sources: a number before a name, and the first source's before the other's."""
    if one is None or other is None or len(one) != len(other):
        return other if one is None else one
    return tuple(
        min((a, b), key=lambda dim: (not isinstance(dim, int), dim is None or is_generated(dim)))
        for a, b in zip(one, other, strict=True)
    )


def _named(dim: Dim, shape: Shape) -> bool:
    """Whether a size is a number or made of names of the shape."""
    found = sizes.factors(dim)
    names = {name for other in shape for name in (sizes.factors(other) or (1, ()))[1]}
    return found is not None and names.issuperset(found[1])


def _plain(attribute: Any) -> Any:
    return onnx.numpy_helper.to_array(attribute) if isinstance(attribute, onnx.TensorProto) else attribute


def is_generated(dim: Dim) -> bool:
    return isinstance(dim, str) and GENERATED_PREFIX in dim


def _target_shape(left: Shape | None, target: list[Dim] | None) -> Shape | None:
    """A Reshape's output shape from its target: 0 is the size of the input there, -1 is unknown."""
    if left is None or target is None or len(target) > LARGEST_RANK:
        return None
    copied = [left[axis] if dim == 0 and axis < len(left) else dim for axis, dim in enumerate(target)]
    return tuple(None if dim == -1 or is_generated(dim) else dim for dim in copied)


def _solve_broadcast(node: onnx.NodeProto, values: Values) -> Shape | None:
    """The named size of an operand, where those of the others are not known.

    Where the model runs for every number of that name, they are equal to it, or 1.
    """
    shapes = [values.shapes.get(name) for name in node.input if name]
    return _better(_broadcast(shapes), values.shapes.get(node.output[0]))


def _solve_matmul(node: onnx.NodeProto, values: Values) -> Shape | None:
    """The same for the batch axes of a product."""
    left, right = (values.shapes.get(name) for name in node.input)
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    batch = _broadcast([left[:-2], right[:-2]])
    return _better(
        None if batch is None else (*batch, left[-2], right[-1]), values.shapes.get(node.output[0])
    )


def _broadcast(shapes: Sequence[Shape | None]) -> Shape | None:
    if any(shape is None for shape in shapes):
        return None
    rank = max(len(shape or ()) for shape in shapes)
    padded = [(1,) * (rank - len(shape or ())) + tuple(shape or ()) for shape in shapes]
    dims: list[Dim] = []
    for operands in zip(*padded, strict=True):
        known = {dim for dim in operands if dim not in (None, 1) and not is_generated(dim)}
        alone = not known and set(operands) == {1}
        dims.append(known.pop() if len(known) == 1 else 1 if alone else None)
    return tuple(dims)


def _better(found: Shape | None, inferred: Shape | None) -> Shape | None:
    """What is found and inferred, where that is more than what is inferred."""
    merged = _merged(inferred, found)
    if merged is None or inferred is None or known(merged) > known(inferred):
        return merged
    return None


def _solve_expand(node: onnx.NodeProto, values: Values) -> Shape | None:
    """Each size of the target, or the one of the input where the target says 1."""
    data, target, inferred = (
        values.shapes.get(node.input[0]), values.elements(node.input[1]), values.shapes.get(node.output[0]),
    )  # fmt: skip
    if data is None or target is None or len(target) > LARGEST_RANK:
        return None
    rank = max(len(data), len(target))
    sides = [(1,) * (rank - len(side)) + tuple(side) for side in (data, target)]
    dims: list[Dim] = []
    for own, given in zip(*sides, strict=True):
        known = [dim for dim in (own, given) if dim is not None and not is_generated(dim) and dim != 1]
        both_known = None not in (own, given) and not is_generated(own) and not is_generated(given)
        dims.append(known[0] if len(set(known)) == 1 else 1 if both_known and not known else None)
    return _better(tuple(dims), inferred)


def _solve_slice(node: onnx.NodeProto, values: Values) -> Shape | None:
    """The lengths of slices of static axes between bounds that are computed; those of other axes stay.

    Where bounds are computed, ONNX leaves all axes open.
    """
    data, inferred = values.shapes.get(node.input[0]), values.shapes.get(node.output[0])
    bounds = [values.elements(name) if name else None for name in node.input[1:]]
    if data is None or len(bounds) < 2 or inferred is None:
        return None
    count = len(bounds[0] or ())
    given: list[Sequence[Dim] | None] = [*bounds, *([None] * (4 - len(bounds)))]
    for place, default in ((2, list(range(count))), (3, [1] * count)):
        if len(node.input) <= place + 1 or not node.input[place + 1]:
            given[place] = default
    dims = list(inferred)
    sliced: set[int] = set()
    for numbers in zip(*(part or () for part in given), strict=False):
        start, end, axis, step = (number if isinstance(number, int) else None for number in numbers)
        if start is None or end is None or axis is None or not step or not -len(data) <= axis < len(data):
            return None
        length = data[axis]
        sliced.add(axis % len(data))
        if isinstance(length, int):
            dims[axis] = len(range(length)[start:end:step])
    others = _merged(tuple(dims), data) if sliced and len(dims) == len(data) else None
    if others is not None:
        dims = [dim if axis in sliced else others[axis] for axis, dim in enumerate(dims)]
    return _better(tuple(dims), inferred)


def _solve_pad(node: onnx.NodeProto, values: Values) -> Shape | None:
    """The sizes of axes that are padded by computed widths; those that get nothing stay, whatever they are."""
    data = values.shapes.get(node.input[0])
    widths = values.elements(node.input[1]) if len(node.input) > 1 else None
    if data is None or widths is None or len(widths) != 2 * len(data) or any(node.input[3:]):
        return None
    dims: list[Dim] = []
    for dim, before, after in zip(data, widths[: len(data)], widths[len(data) :], strict=True):
        both = before + after if isinstance(before, int) and isinstance(after, int) else None
        dims.append(dim if both == 0 else dim + both if isinstance(dim, int) and both is not None else None)
    return _better(tuple(dims), values.shapes.get(node.output[0]))


def _solve_fused_matmul(node: onnx.NodeProto, values: Values) -> Shape | None:
    left, right = values.shapes.get(node.input[0]), values.shapes.get(node.input[1])
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    longer = left if len(left) >= len(right) else right
    rows = left[-1] if _attribute(node, "transA") else left[-2]
    columns = right[-2] if _attribute(node, "transB") else right[-1]
    return (*longer[:-2], rows, columns)


def _solve_attention(node: onnx.NodeProto, values: Values) -> Shape | None:
    """(batch, length, hidden): hidden is the size of the values, which may be part of a packed projection."""
    data = values.shapes.get(node.input[0])
    other = values.shapes.get(node.input[1]) if len(node.input) > 1 else None
    if data is None or other is None or len(data) != 3:
        return None
    if node.op_type in ("Attention", "QAttention"):
        sizes = next((list(a.ints) for a in node.attribute if a.name == "qkv_hidden_sizes"), None)
        packed = other[-1]
        width = sizes[2] if sizes else packed // 3 if isinstance(packed, int) else None
        return (data[0], data[1], width)
    value = values.shapes.get(node.input[2]) if len(node.input) > 2 else None
    return None if value is None or len(value) != 3 else (data[0], data[1], value[2])


def _solve_grouped_attention(node: onnx.NodeProto, values: Values) -> Shape | None:
    """The shape of the queries; of queries, keys and values in one array, the queries' part."""
    data, heads = values.shapes.get(node.input[0]), _attribute(node, "num_heads")
    if data is None or len(data) != 3 or (len(node.input) > 1 and node.input[1]):
        return data
    width, whole = data[2], heads + 2 * _attribute(node, "kv_num_heads")
    return (data[0], data[1], width * heads // whole if isinstance(width, int) and whole else None)


def _solve_embedding(node: onnx.NodeProto, values: Values) -> Shape | None:
    """(batch, length, hidden): ids (batch, length), word embeddings (words, hidden)."""
    ids, words = values.shapes.get(node.input[0]), values.shapes.get(node.input[2])
    return None if ids is None or words is None or len(ids) != 2 else (*ids, words[1])


def _solve_like_first(node: onnx.NodeProto, values: Values) -> Shape | None:
    """The shape of the first input."""
    return values.shapes.get(node.input[0])


def _solve_tile(node: onnx.NodeProto, values: Values) -> Shape | None:
    """Each size as often as it is repeated; ONNX drops the names of those that are not."""
    data, repeats = values.shapes.get(node.input[0]), values.elements(node.input[1])
    if data is None or repeats is None or len(repeats) != len(data):
        return None
    dims = tuple(sizes.times(*pair) for pair in zip(data, repeats, strict=True))
    return _better(dims, values.shapes.get(node.output[0]))


def _solve_targets(node: onnx.NodeProto, values: Values) -> Shape | None:
    """(rows, targets) of a regressor of ai.onnx.ml."""
    data, targets = values.shapes.get(node.input[0]), _attribute(node, "targets")
    return None if data is None or len(data) != 2 else (data[0], targets or 1)


BROADCASTING = ("Add", "And", "Div", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Sum", "Where")
SOLVERS: dict[tuple[str, str], Callable[[onnx.NodeProto, Values], Shape | None]] = {
    ("", "Reshape"): _solve_reshape,
    ("", "Expand"): _solve_expand,
    ("", "MatMul"): _solve_matmul,
    ("", "Slice"): _solve_slice,
    ("", "Pad"): _solve_pad,
    ("", "Tile"): _solve_tile,
    # onnxruntime's optimizer writes it in models of opsets that have none, too.
    ("", "LayerNormalization"): _solve_like_first,
    **{("", op_type): _solve_broadcast for op_type in BROADCASTING},
    (MICROSOFT, "FusedMatMul"): _solve_fused_matmul,
    (MICROSOFT, "Attention"): _solve_attention,
    (MICROSOFT, "QAttention"): _solve_attention,
    (MICROSOFT, "EmbedLayerNormalization"): _solve_embedding,
    (MICROSOFT, "GroupQueryAttention"): _solve_grouped_attention,
    (MICROSOFT, "MultiHeadAttention"): _solve_attention,
    **{(CLASSICAL, op_type): _solve_like_first for op_type in ("Imputer", "Normalizer", "Scaler")},
    (CLASSICAL, "LinearRegressor"): _solve_targets,
    (CLASSICAL, "SVMRegressor"): _solve_targets,
}

# Operators of which further outputs have the shape and type of the first one.
OTHERS_ALIKE = {"EmbedLayerNormalization": (2,)}
# Operators whose output has the element type of another input than the first.
TYPED_BY = {"EmbedLayerNormalization": 2, "QAttention": 2, "Where": 1}
# Operators whose output is float32, whatever they read.
FLOATS = frozenset({"LinearRegressor", "Normalizer", "SVMRegressor", "Scaler"})


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)
