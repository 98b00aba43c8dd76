"""Fine-tuning of the remaining weights: the training loop around a pruning session."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from onnxprune.config.declare import settled
from onnxprune.config.training import FineTuneSettings
from onnxprune.data.dataset import Dataset
from onnxprune.errors import DataError, NotFiniteError
from onnxprune.system.progress import Progress
from onnxprune.training.averaging import HORIZON, Average
from onnxprune.training.checkpoint import Checkpoint, State, digest
from onnxprune.training.distributed import Processes
from onnxprune.training.feed import Feed, Runs
from onnxprune.training.losses import Objective, load_function
from onnxprune.training.module.batch_norm import standardize
from onnxprune.training.moments import Moments
from onnxprune.training.optimization import learning_rate, make_optimizer, penalize
from onnxprune.training.pace import Pace
from onnxprune.training.precision import Precision
from onnxprune.training.samples import DROPOUT, MIXTURE, Samples, mix, random, random_seed
from onnxprune.training.scoring import MakeScorer
from onnxprune.training.session import PruningSession
from onnxprune.training.teacher import Teacher, teacher_module
from onnxprune.training.truths import Truth
from onnxprune.training.validation import Epoch, Validation

# Batches whose gradients are summed for the taylor criterion.
SCORING_BATCHES = 32
# The weight of the distillation loss if there are labels and no `--distill`.
DEFAULT_DISTILL = 0.5
# With more pruning steps than this, only epochs are evaluated.
EVALUATED_STEPS = 20

# A line for each evaluation on validation data, for whoever listens; its numbers are in `evaluation`.
EPOCHS = logging.getLogger("onnxprune.epochs")


class FineTuner:
    """The training loop of a session that is not yet started, in one of the processes of the job.

    `make_scorer`: makes what scores the outputs on validation data by the metric of the job; `trained` and
    `validated`: the outputs whose labels the loss is of ("" is the first one), and how those of the training and of the
    validation data are read, `unnamed` the one that labels without a name are of; `origin`: the settings that affect
    the weights; a checkpoint is resumed only with the same ones.

    `diverged`: after the training, a sentence where it ended early because the loss or a gradient was not finite.

    Raises:
        DataError: a part of the loss has no target, or one that does not fit it.
        SettingError: the batch cannot be divided among the processes, or --loss is not a function.
    """

    def __init__(
        self,
        session: PruningSession,
        training: Feed,
        validation: Dataset,
        settings: FineTuneSettings,
        processes: Processes,
        make_scorer: MakeScorer,
        trained: Mapping[str, Truth],
        validated: Mapping[str, Truth],
        origin: Mapping[str, Any],
        deadline: float | None = None,
        unnamed: str = "",
    ):
        self._session = session
        self._settings = settings
        self._processes = processes
        training.part = processes.part(training.size, training.data.run_axes.size or 1)
        self._batches = training
        self._pace = Pace(settled(settings.epochs) * training.an_epoch, deadline)
        self._pruned = [step.update for step in session.steps]
        session.module.to(processes.device)
        self._precision = Precision(settings.precision, processes.device, session.ends.names)
        self._validation = Validation(validation, training, processes, self._precision, make_scorer)
        self._teacher = Teacher(teacher_module(session, settings), self._precision)
        self._objective = self._make_objective(trained, unnamed)
        self._validation_objective = replace(self._objective, trained=validated)
        self._parameters = list(session.parameters.values())
        self._optimizer = make_optimizer(session.trained(), settings, session.scales.groups())
        self._average = Average(session, settings.average, HORIZON * training.an_epoch)
        self._mixes = bool(settings.mixup) and all(spec.dtype.kind == "f" for spec in training.specs)
        self._checkpoint = self._open_checkpoint(origin, validation)
        self._history: list[Epoch] = []
        self._losses: list[float] = []
        self._best: tuple[Epoch, dict[str, torch.Tensor]] | None = None
        self.diverged = ""

    def fit(self, progress: Progress = lambda fraction: None) -> list[Epoch]:
        """Train along the session's schedule, and write the best state on validation data into its model.

        Only states after the last pruning step can be the best one, including the state right after it. A training that
        diverges ends there.

        Raises:
            NotFiniteError: it diverges, and there is no such state.
        """
        with torch.random.fork_rng():
            try:
                self._train(progress)
            except NotFiniteError as error:
                if self._best is None:
                    raise
                text, update = str(error), round(self._best[0].epoch * self._batches.an_epoch)
                self.diverged = (
                    f"{text[0].upper()}{text[1:]}. It ended there, and the model is the best state before, that after "
                    f"{update:,} updates."
                )
        if self._best is None:
            raise self._diverged("no state at the final rate has a finite loss on validation data")
        self._session.module.load_state_dict(self._best[1])
        self._session.give_back()
        return self._history

    def _train(self, progress: Progress) -> None:
        session = self._session
        # What a pruning step has fitted is fitted with the statistics that it found: those of the batches, which take
        # their place, are measured behind it, so that the function is unchanged.
        fits = session.pruner.updates_weights
        if not fits:
            self._standardize()
        session.start(self._gradients())
        if fits:
            self._standardize()
        resumed = self._resumed()
        progress(self._pace.position / self._pace.length)
        if not resumed:
            self._record(just_pruned=True)
        if self._objective.distill > 0 and not self._mixes and settled(self._settings.epochs) > 1:
            self._teacher.keep(self._batches, self._processes)
        module = self._processes.wrap(session.module)
        self._pace.begin()
        progress(self._pace.position / self._pace.length)
        for runs in self._batches.from_update(session.updates, self._last_update()):
            self._losses.append(self._update(module, runs))
            self._pace.move()
            session.advance(self._pace.position)
            self._average.follow()
            step_follows = session.due is not None and self._evaluates_steps()
            if session.updates % self._batches.an_epoch == 0 or step_follows or self._pace.ended:
                self._record()
            pruned = session.prune_if_due(self._gradients(), self._optimizer)
            if pruned and (self._evaluates_steps() or session.settled):
                self._record(just_pruned=True)
            progress(self._pace.position / self._pace.length)
            if self._checkpoint is not None:
                self._checkpoint.write_if_due(self._state)
            if self._pace.is_due:
                # Every process takes the same one.
                self._pace.stride = self._processes.mean(self._pace.measured(self._batches.an_epoch))
            if self._pace.ended:
                break
        if self._checkpoint is not None:
            self._checkpoint.write(self._state())

    def _standardize(self) -> None:
        """Give norms that were put back the statistics of their inputs; the function does not change."""
        norms = self._session.modes.restored
        if norms:
            inputs = self._validation.statistics_inputs()
            standardize(self._session.module, norms, inputs, self._processes.mean_of)

    def _last_update(self) -> int:
        """The update before which the batches end; how many fit a time budget is not known."""
        return self._pace.length if self._pace.deadline is None else sys.maxsize

    def _update(self, module: torch.nn.Module, runs: Runs) -> float:
        """One update of the optimizer on a batch; returns the loss without the L1 penalty."""
        update = self._session.updates
        for group in self._optimizer.param_groups:
            rate = learning_rate(self._settings, self._pace.position, self._pace.length, self._pruned)
            group["lr"] = rate * group.get("share", 1.0)
        if self._session.modes.dropouts:
            torch.manual_seed(random_seed(self._settings.seed, DROPOUT, update, self._processes.rank))
        self._session.module.train()
        self._optimizer.zero_grad()
        mixture = random(self._settings.seed, MIXTURE, update)
        loss, count = 0.0, sum(map(len, runs))
        for place, samples in enumerate(runs, 1):
            # Gradients are summed over the runs of a batch; processes exchange them with the last one.
            with self._processes.alone(module, place < len(runs)):
                part = len(samples) / count * self._loss(module, samples, mixture)
                part.backward()
            loss += float(part.detach())
        self._check_finite(loss)
        self._session.observe()
        if self._settings.clip_norm is not None:
            self._session.mask_gradients()
            torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.clip_norm)
        penalize(self._parameters, self._settings)
        self._optimizer.step()
        return loss

    def _loss(self, module: torch.nn.Module, samples: Samples, mixture: torch.Generator) -> torch.Tensor:
        """The mean loss of samples that the model can be run on, a scalar."""
        batch = (mix(samples, mixture) if self._mixes else samples).to(self._processes.device)
        teacher = self._teacher(batch) if self._objective.distill > 0 else None
        return self._objective(self._precision.outputs(module, batch), batch, teacher)

    def _check_finite(self, loss: float) -> None:
        """Check the loss and its gradients, before they change a weight; the same in every process.

        Raises:
            NotFiniteError: one is not finite.
        """
        gradients: Any = [each.grad for each in self._parameters if each.grad is not None and each.numel()]
        largest = torch._foreach_norm(gradients, torch.inf) if gradients else ()
        finite = not len(largest) or bool(torch.stack([each.double() for each in largest]).isfinite().all())
        if self._processes.total(float(not (finite and math.isfinite(loss)))):
            found = "a gradient is not finite" if math.isfinite(loss) else f"the loss is {loss:g}"
            raise self._diverged(f"at update {self._session.updates + 1:,} {found}")

    def _diverged(self, found: str) -> NotFiniteError:
        return NotFiniteError(
            f"the training diverged: {found}; lower --learning-rate (it is {settled(self._settings.learning_rate):g}), "
            "or give --clip-norm 1"
        )

    def _gradients(self) -> dict[ir.Value, np.ndarray] | None:
        """dL/dw by the model's constants, in their shapes, for a pruning step that needs it; L: loss on the labels.

        Raises:
            DataError: there are no labels.
        """
        if self._session.pruner.needs != "gradients" or not self._session.prunes_next:
            return None
        if not self._objective.trained:
            raise DataError(
                "--criterion taylor needs labels: add 'labels' to --data, or use --criterion magnitude"
            )
        objective = replace(self._objective, distill=0.0)
        self._optimizer.zero_grad()
        self._session.module.eval()
        exact = replace(self._precision, name="float32")
        for runs in self._batches.some(self._session.updates, SCORING_BATCHES):
            count = sum(map(len, runs))
            for each in runs:
                samples = each.to(self._processes.device)
                loss = objective(exact.outputs(self._session.module, samples), samples, None)
                (len(samples) / count * loss).backward()
        gradients = {
            value: self._processes.mean_of(parameter.grad).cpu().contiguous().numpy()
            for value, parameter in self._session.parameters.items()
            if parameter.grad is not None
        }
        self._optimizer.zero_grad()
        for value, gradient in gradients.items():
            if not np.isfinite(gradient).all():
                raise self._diverged(f"the gradient of {value.name!r} is not finite, which --criterion needs")
        return gradients

    def _evaluates_steps(self) -> bool:
        return len(self._session.steps) <= EVALUATED_STEPS

    def _record(self, just_pruned: bool = False) -> None:
        """Evaluate the current state and the average of the weights; the history has the better of the two."""
        training_loss = None if just_pruned else self._processes.mean(sum(self._losses) / len(self._losses))
        if not just_pruned:
            self._losses.clear()
        begun = time.monotonic()
        found = self._considered(training_loss)
        if self._average.differs:
            with self._average.in_place():
                average = self._considered(training_loss, averaged=True)
            found = average if average.better_than(found) else found
        if not just_pruned and not math.isfinite(found.loss):
            raise self._diverged(
                f"after update {self._session.updates:,} the loss on validation data is {found.loss:g}"
            )
        self._history.append(found)
        if self._processes.rank == 0:
            # How many there will be within a time budget is not known.
            epochs = None if self._pace.deadline else self._pace.length / self._batches.an_epoch
            evaluation = asdict(found) | {"update": self._session.updates}
            EPOCHS.info(found.text(epochs), extra={"evaluation": evaluation})
        self._pace.evaluated(time.monotonic() - begun)

    def _considered(self, training_loss: float | None, averaged: bool = False) -> Epoch:
        """Evaluate the session as it is, and keep its state if it is the best one at the final rate."""
        session = self._session
        objective = self._validation_objective
        found = self._validation.evaluate(session, objective, self._teacher, training_loss, averaged)
        if (
            session.settled
            and self._is_finite(found)
            and (self._best is None or found.better_than(self._best[0]))
        ):
            state = {name: tensor.clone() for name, tensor in session.module.state_dict().items()}
            self._best = found, state
        return found

    def _is_finite(self, found: Epoch) -> bool:
        return math.isfinite(found.loss) and self._session.not_finite() is None

    def _make_objective(self, trained: Mapping[str, Truth], unnamed: str) -> Objective:
        """The loss; the scales of its parts are the variances of the teacher's outputs on validation data."""
        session, settings = self._session, self._settings
        objective = Objective(
            _distill_share(bool(trained), settings),
            settings.temperature,
            session.ends.names,
            session.ends.operators,
            settings.loss,
            settings.label_smoothing,
            settings.distill_loss,
            (),
            load_function(settings.loss) if ":" in settings.loss else None,
            trained,
            unnamed,
        )
        moments: list[Moments] = []
        for _, outputs in self._validation.followed(self._teacher) if objective.distill else ():
            moments = moments or [Moments() for _ in outputs]
            for moment, output in zip(moments, outputs, strict=True):
                moment.add(output)
        for name, moment in zip(objective.names, moments, strict=False):
            if not math.isfinite(self._processes.variance(moment)):
                raise NotFiniteError(
                    f"output {name!r} of the input model is not finite on {self._validation.name}: give data on which "
                    "it is, or labels and --distill 0"
                )
        if (
            moments
            and objective.distill == 1
            and not any(self._processes.total(each.count) for each in moments)
        ):
            raise DataError(
                f"no output has elements on {self._validation.name}, so nothing can be trained towards them: give data "
                "on which there are some, or prune without --data"
            )
        return replace(objective, scales=tuple(self._processes.variance(moment) for moment in moments))

    def _open_checkpoint(self, settings: Mapping[str, Any], validation: Dataset) -> Checkpoint | None:
        if self._settings.checkpoint is None:
            return None
        origin = {
            "settings": json.dumps(settings),
            "model": digest(self._parameters),
            "data": [self._batches.data.identity(), validation.identity()],
            "number of processes": self._processes.count,
        }
        minutes = self._settings.checkpoint_minutes
        return Checkpoint(
            os.fspath(self._settings.checkpoint), minutes, origin, writes=self._processes.rank == 0
        )

    def _resumed(self) -> bool:
        """Resume from the checkpoint, if --resume is given and it exists. Random numbers depend only on the update."""
        state = self._checkpoint.read() if self._checkpoint is not None and self._settings.resume else None
        if state is None:
            return False
        self._session.load_state_dict(state["session"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average.load_state_dict(state["average"])
        self._history = [Epoch(**record) for record in state["history"]]
        self._losses = state["losses"]
        self._pace.resume(state["pace"])
        if state["best"] is not None:
            record, module = state["best"]
            self._best = Epoch(**record), module
        return True

    def _state(self) -> State:
        return {
            "session": self._session.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.state_dict(),
            "history": [asdict(epoch) for epoch in self._history],
            "losses": self._losses,
            "pace": self._pace.state(),
            "best": None if self._best is None else (asdict(self._best[0]), self._best[1]),
        }


def _distill_share(labeled: bool, settings: FineTuneSettings) -> float:
    if labeled:
        return DEFAULT_DISTILL if settings.distill is None else settings.distill
    if settings.distill is not None and settings.distill < 1:
        raise DataError(
            f"--distill {settings.distill:g} needs labels for the rest of the loss, and --data has none that it "
            "could use: add 'labels' to the data, or remove --distill"
        )
    return 1.0
