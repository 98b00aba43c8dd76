"""The table of ONNX operators as plain torch functions, found by domain, name and opset."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.overrides import handle_torch_function, has_torch_function

Function = Callable[..., Any]


@dataclass(frozen=True)
class Lowering:
    """How one operator, from opset `since` on, is translated to torch.

    `function` takes the node's inputs as positional arguments (None for an absent one) and its attributes
    as keywords; an attribute that became an input in a later opset is one parameter for both.
    `trains` are the input indices whose constants are trained, `static` those that the function reads as
    Python numbers or lists. `moves`: the output has the first input's elements, reordered or reshaped.
    `gradients`: the outputs that have a gradient, all by default.
    `several`: the function returns a tuple, one element per output. A parameter `outputs` receives the number
    of outputs, `types` the ONNX types of the inputs (None where unknown), `name` the name of the first output.
    """

    function: Function
    since: int
    trains: tuple[int, ...]
    static: tuple[int, ...]
    moves: bool
    several: bool
    gradients: tuple[int, ...] | None = None

    @functools.cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        try:
            return inspect.signature(self.function).parameters
        except ValueError:  # a function of torch itself
            return {}

    def asks_for(self, name: str) -> bool:
        """Whether the function has a parameter of this name."""
        return name in self._parameters

    def takes(self, attribute: str) -> bool:
        """Whether the function can be given this attribute."""
        kinds = {parameter.kind for parameter in self._parameters.values()}
        return self.asks_for(attribute) or inspect.Parameter.VAR_KEYWORD in kinds


_LOWERINGS: dict[tuple[str, str], list[Lowering]] = {}


def lowers(
    op_type: str,
    *,
    since: int = 1,
    domain: str = "",
    trains: tuple[int, ...] = (),
    static: tuple[int, ...] = (),
    moves: bool = False,
    several: bool = False,
    gradients: tuple[int, ...] | None = None,
) -> Callable[[Function], Function]:
    """Register a function as the translation of `op_type` from opset `since` on."""

    def enter(function: Function) -> Function:
        entries = _LOWERINGS.setdefault((domain, op_type), [])
        entries.append(Lowering(function, since, trains, static, moves, several, gradients))
        entries.sort(key=lambda entry: entry.since)
        return function

    return enter


def find_lowering(domain: str, op_type: str, opset: int) -> Lowering | None:
    """The newest entry for an opset; None if there is none."""
    entries = _LOWERINGS.get(("" if domain == "ai.onnx" else domain, op_type), [])
    return next((entry for entry in reversed(entries) if entry.since <= opset), None)


def lowered_operators() -> frozenset[tuple[str, str]]:
    """Every (domain, op_type) of the table."""
    return frozenset(_LOWERINGS)


def opaque(function: Function) -> Function:
    """Keep `function` as one call in a traced graph, because it depends on shapes, types or values.

    All other functions of the table are traced through when the graph is built, so that the graph contains
    torch's own functions with fixed attributes. The first positional argument is a tensor.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if has_torch_function(args):
            return handle_torch_function(call, args, *args, **kwargs)
        return function(*args, **kwargs)

    return call
