"""Fine-tuning what is left: the training loop around a pruning session."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from onnxprune.config.training import FineTuneSettings
from onnxprune.data.dataset import class_axis
from onnxprune.errors import DataError
from onnxprune.training.checkpoint import Checkpoint, State, digest
from onnxprune.training.distributed import Processes
from onnxprune.training.losses import Objective, Outputs, check_labels, load_function
from onnxprune.training.modes import re_estimate
from onnxprune.training.optimization import learning_rate, make_optimizer, penalize
from onnxprune.training.samples import (
    DROPOUT,
    MIXTURE,
    Batches,
    Samples,
    mix,
    random,
    random_seed,
    unmixed,
)
from onnxprune.training.session import PruningSession

# Samples in a forward pass without gradients.
FORWARD_SAMPLES = 1024
# Batches whose gradients make first-order scores.
SCORING_BATCHES = 32
# Batches that BatchNormalization's statistics are measured on.
ESTIMATION_BATCHES = 32
# The input model's share of the loss where there are labels and `--distill` is not given.
DEFAULT_DISTILL = 0.5
# With more pruning steps than this, only epochs are evaluated.
EVALUATED_STEPS = 20

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Epoch:
    """Validation loss and accuracy (None without classes) after a pass over the data.

    `step` counts the pruning steps so far. Where they are few, a record without training loss is the state right
    after one.
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


class FineTuner:
    """A session that is not yet started, its data and its optimizer, in one of the processes that share the work.

    `origin`: the settings that the weights depend on, which a checkpoint must have been written with.

    Raises:
        DataError: a part of the loss has no target, or one that it does not go with.
        SettingError: the batch does not go into equal parts, or --loss names no function.
    """

    def __init__(
        self,
        session: PruningSession,
        training: Batches,
        validation: Samples,
        settings: FineTuneSettings,
        processes: Processes,
        origin: Mapping[str, Any],
    ):
        self._session = session
        self._settings = settings
        self._processes = processes
        self._part = processes.part(training.size)
        self._batches = training
        self._updates = settings.epochs * training.an_epoch
        session.module.to(processes.device)
        self._teacher = copy.deepcopy(session.module).requires_grad_(False).eval()
        self._validation = validation.to(processes.device)
        self._validation_teacher = self._forward(self._teacher, self._validation)
        self._objective = _objective(session, self._validation, self._validation_teacher, settings)
        self._parameters = list(session.parameters.values())
        self._optimizer = make_optimizer(self._parameters, settings)
        self._mixes = settings.mixup and all(inputs.is_floating_point() for inputs in validation.inputs)
        self._checkpoint = self._open_checkpoint(origin)
        self._history: list[Epoch] = []
        self._losses: list[float] = []
        self._best: tuple[Epoch, dict[str, torch.Tensor]] | None = None

    def fit(self, progress: Progress = lambda fraction: None) -> list[Epoch]:
        """Train through the session's schedule, and put into its model the best state on validation data.

        Only states after the last pruning step count as best, the one right after it among them.
        """
        with torch.random.fork_rng():
            self._train(progress)
        assert self._best is not None, "the schedule's last step comes before the end"
        self._session.module.load_state_dict(self._best[1])
        self._session.give_back()
        return self._history

    def _train(self, progress: Progress) -> None:
        session = self._session
        session.start(self._gradients())
        if not self._resumed():
            self._record(just_pruned=True)
        module = self._processes.wrap(session.module)
        while session.updates < self._updates:
            self._losses.append(self._update(module))
            session.advance()
            step_follows = session.due is not None and self._evaluates_steps()
            if session.updates % self._batches.an_epoch == 0 or step_follows:
                self._record()
            if session.prune_if_due(self._gradients()) and (self._evaluates_steps() or session.settled):
                self._record(just_pruned=True)
            progress(session.updates / self._updates)
            if self._checkpoint is not None:
                self._checkpoint.write_if_due(self._state)
        if self._checkpoint is not None:
            self._checkpoint.write(self._state())

    def _update(self, module: torch.nn.Module) -> float:
        """One update of the optimizer on the next batch; its loss before the penalty."""
        update = self._session.updates
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, update, self._updates)
        samples = self._batches.at(update)
        whole = (
            mix(samples, random(self._settings.seed, MIXTURE, update)) if self._mixes else unmixed(samples)
        )
        batch = whole.take(self._part).to(self._processes.device)
        if self._session.modes.dropouts:
            torch.manual_seed(random_seed(self._settings.seed, DROPOUT, update, self._processes.rank))
        self._session.module.train()
        with self._autocast():
            with torch.no_grad():
                teacher = self._teacher(*batch.inputs) if self._objective.distill > 0 else None
            outputs = module(*batch.inputs)
        loss = self._objective(_widened(outputs), batch, None if teacher is None else _widened(teacher))
        self._optimizer.zero_grad()
        loss.backward()
        if self._settings.clip_norm is not None:
            self._session.mask_gradients()
            torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.clip_norm)
        penalize(self._parameters, self._settings)
        self._optimizer.step()
        return float(loss.detach())

    def _gradients(self) -> dict[ir.Value, np.ndarray] | None:
        """dL/dw by the model's constants, of their shapes, L the labels' loss on some batches, for a step that asks.

        Raises:
            DataError: there are no labels.
        """
        if not self._session.pruner.needs_gradients or self._session.due is None:
            return None
        if self._validation.labels is None:
            raise DataError(
                "--criterion needs gradients of the loss, so --data needs 'labels': add them, or use "
                "--criterion magnitude"
            )
        objective = replace(self._objective, distill=0.0)
        self._optimizer.zero_grad()
        self._session.module.eval()
        for batch in range(SCORING_BATCHES):
            samples = unmixed(self._batches.at(self._session.updates + batch).to(self._processes.device))
            objective(self._session.module(*samples.inputs), samples, None).backward()
        gradients = {
            value: parameter.grad.cpu().contiguous().numpy()
            for value, parameter in self._session.parameters.items()
            if parameter.grad is not None
        }
        self._optimizer.zero_grad()
        return gradients

    def _evaluates_steps(self) -> bool:
        return len(self._session.steps) <= EVALUATED_STEPS

    def _record(self, just_pruned: bool = False) -> None:
        """Evaluate the state as it is, and keep it where it is the best of those at the rate."""
        training_loss = None if just_pruned else self._processes.mean(sum(self._losses) / len(self._losses))
        if not just_pruned:
            self._losses.clear()
        self._history.append(self._evaluate(training_loss))
        if self._session.settled and (self._best is None or self._history[-1].better_than(self._best[0])):
            state = {name: tensor.clone() for name, tensor in self._session.module.state_dict().items()}
            self._best = self._history[-1], state

    def _evaluate(self, training_loss: float | None) -> Epoch:
        if self._settings.batch_norm == "re-estimate":
            batches = range(min(ESTIMATION_BATCHES, self._batches.an_epoch))
            inputs = (self._batches.at(batch).to(self._processes.device).inputs for batch in batches)
            re_estimate(self._session.modes.norm_modules, inputs, self._session.module.eval())
        outputs = self._forward(self._session.module.eval(), self._validation)
        loss = float(self._objective(outputs, unmixed(self._validation), self._validation_teacher))
        labels, accuracy = self._validation.labels, None
        if labels is not None and not labels.is_floating_point():
            axis = class_axis(tuple(outputs[0].shape), tuple(labels.shape))
            assert axis is not None, "labels are checked before training"
            accuracy = float((outputs[0].argmax(axis) == labels).float().mean())
        epoch = self._session.updates / self._batches.an_epoch
        return Epoch(self._session.steps_made, epoch, training_loss, loss, accuracy)

    def _forward(self, module: torch.nn.Module, samples: Samples) -> Outputs:
        """A module's outputs on all samples, without gradients."""
        size = self._batches.fixed_size or FORWARD_SAMPLES
        with torch.no_grad(), self._autocast():
            parts = [
                module(*samples.take(slice(start, start + size)).inputs)
                for start in range(0, len(samples), size)
            ]
        return _widened(tuple(torch.cat(column) for column in zip(*parts, strict=True)))

    def _autocast(self) -> torch.autocast:
        enabled = self._settings.precision == "bfloat16"
        return torch.autocast(self._processes.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _open_checkpoint(self, settings: Mapping[str, Any]) -> Checkpoint | None:
        if self._settings.checkpoint is None:
            return None
        origin = {
            "settings": json.dumps(settings),
            "model": digest(self._parameters),
            "data": digest((*self._batches.samples.inputs, *self._validation.inputs)),
            "number of processes": self._processes.count,
        }
        minutes = self._settings.checkpoint_minutes
        return Checkpoint(
            os.fspath(self._settings.checkpoint), minutes, origin, writes=self._processes.rank == 0
        )

    def _resumed(self) -> bool:
        """Go on from the checkpoint, if that is asked for and it is there. All that is random comes from numbers."""
        state = self._checkpoint.read() if self._checkpoint is not None and self._settings.resume else None
        if state is None:
            return False
        self._session.load_state_dict(state["session"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._history = [Epoch(**record) for record in state["history"]]
        self._losses = state["losses"]
        if state["best"] is not None:
            record, module = state["best"]
            self._best = Epoch(**record), module
        return True

    def _state(self) -> State:
        return {
            "session": self._session.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "history": [asdict(epoch) for epoch in self._history],
            "losses": self._losses,
            "best": None if self._best is None else (asdict(self._best[0]), self._best[1]),
        }


def _widened(outputs: Outputs) -> Outputs:
    """bfloat16 as float32, which losses are computed in."""
    return tuple(output.float() if output.dtype == torch.bfloat16 else output for output in outputs)


def _objective(
    session: PruningSession, validation: Samples, teacher: Outputs, settings: FineTuneSettings
) -> Objective:
    if validation.labels is not None:
        check_labels(validation.labels, settings.loss)
    return Objective(
        _distill_share(validation, settings),
        settings.temperature,
        tuple(_producer_type(output) for output in session.model.graph.outputs),
        settings.loss,
        settings.label_smoothing,
        settings.distill_loss,
        tuple(float(output.float().var(correction=0)) for output in teacher),
        load_function(settings.loss) if ":" in settings.loss else None,
    )


def _distill_share(samples: Samples, settings: FineTuneSettings) -> float:
    if samples.labels is not None:
        return DEFAULT_DISTILL if settings.distill is None else settings.distill
    if settings.distill is not None and settings.distill < 1:
        raise DataError(
            f"--data has no labels, so --distill {settings.distill:g} leaves a part of the loss without a target: "
            "add 'labels' to the data or drop --distill"
        )
    return 1.0


def _producer_type(output: ir.Value) -> str:
    """The operator that makes an output, behind any Identity."""
    producer = output.producer()
    while producer is not None and producer.op_type == "Identity" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return "" if producer is None else producer.op_type
