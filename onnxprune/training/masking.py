"""Masks on the parameters of a torch module, and the removed weights that may return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn

MASK, HIDDEN, MOVEMENT = "mask", "hidden", "movement"
# A hidden weight returns when it is this many times larger than the smallest weight that it would replace. Adam moves
# unimportant weights as fast as important ones: with the 1.1 / 0.9 of Guo et al. 2016, who use SGD, the validation
# error of LeNet-300-100 at 56x is 2.87 %, with 3 it is 2.08 %.
RETURN_MARGIN = 3.0

Gradients = Mapping[nn.Parameter, torch.Tensor]
Returned = Mapping[nn.Parameter, torch.Tensor]
"""Where removed weights are trained again."""


class Masking:
    """Keeps removed weights of a module at zero; masks (bool, True = kept) are buffers of the module: w has w_mask.

    With `regrows`, removed weights are kept in a further buffer, w_hidden, which is zero where the mask is True. They
    are trained by the gradient of the forward pass, in which they are zero: the change of a zero by the optimizer is
    added to the hidden weight (dynamic network surgery, Guo et al. 2016). The forward pass has no extra cost.

    With `follows`, the sum of -w * dL/dw over all updates is kept in a further buffer, w_movement.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        parameters: Mapping[ir.Value, nn.Parameter],
        *,
        regrows: bool = False,
        follows: bool = False,
    ):
        self._module = module
        self._parameters = parameters
        self._paths = {parameter: path for path, parameter in module.named_parameters()}
        self._masked: dict[nn.Parameter, None] = {}
        self._regrows = regrows
        self._follows = follows
        self._zeros: dict[nn.Parameter, torch.Tensor] = {}
        self._fixed: list[tuple[nn.Parameter, torch.Tensor]] = []

    def begin(self, values: Iterable[ir.Value], regrow: bool = False) -> None:
        """Create masks for these constants: weights that are zero now stay zero, or may return (`regrow`)."""
        held = [self._parameters[value] for value in values if value in self._parameters]
        self._add(held)
        for parameter in held:
            zeros = parameter.detach() == 0
            if zeros.any():
                if not regrow:
                    self._zeros[parameter] = zeros
                self._buffer(parameter, MASK).copy_(~zeros)

    def set(self, masks: Mapping[ir.Value, np.ndarray]) -> None:
        """Replace masks, which the next `hold` applies; masks of other constants are unchanged."""
        self._add(self._parameters[value] for value in masks if value in self._parameters)
        for value, array in masks.items():
            if (parameter := self._parameters.get(value)) is not None:
                self._buffer(parameter, MASK).copy_(torch.from_numpy(array))

    def hold(self) -> None:
        """Zero the removed weights; call it after every update of the optimizer."""
        with torch.no_grad():
            for parameter, before in self._fixed:
                parameter.copy_(before)
            if not self._masked:
                return
            weights: Any = list(self._masked)
            # Multiplying by uint8 is three times as fast as by booleans.
            # (Any: torch's stubs do not accept lists of tensors.)
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
        """Zero the gradients of removed weights, unless they may return."""
        if not self._regrows:
            for parameter in self._masked:
                if parameter.grad is not None:
                    parameter.grad.mul_(self._buffer(parameter, MASK))

    def follow(self) -> None:
        """Add the movement of an update, -w * dL/dw; call it after the backward pass."""
        if not self._follows:
            return
        trained = [parameter for parameter in self._masked if parameter.grad is not None]
        if trained:
            moved: Any = [self._buffer(parameter, MOVEMENT) for parameter in trained]
            gradients: Any = [parameter.grad for parameter in trained]
            weights: Any = [parameter.detach() for parameter in trained]
            torch._foreach_addcmul_(moved, weights, gradients, -1)

    def movement(self) -> dict[ir.Value, np.ndarray]:
        """The sum of -w * dL/dw over all updates, by constant."""
        return {
            value: self._buffer(parameter, MOVEMENT).cpu().contiguous().numpy()
            for value, parameter in self._parameters.items()
            if parameter in self._masked
        }

    def gradients(self) -> Gradients:
        """Copies of the gradients of the last backward pass, those of removed weights included."""
        return {
            parameter: parameter.grad.detach().clone()
            for parameter in self._masked
            if parameter.grad is not None
        }

    def lift(self) -> Returned:
        """Let all removed weights be trained again, from 0; those that were zero at the start stay so."""
        returned = {}
        for parameter in self._masked:
            mask = self._buffer(parameter, MASK)
            returned[parameter] = self._may_return(parameter)
            mask |= returned[parameter]
        return returned

    def exchange(self, share: float, gradients: Gradients) -> Returned:
        """Remove a share of the kept weights of each layer, and let as many others be trained, from 0.

        The smallest ones go, and those with the largest gradients come (RigL, Evci et al. 2020, arXiv 1911.11134). A
        weight may do both; it is unchanged then. A weight without a gradient does not come, so that none stays 0.
        """
        returned = {}
        for parameter, gradient in gradients.items():
            mask = self._buffer(parameter, MASK)
            removed = self._may_return(parameter)
            kept = int(mask.sum())
            count = min(int(share * kept), int((removed & (gradient != 0)).sum()))
            if count:
                staying = _largest(parameter.detach().abs().masked_fill(~mask, -1), kept - count)
                growth = gradient.abs().masked_fill(staying | ~(removed | mask), -1)
                coming = _largest(growth, count)
                returned[parameter] = coming & ~mask
                mask.copy_(staying | coming)
        return returned

    def weights(self) -> dict[ir.Value, torch.Tensor]:
        """The constants for the next pruning step, with hidden weights divided by `RETURN_MARGIN`."""
        return {
            value: parameter.detach() + self._buffer(parameter, HIDDEN) / RETURN_MARGIN
            if self._regrows and parameter in self._masked
            else parameter.detach()
            for value, parameter in self._parameters.items()
        }

    def settle(self) -> None:
        """Discard hidden weights: nothing returns from now on."""
        if self._regrows:
            self._regrows = False
            for hidden in self._buffers(HIDDEN):
                hidden.zero_()

    def fix(self, values: Iterable[ir.Value]) -> None:
        """Freeze these constants at their current values until the next call."""
        chosen = [self._parameters[value] for value in values if value in self._parameters]
        self._fixed = [(parameter, parameter.detach().clone()) for parameter in chosen]

    def density(self, value: ir.Value) -> float:
        """The fraction of a constant that its mask keeps."""
        parameter = self._parameters.get(value)
        if parameter is None or parameter not in self._masked:
            return 1.0
        return float(self._buffer(parameter, MASK).float().mean())

    def expect(self, state: Mapping[str, torch.Tensor]) -> None:
        """Create the masks that a state of the module contains, so that it can be loaded."""
        self._add(parameter for parameter, path in self._paths.items() if f"{path}_{MASK}" in state)

    def masks(self) -> list[torch.Tensor]:
        """All masks, in the order of their creation."""
        return self._buffers(MASK)

    def _add(self, parameters: Iterable[nn.Parameter]) -> None:
        """Create the buffers of parameters that have none yet."""
        added = [parameter for parameter in dict.fromkeys(parameters) if parameter not in self._masked]
        for parameter in added:
            self._masked[parameter] = None
            self._register(parameter, MASK, torch.ones_like(parameter, dtype=torch.bool))
            if self._regrows:
                self._register(parameter, HIDDEN, torch.zeros_like(parameter).detach())
            if self._follows:
                self._register(parameter, MOVEMENT, torch.zeros_like(parameter).detach())
        if added:
            # Once for all: it writes the code of the whole graph anew.
            self._module.recompile()

    def _may_return(self, parameter: nn.Parameter) -> torch.Tensor:
        """Where a weight is removed and was not zero at the start."""
        removed = ~self._buffer(parameter, MASK)
        return removed & ~self._zeros[parameter].to(removed.device) if parameter in self._zeros else removed

    def _register(self, parameter: nn.Parameter, kind: str, tensor: torch.Tensor) -> None:
        path = f"{self._paths[parameter]}_{kind}"
        owner, _, name = path.rpartition(".")
        self._module.get_submodule(owner).register_buffer(name, tensor)
        # A copied or pickled GraphModule keeps only attributes that its graph reads.
        with self._module.graph.inserting_before(self._module.graph.output_node()):
            self._module.graph.get_attr(path)

    def _buffer(self, parameter: nn.Parameter, kind: str) -> torch.Tensor:
        # Looked up each time: moving a module to another device creates new buffers.
        return self._module.get_buffer(f"{self._paths[parameter]}_{kind}")

    def _buffers(self, kind: str) -> list[torch.Tensor]:
        return [self._buffer(parameter, kind) for parameter in self._masked]


def _largest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """A mask of the `count` largest scores."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().topk(count, sorted=False).indices] = True
    return mask.view(scores.shape)
