"""Masks on the parameters of a torch module, and the weights that they hide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn

MASK, HIDDEN = "mask", "hidden"
# A hidden weight comes back when it is so many times larger than the smallest that it would replace. Adam moves weights
# that do not matter as fast as those that do: with the 1.1 / 0.9 of Guo et al. 2016, who use SGD, the held-out error of
# LeNet-300-100 at 56x is 2.87 %, with 3 it is 2.08 %.
RETURN_MARGIN = 3.0


class Masking:
    """Holds parameters of a module to masks (bool, True = kept), which are buffers of the module: w has w_mask.

    Masks that regrow keep what they remove in a further buffer, w_hidden, zero where the mask is True. The gradient of
    the forward pass, in which those weights are zero, goes to them as well: what an update of the optimizer makes of
    a zero is added to the hidden weight (Dynamic Network Surgery, Guo et al. 2016). So the forward pass costs nothing.
    """

    def __init__(self, module: fx.GraphModule, parameters: Mapping[ir.Value, nn.Parameter], regrows: bool):
        self._module = module
        self._parameters = parameters
        self._paths = {parameter: path for path, parameter in module.named_parameters()}
        self._masked: dict[nn.Parameter, None] = {}
        self._regrows = regrows
        self._zeros: dict[nn.Parameter, torch.Tensor] = {}
        self._fixed: list[tuple[nn.Parameter, torch.Tensor]] = []

    def begin(self, values: Iterable[ir.Value], regrow: bool = False) -> None:
        """Masks for these constants: what is zero now stays zero, or returns where it grows (`regrow`)."""
        for value in values:
            if (parameter := self._parameters.get(value)) is not None:
                self._add(parameter)
                zeros = parameter.detach() == 0
                if zeros.any():
                    if not regrow:
                        self._zeros[parameter] = zeros
                    self._buffer(parameter, MASK).copy_(~zeros)

    def set(self, masks: Mapping[ir.Value, np.ndarray]) -> None:
        """Take masks on, for the next `hold` to follow; those of constants that are not given stay."""
        for value, array in masks.items():
            if (parameter := self._parameters.get(value)) is not None:
                self._add(parameter)
                self._buffer(parameter, MASK).copy_(torch.from_numpy(array))

    def hold(self) -> None:
        """Zero what the masks remove; to be called after every update of the optimizer."""
        with torch.no_grad():
            for parameter, before in self._fixed:
                parameter.copy_(before)
            if not self._masked:
                return
            weights: Any = list(self._masked)
            # As numbers, masks are multiplied three times as fast as booleans are.
            # (Any: torch's stubs know nothing of lists of tensors.)
            masks: Any = [mask.view(torch.uint8) for mask in self._buffers(MASK)]
            if not self._regrows:
                torch._foreach_mul_(weights, masks)
                return
            hidden = self._buffers(HIDDEN)
            torch._foreach_add_(hidden, weights)
            for parameter, zeros in self._zeros.items():
                self._buffer(parameter, HIDDEN).masked_fill_(zeros, 0)
            torch._foreach_copy_(weights, hidden)
            torch._foreach_mul_(weights, masks)
            torch._foreach_sub_(hidden, weights)

    def mask_gradients(self) -> None:
        """Zero the gradients of what the masks remove, unless it may return."""
        if not self._regrows:
            for parameter in self._masked:
                if parameter.grad is not None:
                    parameter.grad.mul_(self._buffer(parameter, MASK))

    def weights(self) -> dict[ir.Value, torch.Tensor]:
        """The constants to decide on: as the forward pass has them, hidden ones with the size that they count for."""
        return {
            value: parameter.detach() + self._buffer(parameter, HIDDEN) / RETURN_MARGIN
            if self._regrows and parameter in self._masked
            else parameter.detach()
            for value, parameter in self._parameters.items()
        }

    def settle(self) -> None:
        """Give up what is hidden: nothing comes back from now on."""
        if self._regrows:
            self._regrows = False
            for hidden in self._buffers(HIDDEN):
                hidden.zero_()

    def fix(self, values: Iterable[ir.Value]) -> None:
        """Keep these constants as they are now, whatever the optimizer does, until the next call."""
        chosen = [self._parameters[value] for value in values if value in self._parameters]
        self._fixed = [(parameter, parameter.detach().clone()) for parameter in chosen]

    def density(self, value: ir.Value) -> float:
        """The share of a constant that is kept."""
        parameter = self._parameters.get(value)
        if parameter is None or parameter not in self._masked:
            return 1.0
        return float(self._buffer(parameter, MASK).float().mean())

    def expect(self, state: Mapping[str, torch.Tensor]) -> None:
        """Make room for the masks in a state of the module."""
        for parameter, path in self._paths.items():
            if f"{path}_{MASK}" in state:
                self._add(parameter)

    def masks(self) -> list[torch.Tensor]:
        """Every mask, in the order in which they came."""
        return self._buffers(MASK)

    def _add(self, parameter: nn.Parameter) -> None:
        if parameter in self._masked:
            return
        self._masked[parameter] = None
        self._register(parameter, MASK, torch.ones_like(parameter, dtype=torch.bool))
        if self._regrows:
            self._register(parameter, HIDDEN, torch.zeros_like(parameter).detach())

    def _register(self, parameter: nn.Parameter, kind: str, tensor: torch.Tensor) -> None:
        path = f"{self._paths[parameter]}_{kind}"
        owner, _, name = path.rpartition(".")
        self._module.get_submodule(owner).register_buffer(name, tensor)
        # When it is copied or pickled, a GraphModule keeps only what its graph reads.
        with self._module.graph.inserting_before(self._module.graph.output_node()):
            self._module.graph.get_attr(path)
        self._module.recompile()

    def _buffer(self, parameter: nn.Parameter, kind: str) -> torch.Tensor:
        # Looked up each time: moving a module to another device makes new buffers.
        return self._module.get_buffer(f"{self._paths[parameter]}_{kind}")

    def _buffers(self, kind: str) -> list[torch.Tensor]:
        return [self._buffer(parameter, kind) for parameter in self._masked]
