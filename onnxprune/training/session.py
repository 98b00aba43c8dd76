"""Pruning inside a training loop: the torch graph of a model, its masks, and the pruning schedule."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import fx

from onnxprune.config.training import FineTuneSettings, LossSettings, TrainingSettings
from onnxprune.data.batch import Batch
from onnxprune.data.specs import input_specs
from onnxprune.errors import NotFiniteError, SettingError
from onnxprune.model.files.aside import serialized
from onnxprune.pruning.pruner import Arrays, Pruner
from onnxprune.pruning.schedule import PruningStep, Schedule
from onnxprune.pruning.selectors import select
from onnxprune.training.distributed import same_everywhere
from onnxprune.training.features import features
from onnxprune.training.masking import Gradients, Masking, Returned
from onnxprune.training.module.ends import Ends, until
from onnxprune.training.module.exchange import borrowed, give_back, take
from onnxprune.training.module.graph import channels_last, to_torch
from onnxprune.training.module.modes import Modes, shrunk
from onnxprune.training.module.norms import restored_norms
from onnxprune.training.module.running import run
from onnxprune.training.optimization import forget
from onnxprune.training.samples import Samples
from onnxprune.training.simulation import Scales, Simulation

# Positions on the schedule are sums of fractions.
EXACT = 1e-6


class PruningSession:
    """A model as a torch module that is pruned on a schedule while a training loop updates the remaining weights.

    `module` takes the graph's inputs in order and returns a tuple of its outputs; those without a gradient are replaced
    by what leads to them, see `ends`. Its parameters and masks have the
    names of the initializers (`fc1.weight`, `fc1.weight_mask`). Call `start()` before the training, `step()` after
    every step of the optimizer, and `finish()` at the end. The model is pruned in place.
    """

    def __init__(
        self,
        model: ir.Model,
        pruner: Pruner,
        schedule: Schedule,
        settings: FineTuneSettings,
        simulation: Simulation | None = None,
    ):
        modes = Modes(model, settings.batch_norm, _dropouts(pruner, settings))
        self.simulation = simulation
        learned = () if simulation is None else simulation.scales
        self.embeddings = {weight.value.name or "" for weight in pruner.weights} | set(learned)
        self.module, self.ends = training_graph(model, modes, settings, self.embeddings)
        self.modes = modes
        self.parameters = borrowed(self.module, model, self.embeddings)
        for norm in restored_norms(model):
            # The norm takes the mean away, and with it the bias.
            self.parameters[norm.layer.bias].requires_grad_(False)
        self._scaling = {value: each for value, each in self.parameters.items() if value.name in learned}
        self.scales = Scales(list(self._scaling.values()))
        self.steps = _possible(schedule, pruner)
        self.updates = 0
        self._position = 0.0
        self._stride = 1.0
        self.steps_made = 0
        self.model = model
        self.pruner = pruner
        self._regrow_zeros = schedule.regrow_zeros
        self._masking = Masking(
            self.module, self.parameters, regrows=schedule.regrows, follows=pruner.needs == "movement"
        )
        self._gradients: Gradients = {}
        # A buffer, for example a mask of an attention, may hold -inf.
        self._finite = [name for name, tensor in self._tensors().items() if tensor.isfinite().all()]

    def start_from(self, module: Mapping[str, torch.Tensor]) -> None:
        """Before `start()`: load weights and masks from the module of a session at a lower rate."""
        self._masking.expect(module)
        self.module.load_state_dict(module)

    def start(self, gradients: Arrays | None = None) -> None:
        """Create the masks, and make the first pruning step if it is due before any training."""
        self._masking.begin((weight.value for weight in self.pruner.weights), self._regrow_zeros)
        self.prune_if_due(gradients)

    def step(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Count a step of the optimizer, apply the masks, and prune if a pruning step is due.

        `optimizer`: loses what it has gathered about removed weights that are trained again (rigl and ac-dc).

        Raises:
            SettingError: the schedule needs gradients, and the optimizer has set them to zero or None already.
        """
        if self._exchanges_next and not self._gradients:
            self._gradients = self._masking.gradients()
            if not any(gradient.any() for gradient in self._gradients.values()):
                raise SettingError(
                    "--schedule rigl needs the gradients of the last batch: call session.step() before "
                    "optimizer.zero_grad()"
                )
        self.advance()
        self.prune_if_due(optimizer=optimizer)

    def observe(self) -> None:
        """After a backward pass, before gradients are changed: note what the criterion and the schedule need of it."""
        self._masking.follow()
        if self._exchanges_next:
            self._gradients = self._masking.gradients()

    def finish(self) -> onnx.ModelProto:
        """The pruned model in dense format; pruning steps that are still missing are made first.

        Raises:
            NotFiniteError: the training has made a parameter NaN or infinite.
        """
        if not self.settled:
            self._make(self.steps[-1], None)
        if (name := self.not_finite()) is not None:
            raise NotFiniteError(
                f"parameter {name!r} holds NaN or infinity: the training diverged; lower the learning rate, or clip "
                "gradients"
            )
        self.give_back()
        return serialized(ir.external_data.load_to_model(self.model))

    def not_finite(self) -> str | None:
        """The name of a parameter or buffer of the module that holds NaN or infinity and did not at the start."""
        tensors = self._tensors()
        return next((name for name in self._finite if not tensors[name].isfinite().all()), None)

    def _tensors(self) -> dict[str, torch.Tensor]:
        state = self.module.state_dict()
        return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}

    def outputs_of(self, batch: Batch) -> list[np.ndarray]:
        """The outputs of the module, as it is, for samples that one run is for; these are along the first axis."""
        specs = input_specs(self.model)
        with torch.no_grad():
            samples = Samples.of(batch, specs)
            outputs = samples.rows(run(self.module, samples.feeds()), self.ends.names)
        return [output.cpu().numpy() for output in outputs]

    @property
    def settled(self) -> bool:
        """Whether the last pruning step is made, so that the masks no longer change."""
        return self.steps_made == len(self.steps)

    @property
    def rate(self) -> float:
        """The fraction of the elements of the masked weights that are removed."""
        masks = self._masking.masks()
        return 1 - sum(int(mask.sum()) for mask in masks) / max(sum(mask.numel() for mask in masks), 1)

    @property
    def due(self) -> PruningStep | None:
        """The pruning step to make now, if any; where the position has passed several, the last of them."""
        passed = [step for step in self.steps[self.steps_made :] if step.update <= self._position + EXACT]
        return passed[-1] if passed else None

    def advance(self, position: float | None = None) -> None:
        """Count an update of the optimizer, and apply the masks; `position` on the schedule, by default the count."""
        self.updates += 1
        before, self._position = self._position, self.updates if position is None else position
        self._stride = self._position - before
        self._masking.hold()
        self.scales.hold()

    @property
    def prunes_next(self) -> bool:
        """Whether a step is due that the pruner makes."""
        return self.due is not None and self.due.kind == "prune"

    def prune_if_due(
        self, gradients: Arrays | None = None, optimizer: torch.optim.Optimizer | None = None
    ) -> bool:
        """Make the pruning step that is due, if any; returns whether there was one.

        `gradients`: see `Pruner`; `optimizer`: see `step`.
        """
        step = self.due
        if step is not None:
            forget(optimizer, self._make(step, gradients))
        return step is not None

    def mask_gradients(self) -> None:
        """Zero the gradients of permanently removed weights, so that gradient clipping ignores them."""
        self._masking.mask_gradients()

    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters, without scales of activations."""
        return [each for value, each in self.parameters.items() if value not in self._scaling]

    def give_back(self) -> None:
        """Write the weights into the model."""
        give_back(self.parameters | self.modes.statistics(self.module))

    def state_dict(self) -> dict[str, Any]:
        """The state of the session: plain numbers and tensors."""
        return {
            "updates": self.updates,
            "position": self._position,
            "steps_made": self.steps_made,
            "module": self.module.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict()` of a session with the same model and settings."""
        self.updates, self.steps_made = state["updates"], state["steps_made"]
        self._position = state["position"]
        self._masking.expect(state["module"])
        self.module.load_state_dict(state["module"])
        if self.steps_made:
            self._follow(self.steps[self.steps_made - 1])

    @property
    def _exchanges_next(self) -> bool:
        """Whether the next update is followed by a step that needs the gradients of all weights."""
        next_position = self._position + self._stride + EXACT
        return any(step.share > 0 and step.update <= next_position for step in self.steps[self.steps_made :])

    def _make(self, step: PruningStep, gradients: Arrays | None) -> Returned:
        """Make a step; returns which removed weights are trained again."""
        self._masking.fix(())
        returned: Returned = {}
        if step.kind == "prune":
            self._prune(step, gradients or {})
        elif step.kind == "exchange":
            returned = self._masking.exchange(step.share, self._gradients)
            self._gradients = {}
        else:
            returned = self._masking.lift()
        same_everywhere(self._masking.masks())
        self._masking.hold()
        self.steps_made = self.steps.index(step) + 1
        self._follow(step)
        return returned

    def _prune(self, step: PruningStep, gradients: Arrays) -> None:
        give_back(self._masking.weights())
        if self.pruner.updates_weights:
            give_back(self.modes.statistics(self.module))
        measured = self._masking.movement() if self.pruner.needs == "movement" else gradients
        self._masking.set(self.pruner.prune(step, measured))
        if self.pruner.updates_weights:
            take(self.parameters | self.modes.statistics(self.module))

    def _follow(self, step: PruningStep) -> None:
        """Apply what changes after a pruning step: frozen layers, dropout ratios, and the end of regrowth."""
        self._masking.fix(self.pruner.fixed(step))
        for dropout, drop in self.modes.dropouts:
            if drop.weight is not None:
                dropout.p = shrunk(drop.ratio, self._masking.density(drop.weight))
        if self.settled:
            self._masking.settle()


def training_graph(
    model: ir.Model, modes: Modes, settings: LossSettings, embeddings: Collection[str]
) -> tuple[fx.GraphModule, Ends]:
    """The module of a model for training, and what it gives; --distill-features follow. `embeddings`: see `to_torch`.

    Raises:
        UnsupportedOperatorError: an operator between the weights has no entry in the table.
        SettingError: --train-until names nothing, or what no gradient comes from.
    """
    name = settings.train_until
    named = [] if name is None else until(model, name)
    prepared = modes.prepared(features(model, settings), [value.name or "" for value in named])
    graph = to_torch(prepared, embeddings, [value.name or "" for value in named or model.graph.outputs])
    modes.install(graph)
    ends: Ends = graph.meta["ends"]
    if name is None:
        return channels_last(graph), ends
    if ends.stand_ins:
        raise SettingError(
            f"--train-until {name}: it has no gradient; give a node before it, such as the one that makes "
            f"{', '.join(each for found in ends.stand_ins.values() for each in found) or 'its inputs'}"
        )
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    behind = not used.issuperset(graph.meta["parameters"].values())
    # Labels of an output with weights before it are not those of what these weights read.
    stand_ins: tuple[str, ...] = () if behind else ends.names
    replaced = {
        output.name or "": stand_ins for output in model.graph.outputs if output.name not in ends.names
    }
    return channels_last(graph), replace(ends, stand_ins=replaced, weights_behind=behind)


def _possible(schedule: Schedule, pruner: Pruner) -> tuple[PruningStep, ...]:
    """The steps of a schedule; before the first update, nothing has moved yet.

    Raises:
        SettingError: all of them are before the first update.
    """
    steps = tuple(step for step in schedule.steps if step.update or pruner.needs != "movement")
    if not steps:
        raise SettingError(
            "--criterion movement needs training before the last pruning step: give more --epochs or a later "
            "--pruning-end"
        )
    return steps


def _dropouts(pruner: Pruner, settings: TrainingSettings) -> list[tuple[ir.Value, float]]:
    """The weights of layers with --dropout, and the ratios."""
    chosen = {
        weight.value: ratio
        for selector, ratio in settings.dropouts
        for weight in select(selector, pruner.weights)
    }
    return list(chosen.items())
