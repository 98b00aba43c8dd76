"""The intermediate values whose distance from the teacher's is part of the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir

from onnxprune.config.declare import AUTO
from onnxprune.config.training import LossSettings
from onnxprune.errors import SettingError
from onnxprune.model.constants import constant_tensor
from onnxprune.model.shapes.inference import infer_shapes
from onnxprune.pruning.selectors import matching
from onnxprune.training.module.norms import ACTIVATIONS, restored_norms

MOST_FEATURES = 6
# The size of images where the model leaves it open.
SOME_SIZE = 224
_SEQUENCE_NORMS = frozenset(
    {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
    | {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization"}
)
# What ends a stage of a convolutional network: no pooling, and no reshaping.
_ENDS = ACTIVATIONS | {"Add", "BatchNormalization", "Concat", "Conv", "ConvTranspose", "Mul", "Sum"}

Named = dict[str, ir.Value]


def features(model: ir.Model, settings: LossSettings) -> list[str]:
    """The names of the intermediate values that `--distill-features` selects, each once.

    The result of a layer is that of the norm that was put back behind it.

    Raises:
        SelectorError: a selector matches nothing.
        SettingError: "auto" finds nothing.
    """
    if not settings.distill_features:
        return []
    named: Named = {
        value.name: value for node in model.graph for value in node.outputs if value.name and value.uses()
    }
    types = {name: _type(value) for name, value in named.items()}
    for norm in restored_norms(model):
        result = norm.node.outputs[0].name or ""
        named[norm.layer.result.name or ""] = named.pop(result)
    chosen = [
        named[name].name or ""
        for selector in settings.distill_features
        for name in (
            _automatic(model, named)
            if selector == AUTO
            else matching(selector, {name: types[name] for name in named}, "value of the graph")
        )
    ]
    return list(dict.fromkeys(chosen))


def _type(value: ir.Value) -> str:
    node = value.producer()
    return "" if node is None else node.op_type


def _automatic(model: ir.Model, named: Named) -> list[str]:
    """The values that "auto" stands for, at most `MOST_FEATURES`.

    Of a transformer the results of its norms over sequences, or of its residual sums if it has no such nodes; of a
    convolutional network the last result of each spatial size.
    """
    shapes = infer_shapes(model, _sized(model))
    hidden = {name: value for name, value in named.items() if not value.is_graph_output()}
    found = (
        _spread([name for name, value in hidden.items() if _is_sequence_norm(value, shapes)])
        or _spread([name for name, value in hidden.items() if _is_residual_sum(value, shapes)])
        or list(_stage_ends(hidden, shapes))[-MOST_FEATURES:]
    )
    if not found:
        raise SettingError(
            "--distill-features auto finds neither stages of convolutions nor blocks of a transformer: give names of "
            "values"
        )
    return found


def _sized(model: ir.Model) -> dict[str, list[int]] | None:
    """The shapes of the inputs with a size for images (N, C, H, W) that have none; None if there are none."""
    sized = {}
    for value in model.graph.inputs:
        sizes = [] if value.shape is None else list(value.shape)
        if len(sizes) == 4 and not all(isinstance(size, int) for size in sizes[2:]):
            batch = sizes[0] if isinstance(sizes[0], int) else 1
            sized[value.name or ""] = [
                batch,
                *(size if isinstance(size, int) else SOME_SIZE for size in sizes[1:]),
            ]
    return sized or None


def _spread(names: list[str]) -> list[str]:
    """At most `MOST_FEATURES`, evenly spaced, the last one among them."""
    if len(names) <= MOST_FEATURES:
        return names
    ends = ((len(names) - 1) * (index + 1) / MOST_FEATURES for index in range(MOST_FEATURES))
    return [names[round(end)] for end in ends]


def _is_sequence_norm(value: ir.Value, shapes: Mapping[ir.Value, Any]) -> bool:
    node = value.producer()
    is_norm = node is not None and node.op_type in _SEQUENCE_NORMS and node.outputs[0] is value
    return is_norm and len(shapes.get(value, ())) in (0, 3)


def _is_residual_sum(value: ir.Value, shapes: Mapping[ir.Value, Any]) -> bool:
    """A sum of two computed values of shape (N, T, C)."""
    node = value.producer()
    if node is None or node.op_type != "Add" or len(shapes.get(value, ())) != 3:
        return False
    shape = shapes[value]
    return all(
        operand is not None and constant_tensor(operand) is None and shapes.get(operand) == shape
        for operand in node.inputs
    )


def _stage_ends(hidden: Named, shapes: Mapping[ir.Value, Any]) -> Iterator[str]:
    """The last value of each spatial size, of rank 3 to 5 and with more than one place, in the order of the graph."""
    last: dict[tuple[Any, ...], str] = {}
    for name, value in hidden.items():
        node, places = value.producer(), tuple(shapes.get(value, ()))[2:]
        if node is None or node.op_type not in _ENDS or not 1 <= len(places) <= 3:
            continue
        if all(place == 1 for place in places) or not all(isinstance(place, int) for place in places):
            continue
        last.pop(places, None)
        last[places] = name
    yield from last.values()
