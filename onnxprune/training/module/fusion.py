"""Fusing operators that exporters decompose: torch's fused functions are faster and need less memory for gradients.

    x * (1 + erf(x / sqrt(2))) / 2                            gelu(x)
    x * sigmoid(x)                                            silu(x)
    (x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias     layer_norm(x)
    x @ weight + bias                                         linear(x)
    softmax(query @ key * scale + mask) @ value               scaled_dot_product_attention(query, key, value)
    relu(conv(x)), relu(batch_norm(x)), relu(x + y)           relu in place: no gradient needs the overwritten values
    clip(conv(x)), ...                                        the same

Operands of sums and products can be in any order. A rule applies if no other node reads the intermediate values.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from onnxprune.training.module.ops.convolution import convolve
from onnxprune.training.module.ops.elementwise import div, held, power
from onnxprune.training.module.ops.reductions import reduce_mean
from onnxprune.training.module.ops.table import opaque

# Exported constants are rounded to their element type, float16 at worst.
ROUNDING = 1e-3

Found = tuple[Callable[..., Any], tuple[Any, ...]]


def fuse(root: nn.Module, graph: fx.Graph) -> None:
    """Apply the rules to a graph in place; `root` holds its constants."""
    match = _Match(root)
    for node in graph.nodes:
        rules = _RULES.get(node.target, ()) if node.op == "call_function" else ()
        found = next((found for rule in rules if (found := rule(match, node)) is not None), None)
        if found is not None:
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_function(*found))
            _erase(graph, node)


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """Remove a node without users, and its operands that have no other users."""
    if not node.users and node.op != "placeholder":
        operands = node.all_input_nodes
        graph.erase_node(node)
        for operand in operands:
            _erase(graph, operand)


class _Match:
    """Questions about the nodes of one graph."""

    def __init__(self, root: nn.Module):
        self._root = root

    def constant(self, value: Any) -> Tensor | None:
        """The parameter or buffer that a node reads."""
        if not isinstance(value, fx.Node) or value.op != "get_attr":
            return None
        held: Any = self._root
        for part in str(value.target).split("."):
            held = getattr(held, part)
        return held

    def number(self, value: Any) -> float | None:
        """The only element of a buffer."""
        tensor = self.constant(value)
        if tensor is None or tensor.numel() != 1 or isinstance(tensor, nn.Parameter):
            return None
        return float(tensor)

    def is_number(self, value: Any) -> bool:
        return self.number(value) is not None

    def is_row(self, value: Any) -> bool:
        """Whether a node reads a constant vector."""
        tensor = self.constant(value)
        return tensor is not None and tensor.dim() == 1

    def scaled(self, node: Any) -> tuple[Any, float]:
        """A node as another one times a number: (x, 0.5) for x * 0.5 or x / 2 with a single user."""
        parts = _split(node, operator.mul, self.is_number)
        if parts is not None and len(node.users) == 1:
            return parts[1], self.number(parts[0]) or 0.0
        if _calls(node, div, alone=True) and (divisor := self.number(node.args[1])):
            return node.args[0], 1 / divisor
        return node, 1.0


def _calls(value: Any, function: Any, *, alone: bool = False) -> bool:
    """Whether a value is the result of a function; `alone`: and has a single user."""
    return isinstance(value, fx.Node) and value.target is function and (not alone or len(value.users) == 1)


def _split(node: Any, function: Any, wanted: Callable[[Any], bool]) -> tuple[Any, Any] | None:
    """The operand of a sum or product that is `wanted`, and the other one."""
    if not _calls(node, function):
        return None
    a, b = node.args
    if wanted(a):
        return a, b
    return (b, a) if wanted(b) else None


def _gelu(match: _Match, product: fx.Node) -> Found | None:
    """The product of x, 0.5 and 1 + erf(x / sqrt(2)), in any order."""
    factors = _factors(product)
    sums = [factor for factor in factors if _calls(factor, operator.add, alone=True)]
    halves = [factor for factor in factors if match.number(factor) == 0.5]
    others = [factor for factor in factors if factor not in sums + halves]
    if not len(sums) == len(halves) == len(others) == 1:
        return None
    parts = _split(sums[0], operator.add, lambda value: match.number(value) == 1)
    if parts is None or not _calls(parts[1], torch.erf, alone=True):
        return None
    x, root = match.scaled(parts[1].args[0])
    if x is not others[0] or not math.isclose(root, 2**-0.5, rel_tol=ROUNDING):
        return None
    return F.gelu, (x,)


def _factors(product: fx.Node) -> list[Any]:
    """The factors of a product, including those of nested products with a single user."""
    factors: list[Any] = []
    for operand in product.args:
        if isinstance(operand, fx.Node) and _calls(operand, operator.mul, alone=True):
            factors += _factors(operand)
        else:
            factors.append(operand)
    return factors


def _silu(match: _Match, product: fx.Node) -> Found | None:
    parts = _split(product, operator.mul, lambda value: _calls(value, torch.sigmoid, alone=True))
    return (F.silu, (parts[1],)) if parts and parts[0].args[0] is parts[1] else None


def _layer_norm(match: _Match, total: fx.Node) -> Found | None:
    """Over the last axis; the centered x may be computed twice."""
    biased = _split(total, operator.add, match.is_row)
    scaled = biased and _split(biased[1], operator.mul, match.is_row)
    if not biased or not scaled or len(biased[1].users) > 1 or not _calls(scaled[1], div, alone=True):
        return None
    centered, deviation = scaled[1].args
    if not _calls(centered, operator.sub) or not _calls(deviation, torch.sqrt, alone=True):
        return None
    shifted = _split(deviation.args[0], operator.add, match.is_number)
    x = centered.args[0]
    if (
        shifted is None
        or not _is_mean(centered.args[1], x)
        or not _calls(shifted[1], reduce_mean, alone=True)
    ):
        return None
    square = shifted[1].args[0]
    if not _calls(square, power, alone=True) or match.number(square.args[1]) != 2:
        return None
    again = square.args[0]
    if not _calls(again, operator.sub) or again.args[0] is not x or not _is_mean(again.args[1], x):
        return None
    between = {reader for node in (centered, again) for reader in node.users}
    scale, bias = match.constant(scaled[0]), match.constant(biased[0])
    assert scale is not None and bias is not None
    if not _is_mean(shifted[1], square) or between != {scaled[1], square} or scale.shape != bias.shape:
        return None
    return F.layer_norm, (x, tuple(scale.shape), scaled[0], biased[0], match.number(shifted[0]))


def _is_mean(node: Any, x: Any) -> bool:
    """Whether a node is the mean of x over its last axis, with keepdims."""
    if not _calls(node, reduce_mean) or node.args[0] is not x:
        return False
    axes = node.kwargs.get("axes", node.args[1] if len(node.args) > 1 else None)
    return axes is not None and tuple(axes) == (-1,) and node.kwargs.get("keepdims", 1) == 1


def _linear(match: _Match, total: fx.Node) -> Found | None:
    parts = _split(total, operator.add, match.is_row)
    if parts is None or not _calls(parts[1], torch.matmul, alone=True):
        return None
    x, weight = parts[1].args
    matrix, bias = match.constant(weight), match.constant(parts[0])
    assert bias is not None
    if matrix is None or matrix.dim() != 2 or matrix.shape[1] != len(bias):
        return None
    return linear_by_columns, (x, weight, parts[0])


@opaque
def linear_by_columns(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x @ weight + bias; weight: (inputs, outputs), bias: (outputs,)."""
    return F.linear(x, weight.t(), bias)


def _attention(match: _Match, product: fx.Node) -> Found | None:
    weights, value = product.args
    if not isinstance(weights, fx.Node) or not _calls(weights, torch.softmax, alone=True):
        return None
    if weights.args[1] not in (-1, 3):
        return None
    scores, mask = weights.args[0], None
    if _calls(scores, operator.add, alone=True):
        parts = _split(scores, operator.add, functools.partial(_is_scores, match))
        if parts is None:
            return None
        scores, mask = parts
    if not _is_scores(match, scores):
        return None
    raw, scale = match.scaled(scores)
    (query, query_scale), (key, key_scale) = map(match.scaled, raw.args)
    return attend, (query, key, value, mask, scale * query_scale * key_scale)


def _is_scores(match: _Match, value: Any) -> bool:
    return _calls(match.scaled(value)[0], torch.matmul, alone=True) and len(value.users) == 1


@opaque
def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(query @ key * scale + mask) @ value; query: (..., S, D), key: (..., D, T), value: (..., T, E)."""
    heads = query.shape[:-2]
    if len(heads) == 2 and heads == key.shape[:-2] == value.shape[:-2] and _fits(mask, query, key):
        return F.scaled_dot_product_attention(query, key.transpose(-1, -2), value, mask, scale=scale)
    scores = torch.matmul(query, key) * scale
    return torch.matmul(torch.softmax(scores if mask is None else scores + mask, -1), value)


def _fits(mask: Tensor | None, query: Tensor, key: Tensor) -> bool:
    """Whether a mask broadcasts to the shape of the scores without enlarging it."""
    if mask is None:
        return True
    shape = (*query.shape[:-1], key.shape[-1])
    pairs = zip(reversed(mask.shape), reversed(shape), strict=False)
    return mask.dim() in (2, 4) and all(size in (1, whole) for size, whole in pairs)


def _relu_in_place(match: _Match, relu: fx.Node) -> Found | None:
    (x,) = relu.args
    return (torch.relu_, (x,)) if _is_overwritable(x) else None


def _held_in_place(match: _Match, limit: fx.Node) -> Found | None:
    x, low, high = limit.args
    return (hold, (x, low, high)) if _is_overwritable(x) else None


def _is_overwritable(value: Any) -> bool:
    """Whether a value is a new tensor that nothing else reads, also no gradient."""
    return any(_calls(value, function, alone=True) for function in (F.batch_norm, operator.add, convolve))


@opaque
def hold(x: Tensor, low: Any, high: Any) -> Tensor:
    """`held`, in place where torch can."""
    return held(x, low, high, in_place=True)


Rule = Callable[[_Match, fx.Node], Found | None]

# The last function of a pattern, and the rules for it.
_RULES: dict[Any, tuple[Rule, ...]] = {
    operator.add: (_layer_norm, _linear),
    operator.mul: (_gelu, _silu),
    torch.matmul: (_attention,),
    torch.relu: (_relu_in_place,),
    held: (_held_in_place,),
}
