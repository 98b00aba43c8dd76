"""LSTM, GRU and RNN: torch's fused functions where they are equivalent, else step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque

Activation = Callable[[Tensor], Tensor]
Step = Callable[..., tuple[Tensor, ...]]

_PLAIN: dict[str, Activation] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "tanh": torch.tanh,
}
# Activations with parameters alpha and beta, and their defaults; None for a parameter that is not used.
_SHAPED: dict[str, tuple[Callable[..., Tensor], float, float | None]] = {
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "elu": (lambda x, a: F.elu(x, a), 1.0, None),
    "hardsigmoid": (lambda x, a, b: torch.clamp(a * x + b, 0, 1), 0.2, 0.5),
    "leakyrelu": (lambda x, a: F.leaky_relu(x, a), 0.01, None),
    "scaledtanh": (lambda x, a, b: a * torch.tanh(b * x), 1.0, 1.0),
    "thresholdedrelu": (lambda x, a: F.threshold(x, a, 0.0), 1.0, None),
}


@lowers("LSTM", since=7, trains=(1, 2, 3, 7), several=True)
@opaque
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    peepholes: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = (),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """Y, Y_h, Y_c of an LSTM whose gates are i, o, f, c (ONNX LSTM-22); x: (T, N, I), w: (D, 4H, I), r: (D, 4H, H)."""
    x, initial_h, initial_c = (_swapped(layout, x), _swapped(layout, initial_h), _swapped(layout, initial_c))
    directions, hidden = len(w), r.shape[-1]
    h = _state(initial_h, x, directions, hidden)
    c = _state(initial_c, x, directions, hidden)
    known = activations and [name.lower() for name in activations] != ["sigmoid", "tanh", "tanh"] * directions
    if not (known or clip or input_forget) and lengths is None and peepholes is None:
        flat = _torch_weights(w, r, b, (0, 2, 3, 1))
        y, h, c = _fused(torch.lstm, x, (h, c), flat, direction)
        return _laid_out(layout, y, h, c)
    names = activations or ["sigmoid", "tanh", "tanh"] * directions
    functions = _activations(names, activation_alpha, activation_beta)

    def step_of(index: int) -> Step:
        f, g, out = functions[3 * index : 3 * index + 3]
        p_i, p_o, p_f = (0, 0, 0) if peepholes is None else peepholes[index].chunk(3)

        def step(gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            i, o, forget, cell = (gates + h @ r[index].t()).chunk(4, -1)
            i = f(_clipped(i + p_i * c, clip))
            forget = 1 - i if input_forget else f(_clipped(forget + p_f * c, clip))
            c = forget * c + i * g(_clipped(cell, clip))
            return f(_clipped(o + p_o * c, clip)) * out(c), c

        return step

    biases = None if b is None else torch.add(*b.chunk(2, -1))
    y, (h, c) = _unrolled(x, w, biases, (h, c), lengths, direction, step_of)
    return _laid_out(layout, y, h, c)


@lowers("GRU", since=7, trains=(1, 2, 3), several=True)
@opaque
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = (),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    """Y, Y_h of a GRU whose gates are z, r, h (ONNX GRU-22); x: (T, N, I), w: (D, 3H, I), r: (D, 3H, H)."""
    x, initial_h = _swapped(layout, x), _swapped(layout, initial_h)
    directions, hidden = len(w), r.shape[-1]
    h = _state(initial_h, x, directions, hidden)
    known = activations and [name.lower() for name in activations] != ["sigmoid", "tanh"] * directions
    if linear_before_reset and not (known or clip) and lengths is None:
        y, h = _fused(torch.gru, x, h, _torch_weights(w, r, b, (1, 0, 2)), direction)
        return _laid_out(layout, y, h)
    functions = _activations(
        activations or ["sigmoid", "tanh"] * directions, activation_alpha, activation_beta
    )

    def step_of(index: int) -> Step:
        f, g = functions[2 * index : 2 * index + 2]
        r_zr, r_h = r[index].split([2 * hidden, hidden])
        own = x.new_zeros(3 * hidden) if b is None else b[index].chunk(2)[1]
        b_zr, b_h = own.split([2 * hidden, hidden])

        def step(gates: Tensor, h: Tensor) -> tuple[Tensor]:
            given, new = gates.split([2 * hidden, hidden], -1)
            z, reset = f(_clipped(given + h @ r_zr.t() + b_zr, clip)).chunk(2, -1)
            if linear_before_reset:
                new = g(_clipped(new + reset * (h @ r_h.t() + b_h), clip))
            else:
                new = g(_clipped(new + (reset * h) @ r_h.t() + b_h, clip))
            return ((1 - z) * new + z * h,)

        return step

    biases = None if b is None else b.chunk(2, -1)[0]
    y, (h,) = _unrolled(x, w, biases, (h,), lengths, direction, step_of)
    return _laid_out(layout, y, h)


@lowers("RNN", since=7, trains=(1, 2, 3), several=True)
@opaque
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = (),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """Y, Y_h of a simple recurrent layer (ONNX RNN-22); x: (T, N, I), w: (D, H, I), r: (D, H, H)."""
    x, initial_h = _swapped(layout, x), _swapped(layout, initial_h)
    h = _state(initial_h, x, len(w), r.shape[-1])
    functions = _activations(activations or ["tanh"] * len(w), activation_alpha, activation_beta)

    def step_of(index: int) -> Step:
        return lambda gates, h: (functions[index](_clipped(gates + h @ r[index].t(), clip)),)

    biases = None if b is None else torch.add(*b.chunk(2, -1))
    y, (h,) = _unrolled(x, w, biases, (h,), lengths, direction, step_of)
    return _laid_out(layout, y, h)


def _unrolled(
    x: Tensor,
    w: Tensor,
    biases: Tensor | None,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    direction: str,
    step_of: Callable[[int], Step],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Every direction, time step by time step; state: (D, N, H) each; Y: (T, D, N, H)."""
    columns, finals = [], []
    for index in range(len(w)):
        step, now = step_of(index), tuple(part[index] for part in state)
        gates = F.linear(x, w[index], None if biases is None else biases[index])
        times = range(len(x))
        backward = direction == "reverse" or index == 1
        rows: dict[int, Tensor] = {}
        for time in reversed(times) if backward else times:
            new = step(gates[time], *now)
            row = new[0]
            if lengths is not None:
                alive = (lengths > time).unsqueeze(1)
                new = tuple(torch.where(alive, part, old) for part, old in zip(new, now, strict=True))
                row = torch.where(alive, row, torch.zeros_like(row))
            now, rows[time] = new, row
        columns.append(torch.stack([rows[time] for time in times]))
        finals.append(now)
    return torch.stack(columns, 1), tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


def _fused(
    function: Callable[..., tuple[Tensor, ...]],
    x: Tensor,
    state: object,
    weights: list[Tensor],
    direction: str,
) -> tuple[Tensor, ...]:
    """torch.lstm or torch.gru over x: (T, N, I); Y: (T, D, N, H), then the final states."""
    both = direction == "bidirectional"
    backward = direction == "reverse"
    y, *final = function(x.flip(0) if backward else x, state, weights, True, 1, 0.0, False, both, False)
    y = y.flip(0) if backward else y
    return y.unflatten(-1, (2 if both else 1, -1)).movedim(2, 1), *final


def _torch_weights(w: Tensor, r: Tensor, b: Tensor | None, order: tuple[int, ...]) -> list[Tensor]:
    """Weights of input and state, then biases, of each direction, with the gates in torch's order."""
    if b is None:
        b = w.new_zeros(len(w), 2 * w.shape[1])
    gates = len(order)

    def ordered(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (gates, -1))[list(order)].flatten(0, 1)

    groups = [(w[index], r[index], *b[index].chunk(2)) for index in range(len(w))]
    return [ordered(weight) for group in groups for weight in group]


def _swapped(layout: int, tensor: Any) -> Any:
    """A batch-first tensor with time or directions first; None stays None."""
    return tensor.transpose(0, 1) if layout and tensor is not None else tensor


def _laid_out(layout: int, y: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
    """Y: (T, D, N, H) and states: (D, N, H), or with `layout` (N, T, D, H) and (N, D, H)."""
    return (y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in states)) if layout else (y, *states)


def _state(initial: Tensor | None, x: Tensor, directions: int, hidden: int) -> Tensor:
    return x.new_zeros(directions, x.shape[1], hidden) if initial is None else initial.contiguous()


def _clipped(x: Tensor, clip: float | None) -> Tensor:
    return x.clamp(-clip, clip) if clip else x


def _activations(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Activation]:
    """The functions by name; each with parameters takes the next alpha and beta, or its defaults."""
    alpha_values, beta_values = iter(alphas), iter(betas)
    return [_activation(name.lower(), alpha_values, beta_values) for name in names]


def _activation(name: str, alphas: Iterator[float], betas: Iterator[float]) -> Activation:
    if name in _PLAIN:
        return _PLAIN[name]
    function, alpha, beta = _SHAPED[name]
    shape = [next(alphas, alpha)] if beta is None else [next(alphas, alpha), next(betas, beta)]
    return lambda x: function(x, *shape)
