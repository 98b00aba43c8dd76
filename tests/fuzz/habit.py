"""What a small model of a habit of real exporters or runtimes is, and parts that many of them have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.builders import normal
from tests.fuzz.models import written

SAMPLES = 8


@dataclass(frozen=True)
class Habit:
    """A model and arrays for its inputs by name, samples along the batch axis; labels are class numbers."""

    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    settings: dict[str, object] = field(default_factory=dict)
    """Of every command that takes data, such as the batch axis."""


HABITS: dict[str, Callable[[], Habit]] = {}
Build = Callable[[], Habit]


def habit(name: str) -> Callable[[Build], Build]:
    """Enter a kind of model under its name."""

    def enter(build: Build) -> Build:
        HABITS[name] = build
        return build

    return enter


def classes(count: int = 4) -> np.ndarray:
    return np.arange(SAMPLES) % count


def dense(
    text: str, weights: dict[str, np.ndarray], *, opset: int = 17, labels: int | None = 4, inputs: int = 8
) -> Habit:
    """A model of one input x [N, inputs]."""
    return Habit(
        written(text, weights, opset=opset),
        {"x": normal(SAMPLES, inputs, seed=9)},
        None if labels is None else classes(labels),
    )


def images(text: str, weights: dict[str, np.ndarray], shape: tuple[int, ...], *, opset: int = 17) -> Habit:
    return Habit(written(text, weights, opset=opset), {"x": normal(SAMPLES, *shape, seed=9)})


TWO = {"w": normal(8, 16), "v": normal(16, 4, seed=1)}
"""Weights x (N, 8) -> (N, 16) -> (N, 4)."""


def mlp_of(
    body: str, extra: dict[str, np.ndarray] | None = None, *, opset: int = 17, out: str = "N,4"
) -> Habit:
    """x [N, 8] -> MatMul w -> `body`, h to r -> MatMul v -> y."""
    text = f"g (float[N,8] x) => (float[{out}] y) {{ h = MatMul (x, w) {body} y = MatMul (r, v) }}"
    return dense(text, TWO | (extra or {}), opset=opset)


def tail(body: str, outputs: str, extra: dict[str, np.ndarray] | None = None, *, opset: int = 17) -> Habit:
    """x [N, 8] -> MatMul w -> Relu -> MatMul v -> p [N, 4], and `body` after it."""
    text = f"g (float[N,8] x) => ({outputs}) {{ h = MatMul (x, w) r = Relu (h) p = MatMul (r, v) {body} }}"
    return dense(text, TWO | (extra or {}), opset=opset, labels=None)


def with_ml(nodes: list, inputs: list, outputs: list, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model with operators of ai.onnx.ml."""
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)
