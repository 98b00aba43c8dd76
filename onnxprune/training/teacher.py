"""The teacher of the distillation: the input model, which is not trained, and its outputs where inputs come again."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from onnxprune.config.training import LossSettings
from onnxprune.data.dataset import Dataset
from onnxprune.training.distributed import Processes
from onnxprune.training.feed import Feed, in_order
from onnxprune.training.losses import Outputs
from onnxprune.training.module.modes import Modes
from onnxprune.training.module.norms import fold_norms
from onnxprune.training.precision import Precision
from onnxprune.training.samples import Samples
from onnxprune.training.session import PruningSession, training_graph

# Samples in a forward pass without gradients.
FORWARD_SAMPLES = 256
# Outputs for training data and those for validation data are each kept up to this size.
KEPT_BYTES = 2**27


def teacher_module(session: PruningSession, settings: LossSettings) -> nn.Module:
    """A copy of a session's module as it is now, to compute outputs with.

    Norms that were put back are folded again: they take a seventh of the time of a ResNet-20. Where integers are
    simulated, it is the model without rounding.
    """
    if session.simulation is None and not session.modes.restored:
        return copy.deepcopy(session.module)
    model = (session.model if session.simulation is None else session.simulation.floats).clone()
    fold_norms(model)
    modes = Modes(model, "frozen", ())
    return training_graph(model, modes, settings, session.embeddings)[0]


class Teacher:
    """A module whose outputs the training follows; it is no longer changed."""

    def __init__(self, module: nn.Module, precision: Precision):
        self._module = module.to(precision.device).requires_grad_(False).eval()
        self._precision = precision
        self._kept: Outputs = ()

    @property
    def device(self) -> torch.device:
        """Where its outputs are."""
        return self._precision.device

    def __call__(self, samples: Samples) -> Outputs:
        """The outputs for a batch, without gradients; for training samples those that are kept."""
        if self._kept and samples.numbers is not None:
            numbers = torch.from_numpy(samples.numbers)
            return tuple(output[numbers].to(self._precision.device) for output in self._kept)
        with torch.no_grad():
            return self._precision.outputs(self._module, samples)

    def keep(self, training: Feed, processes: Processes) -> None:
        """Compute the outputs for all training samples now, if these are the same in every epoch and outputs are small.

        Each process computes a part. Batches are in order, because kernels may round otherwise in other batches, and a
        training that is resumed must have the same outputs.
        """
        if not training.repeats:
            return
        parts = processes.gather(self._outputs_of_part(training, processes))
        batches = [batch for part in parts for batch in part or ()]
        if all(part is not None for part in parts):
            self._kept = tuple(torch.cat(column) for column in zip(*batches, strict=True))

    def _outputs_of_part(self, training: Feed, processes: Processes) -> list[Outputs] | None:
        """The outputs for this process's part of the training data, by batch; None if they cannot be kept."""
        data = training.data.take(processes.share(len(training.data), training.data.run_axes.size or 1))
        found: list[Outputs] = []
        for samples in in_order(data, training.specs, FORWARD_SAMPLES, training.workers):
            outputs = self(samples.to(self._precision.device))
            by_sample = all(output.shape[:1] == (len(samples),) for output in outputs)
            alike = not found or [each.shape[1:] for each in outputs] == [each.shape[1:] for each in found[0]]
            if not found and self._has_positions(samples, data):
                return None
            if not by_sample or not alike or _bytes(outputs) / len(samples) * len(training.data) > KEPT_BYTES:
                return None
            found.append(tuple(output.cpu() for output in outputs))
        return found

    def _has_positions(self, samples: Samples, data: Dataset) -> bool:
        """Whether the shapes of the outputs follow those of a run whose padding is cut off."""
        padding = data.run_axes.padding
        if padding is None:
            return False
        inputs = dict(zip(samples.names, samples.inputs, strict=True))
        shorter = replace(samples, inputs=tuple(padding.first(inputs, 1).values()))
        runs = [self(each.to(self._precision.device)) for each in (samples, shorter)]
        whole, cut = ([output.shape for output in outputs] for outputs in runs)
        return inputs[padding.mask].shape[padding.axes[padding.mask]] == 1 or whole != cut


class KeptInOrder:
    """The teacher's outputs for batches that come again in the same order: the first ones, as many as fit."""

    def __init__(self, repeats: bool):
        """`repeats`: whether the inputs are the same each time."""
        self._room = KEPT_BYTES if repeats else 0
        self._kept: list[Outputs] = []

    def outputs(self, number: int, samples: Samples, teacher: Teacher) -> Outputs:
        """The outputs for the batch with this number, counted from 0."""
        if number < len(self._kept):
            return tuple(output.to(teacher.device) for output in self._kept[number])
        outputs = teacher(samples)
        if number == len(self._kept) and _bytes(outputs) <= self._room:
            self._room -= _bytes(outputs)
            self._kept.append(tuple(output.cpu() for output in outputs))
        return outputs


def _bytes(outputs: Outputs) -> int:
    return sum(output.nbytes for output in outputs)
