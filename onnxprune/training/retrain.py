"""Retraining the survivors: the tool's own loop around a pruning session."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import class_axis
from onnxprune.errors import DataError
from onnxprune.training.checkpoint import Checkpoint, State, digest
from onnxprune.training.distributed import Processes
from onnxprune.training.losses import Objective, Outputs, check_labels, load_function
from onnxprune.training.modes import re_estimate
from onnxprune.training.optimisation import learning_rate, make_optimiser, penalise
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

if TYPE_CHECKING:
    from onnxprune.training.session import PruningSession

# Samples in a forward pass without gradients.
FORWARD_SAMPLES = 1024
# Batches whose gradients make first-order scores.
SCORING_BATCHES = 32
# Batches that BatchNormalization's statistics are measured on.
ESTIMATION_BATCHES = 32
# The input model's share of the loss where there are labels and `--distill` is not given.
DEFAULT_DISTILL = 0.5
# With more cuts than this, only epochs are judged.
JUDGED_CUTS = 20

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Epoch:
    """Held-out loss and accuracy (None without classes) after a pass over the data.

    `step` counts the cuts so far. Where they are few, a record without training loss is the state right after one.
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
    """A session that is not yet started, its data and its optimiser, in one of the processes that share the work.

    Raises:
        DataError: a part of the loss has no target, or one that it does not go with.
        SettingError: the batch does not go into equal parts, or --loss names no function.
    """

    def __init__(
        self,
        session: PruningSession,
        training: Batches,
        held_out: Samples,
        config: PruneConfig,
        processes: Processes,
    ):
        self._session = session
        self._config = config
        self._processes = processes
        self._part = processes.part(training.size)
        self._batches = training
        self._updates = config.epochs * training.an_epoch
        session.module.to(processes.device)
        self._teacher = copy.deepcopy(session.module).requires_grad_(False).eval()
        self._held_out = held_out.to(processes.device)
        self._held_out_teacher = self._forward(self._teacher, self._held_out)
        self._objective = _objective(session, self._held_out, self._held_out_teacher, config)
        self._parameters = list(session.parameters.values())
        self._optimiser = make_optimiser(self._parameters, config)
        self._mixes = config.mixup and all(inputs.is_floating_point() for inputs in held_out.inputs)
        self._checkpoint = self._open_checkpoint()
        self._history: list[Epoch] = []
        self._losses: list[float] = []
        self._best: tuple[Epoch, dict[str, torch.Tensor]] | None = None

    def fit(self, progress: Progress = lambda fraction: None) -> list[Epoch]:
        """Train through the session's schedule, and put into its model the best state on held-out data.

        Only states after the last cut count as best, the one right after it among them.
        """
        with torch.random.fork_rng():
            self._train(progress)
        assert self._best is not None, "the schedule's last cut comes before the end"
        self._session.module.load_state_dict(self._best[1])
        self._session.give_back()
        return self._history

    def _train(self, progress: Progress) -> None:
        session = self._session
        session.start(self._scores())
        if not self._resumed():
            self._record(just_cut=True)
        module = self._processes.wrap(session.module)
        while session.updates < self._updates:
            self._losses.append(self._update(module))
            session.advance()
            cut_follows = session.due is not None and self._judges_cuts()
            if session.updates % self._batches.an_epoch == 0 or cut_follows:
                self._record()
            if session.prune_if_due(self._scores()) and (self._judges_cuts() or session.settled):
                self._record(just_cut=True)
            progress(session.updates / self._updates)
            if self._checkpoint is not None:
                self._checkpoint.write_if_due(self._state)
        if self._checkpoint is not None:
            self._checkpoint.write(self._state())

    def _update(self, module: torch.nn.Module) -> float:
        """One update of the optimiser on the next batch; its loss before the penalty."""
        update = self._session.updates
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self._config, update, self._updates)
        samples = self._batches.at(update)
        whole = mix(samples, random(self._config.seed, MIXTURE, update)) if self._mixes else unmixed(samples)
        batch = whole.take(self._part).to(self._processes.device)
        if self._session.modes.dropouts:
            torch.manual_seed(random_seed(self._config.seed, DROPOUT, update, self._processes.rank))
        self._session.module.train()
        with self._autocast():
            with torch.no_grad():
                teacher = self._teacher(*batch.inputs) if self._objective.distill > 0 else None
            outputs = module(*batch.inputs)
        loss = self._objective(_widened(outputs), batch, None if teacher is None else _widened(teacher))
        self._optimiser.zero_grad()
        loss.backward()
        if self._config.clip_norm is not None:
            self._session.mask_gradients()
            torch.nn.utils.clip_grad_norm_(self._parameters, self._config.clip_norm)
        penalise(self._parameters, self._config)
        self._optimiser.step()
        return float(loss.detach())

    def _scores(self) -> dict[ir.Value, np.ndarray] | None:
        """w * dL/dw by the model's constants, of their shapes, L the labels' loss on some batches, for a cut that asks.

        The sum over a channel is what L loses without it, to first order (Molchanov et al. 2019).

        Raises:
            DataError: there are no labels.
        """
        if self._config.importance != "taylor" or self._session.due is None:
            return None
        if self._held_out.labels is None:
            raise DataError("--importance taylor needs 'labels' in --data: add them, or use --importance l2")
        objective = replace(self._objective, distill=0.0)
        self._optimiser.zero_grad()
        self._session.module.eval()
        for batch in range(SCORING_BATCHES):
            samples = unmixed(self._batches.at(self._session.updates + batch).to(self._processes.device))
            objective(self._session.module(*samples.inputs), samples, None).backward()
        scores = {
            value: (parameter.detach() * parameter.grad).cpu().contiguous().numpy()
            for value, parameter in self._session.parameters.items()
            if parameter.grad is not None
        }
        self._optimiser.zero_grad()
        return scores

    def _judges_cuts(self) -> bool:
        return len(self._session.turns) <= JUDGED_CUTS

    def _record(self, just_cut: bool = False) -> None:
        """Judge the state as it is, and keep it where it is the best of those at the rate."""
        training_loss = None if just_cut else self._processes.mean(sum(self._losses) / len(self._losses))
        if not just_cut:
            self._losses.clear()
        self._history.append(self._judge(training_loss))
        if self._session.settled and (self._best is None or self._history[-1].better_than(self._best[0])):
            state = {name: tensor.clone() for name, tensor in self._session.module.state_dict().items()}
            self._best = self._history[-1], state

    def _judge(self, training_loss: float | None) -> Epoch:
        if self._config.batch_norm == "re-estimate":
            batches = range(min(ESTIMATION_BATCHES, self._batches.an_epoch))
            inputs = (self._batches.at(batch).to(self._processes.device).inputs for batch in batches)
            re_estimate(self._session.modes.norm_modules, inputs, self._session.module.eval())
        outputs = self._forward(self._session.module.eval(), self._held_out)
        loss = float(self._objective(outputs, unmixed(self._held_out), self._held_out_teacher))
        labels, accuracy = self._held_out.labels, None
        if labels is not None and not labels.is_floating_point():
            axis = class_axis(tuple(outputs[0].shape), tuple(labels.shape))
            assert axis is not None, "labels are checked before training"
            accuracy = float((outputs[0].argmax(axis) == labels).float().mean())
        epoch = self._session.updates / self._batches.an_epoch
        return Epoch(self._session.turns_made, epoch, training_loss, loss, accuracy)

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
        enabled = self._config.precision == "bfloat16"
        return torch.autocast(self._processes.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _open_checkpoint(self) -> Checkpoint | None:
        if self._config.checkpoint is None:
            return None
        origin = {
            "settings": json.dumps(self._config.training()),
            "model": digest(self._parameters),
            "data": digest((*self._batches.samples.inputs, *self._held_out.inputs)),
            "number of processes": self._processes.count,
        }
        minutes = self._config.checkpoint_minutes
        return Checkpoint(self._config.checkpoint, minutes, origin, writes=self._processes.rank == 0)

    def _resumed(self) -> bool:
        """Go on from the checkpoint, if that is asked for and it is there. All that is random comes from numbers."""
        state = self._checkpoint.read() if self._checkpoint is not None and self._config.resume else None
        if state is None:
            return False
        self._session.load_state_dict(state["session"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._history = [Epoch(**record) for record in state["history"]]
        self._losses = state["losses"]
        if state["best"] is not None:
            record, module = state["best"]
            self._best = Epoch(**record), module
        return True

    def _state(self) -> State:
        return {
            "session": self._session.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "history": [asdict(epoch) for epoch in self._history],
            "losses": self._losses,
            "best": None if self._best is None else (asdict(self._best[0]), self._best[1]),
        }


def _widened(outputs: Outputs) -> Outputs:
    """bfloat16 as float32, which losses are computed in."""
    return tuple(output.float() if output.dtype == torch.bfloat16 else output for output in outputs)


def _objective(
    session: PruningSession, held_out: Samples, teacher: Outputs, config: PruneConfig
) -> Objective:
    if held_out.labels is not None:
        check_labels(held_out.labels, config.loss)
    return Objective(
        _distill_share(held_out, config),
        config.temperature,
        tuple(_producer_type(output) for output in session.model.graph.outputs),
        config.loss,
        config.label_smoothing,
        config.distill_loss,
        tuple(float(output.float().var(correction=0)) for output in teacher),
        load_function(config.loss) if ":" in config.loss else None,
    )


def _distill_share(samples: Samples, config: PruneConfig) -> float:
    if samples.labels is not None:
        return DEFAULT_DISTILL if config.distill is None else config.distill
    if config.distill is not None and config.distill < 1:
        raise DataError(
            f"--data has no labels, so --distill {config.distill:g} leaves a part of the loss without a target: "
            "add 'labels' to the data or drop --distill"
        )
    return 1.0


def _producer_type(output: ir.Value) -> str:
    """The operator that makes an output, behind any Identity."""
    producer = output.producer()
    while producer is not None and producer.op_type == "Identity" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return "" if producer is None else producer.op_type
