"""Retraining the survivors: Adam on the torch graph of the ONNX model, the masks held at every step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from onnxprune.config import PruneConfig
from onnxprune.data import Dataset, InputSpec, class_axis, fixed_batch
from onnxprune.errors import DataError
from onnxprune.model.weights import constant_tensor, set_constant
from onnxprune.training.graph import to_torch
from onnxprune.training.losses import Objective, Outputs
from onnxprune.training.ops.types import to_tensor
from onnxprune.training.samples import Samples, mix, unmixed
from onnxprune.training.trainable import trained_constants, unique_names

# Samples in a forward pass without gradients.
FORWARD_SAMPLES = 1024
# Batches whose gradients make first-order scores.
SCORING_BATCHES = 32
# Updates over which the learning rate rises from zero: Adam's first steps have no history to scale by.
WARMUP_UPDATES = 100
# The input model's share of the loss where there are labels and `--distill` is not given.
DEFAULT_DISTILL = 0.5

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Epoch:
    """Held-out loss and accuracy (None without classes) after a pass over the data.

    The first record of a step is the state it begins with, just pruned; its training loss is None.
    """

    step: int
    epoch: float
    training_loss: float | None
    loss: float
    accuracy: float | None

    def better_than(self, other: Epoch) -> bool:
        """More samples right, or as many at a smaller loss; without classes the smaller loss alone."""
        if self.accuracy is None or other.accuracy is None:
            return self.loss < other.loss
        return (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


class Retrainer:
    """The torch graph of a model, its data and its optimiser, while a job prunes and retrains in turns.

    Raises:
        DataError: no labels and no distillation, or fewer samples than the model's fixed batch.
        UnsupportedOperatorError: an operator of the model cannot be retrained.
    """

    def __init__(
        self,
        model: ir.Model,
        training: Dataset,
        held_out: Dataset,
        specs: list[InputSpec],
        config: PruneConfig,
    ):
        self._config = config
        # Convolutions and pooling on CPUs are faster so: a step of LeNet-5 takes 14 ms instead of 25.
        # (torch's stubs do not know the argument.)
        self._module = to_torch(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._teacher = copy.deepcopy(self._module).requires_grad_(False)
        self._parameters = _trained(self._module, model)
        self._objective = Objective(
            _distill_share(training, config),
            config.temperature,
            tuple(_producer_type(output) for output in model.graph.outputs),
        )
        self._optimiser = torch.optim.Adam(self._parameters.values(), lr=config.learning_rate)
        self._random = torch.Generator().manual_seed(config.seed)
        self._mixes = config.mixup and all(spec.dtype.kind == "f" for spec in specs)
        self._fixed_batch = fixed_batch(specs)
        samples = Samples.of(_whole_batches(training, self._fixed_batch), specs)
        batch_size = min(self._fixed_batch or config.batch_size, len(samples))
        self._batches = samples.batches(batch_size, self._random)
        self._epoch_updates = len(samples) // batch_size
        self._total_updates = config.epochs * self._epoch_updates
        self._held_out = Samples.of(_whole_batches(held_out, self._fixed_batch), specs)
        self._held_out_teacher = self._forward(self._teacher, self._held_out)
        self._step = self.updates = 0

    def fit(
        self,
        masks: Mapping[ir.Value, np.ndarray],
        until: float,
        progress: Progress = lambda fraction: None,
    ) -> list[Epoch]:
        """Retrain the model's constants as they stand, under the masks, and put them back.

        `masks`: by the model's own values, of their shapes, bool. Goes on to the fraction `until` of all training:
        on the way the last state is kept; at the end, 1, the best on held-out data, be it the first.
        """
        self._step += 1
        self._take_weights()
        held = [
            (self._parameters[value], torch.from_numpy(mask))
            for value, mask in masks.items()
            if value in self._parameters
        ]
        history = [self._judge(None)]
        best, state = history[0], self._state()
        losses: list[float] = []
        last = round(until * self._total_updates)
        while self.updates < last:
            losses.append(self._update())
            hold(held)
            progress(self.updates / self._total_updates)
            if self.updates % self._epoch_updates == 0 or self.updates == last:
                history.append(self._judge(sum(losses) / len(losses)))
                losses.clear()
                if until < 1 or history[-1].better_than(best):
                    best, state = history[-1], self._state()
        for value, trained in state.items():
            tensor = _tensor(value)
            set_constant(value, trained.contiguous().numpy().astype(tensor.numpy().dtype), tensor.dtype)
        return history

    def first_order(self) -> dict[ir.Value, np.ndarray]:
        """w * dL/dw of the model's constants as they stand, of their shapes, L the labels' loss on some batches.

        The sum over a channel is what L loses without it, to first order (Molchanov et al. 2019).

        Raises:
            DataError: there are no labels.
        """
        if self._held_out.labels is None:
            raise DataError("--importance taylor needs 'labels' in --data: add them, or use --importance l2")
        self._take_weights()
        objective = replace(self._objective, distill=0.0)
        self._optimiser.zero_grad()
        for _ in range(SCORING_BATCHES):
            batch = unmixed(next(self._batches))
            objective(self._module(*batch.inputs), batch, None).backward()
        scores = {
            value: (parameter.detach() * parameter.grad).contiguous().numpy()
            for value, parameter in self._parameters.items()
            if parameter.grad is not None
        }
        self._optimiser.zero_grad()
        return scores

    def _take_weights(self) -> None:
        """Set the parameters to the model's constants as they stand."""
        with torch.no_grad():
            for value, parameter in self._parameters.items():
                parameter.copy_(to_tensor(_tensor(value)))

    def _update(self) -> float:
        """One step of the optimiser on the next batch; its loss before the penalty."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.learning_rate * self._learning_rate_share()
        samples = next(self._batches)
        batch = mix(samples, self._random) if self._mixes else unmixed(samples)
        with torch.no_grad():
            teacher = self._teacher(*batch.inputs) if self._objective.distill > 0 else None
        loss = self._objective(self._module(*batch.inputs), batch, teacher)
        self._optimiser.zero_grad()
        loss.backward()
        self._penalise()
        self._optimiser.step()
        self.updates += 1
        return float(loss.detach())

    def _learning_rate_share(self) -> float:
        """Linear warm-up, then half a cosine down to zero over the whole job."""
        warmup = min(1.0, (self.updates + 1) / WARMUP_UPDATES)
        return warmup * (1 + math.cos(math.pi * self.updates / self._total_updates)) / 2

    def _penalise(self) -> None:
        """Add the penalty's gradient to weights: S * w for S/2 * |w|^2 (L2), S * sign(w) for S * |w| (L1)."""
        strength, kind = self._config.weight_decay, self._config.regularization
        if kind == "none" or not strength:
            return
        for parameter in self._parameters.values():
            if parameter.ndim > 1 and parameter.grad is not None:
                values = parameter.detach()
                parameter.grad.add_(values if kind == "l2" else values.sign(), alpha=strength)

    def _judge(self, training_loss: float | None) -> Epoch:
        outputs = self._forward(self._module, self._held_out)
        loss = float(self._objective(outputs, unmixed(self._held_out), self._held_out_teacher))
        labels, accuracy = self._held_out.labels, None
        if labels is not None and not labels.is_floating_point():
            axis = class_axis(tuple(outputs[0].shape), tuple(labels.shape))
            assert axis is not None, "labels are checked before training"
            accuracy = float((outputs[0].argmax(axis) == labels).float().mean())
        return Epoch(self._step, self.updates / self._epoch_updates, training_loss, loss, accuracy)

    def _forward(self, module: torch.nn.Module, samples: Samples) -> Outputs:
        """A module's outputs on all samples, without gradients."""
        size = self._fixed_batch or FORWARD_SAMPLES
        with torch.no_grad():
            parts = [
                module(*samples.take(slice(start, start + size)).inputs)
                for start in range(0, len(samples), size)
            ]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def _state(self) -> dict[ir.Value, torch.Tensor]:
        return {value: parameter.detach().clone() for value, parameter in self._parameters.items()}


def hold(held: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Zero what the masks cut: (parameter, mask) pairs of one shape, mask bool, True = kept."""
    with torch.no_grad():
        for parameter, mask in held:
            parameter.mul_(mask)


def _whole_batches(data: Dataset, fixed: int | None) -> Dataset:
    """The data as far as it fills batches of the model's fixed size, where it has one."""
    if fixed is None:
        return data
    if len(data) < fixed:
        raise DataError(
            f"{data.name} holds {len(data)} samples, the model takes {fixed} at a time: give more"
        )
    return data.take(slice(0, len(data) // fixed * fixed))


def _distill_share(training: Dataset, config: PruneConfig) -> float:
    if training.labels is not None:
        return DEFAULT_DISTILL if config.distill is None else config.distill
    if config.distill is not None and config.distill < 1:
        raise DataError(
            f"{training.name} has no labels, so --distill {config.distill:g} leaves a part of the loss without "
            "a target: add 'labels' to the data or drop --distill"
        )
    return 1.0


def _trained(module: fx.GraphModule, model: ir.Model) -> dict[ir.Value, torch.nn.Parameter]:
    """The parameters of the model's own constants; those of model-local functions are not trained."""
    values = trained_constants(model)
    parameters = dict(module.named_parameters())
    paths = module.meta["parameters"]
    trained = {
        value: parameters.pop(paths[name]) for name, value in zip(unique_names(values), values, strict=True)
    }
    for frozen in parameters.values():
        frozen.requires_grad_(False)
    return trained


def _tensor(constant: ir.Value) -> ir.TensorProtocol:
    tensor = constant_tensor(constant)
    assert tensor is not None
    return tensor


def _producer_type(output: ir.Value) -> str:
    """The operator that makes an output, behind any Identity."""
    producer = output.producer()
    while producer is not None and producer.op_type == "Identity" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return "" if producer is None else producer.op_type
