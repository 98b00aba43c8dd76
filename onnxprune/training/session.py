"""Pruning inside of a training loop: the torch graph of a model, its masks, and the schedule that tightens them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir
import torch

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError
from onnxprune.job.pruner import Arrays, Cutter, make_cutter, usable_weights
from onnxprune.model.io import ModelLike, load
from onnxprune.pruning.schedule import Turn, turns
from onnxprune.pruning.selectors import matching, select
from onnxprune.sparse.restore import from_ops
from onnxprune.training.distributed import same_everywhere
from onnxprune.training.exchange import borrowed, give_back, take
from onnxprune.training.graph import to_torch
from onnxprune.training.masking import Masking
from onnxprune.training.modes import Modes, shrunk


class PruningSession:
    """A model as a torch module that loses its weights on schedule while someone's own loop trains it.

    `module` takes the graph's inputs in order and returns a tuple of its outputs; its parameters and masks carry the
    names of the initializers (`fc1.weight`, `fc1.weight_mask`). After every step of the optimiser call `step()`, in
    the end `finish()`. `updates` is the number of those steps; the settings are the fields of `PruneConfig` that say
    what goes and when: `rate`, `scope`, `schedule` and so on.

    Raises:
        OnnxPruneError: what is wrong, in a sentence that says the mend.
    """

    def __init__(self, model: ModelLike, updates: int, **settings: Any):
        config = PruneConfig(**settings)
        if config.searches:
            raise SettingError("a session goes to one rate: give rate or quality; onnxprune.prune searches")
        if config.importance == "taylor":
            raise SettingError(
                "importance taylor takes the tool's own loop over the data: use l2 or l1 in a session"
            )
        loaded, origin = load(model)
        from_ops(loaded)
        weights = usable_weights(loaded, origin.name, config).prunable
        self._set_up(loaded, make_cutter(loaded, weights, config), config, updates)
        self.start()

    @classmethod
    def of(cls, model: ir.Model, cutter: Cutter, config: PruneConfig, updates: int) -> PruningSession:
        """A session, not yet started, on a model that is pruned in place."""
        session = cls.__new__(cls)
        session._set_up(model, cutter, config, updates)
        return session

    def _set_up(self, model: ir.Model, cutter: Cutter, config: PruneConfig, updates: int) -> None:
        if updates < 1:
            raise SettingError(f"a session of {updates} updates trains nothing: give 1 or more")
        # Convolutions and pooling on CPUs are faster so: a step of LeNet-5 takes 14 ms instead of 25.
        # (torch's stubs do not know the argument.)
        modes = Modes(model, config.batch_norm, _dropouts(cutter, config))
        graph = to_torch(modes.prepared(_values(model, config)))
        modes.install(graph)
        self.module = graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modes = modes
        self.parameters = borrowed(self.module, model)
        self.turns = turns(config, updates, cutter.families)
        self.updates = 0
        self.turns_made = 0
        self.model = model
        self._cutter = cutter
        self._regrow = config.regrow
        # A calibrated cut also moves what stays.
        self._fits = config.calibrated
        self._masking = Masking(self.module, self.parameters, splices=config.schedule == "splice")

    def go_on_from(self, module: Mapping[str, torch.Tensor]) -> None:
        """Take over weights and masks, before the start, from the module of a session that cut less."""
        self._masking.expect(module)
        self.module.load_state_dict(module)

    def start(self, scores: Arrays | None = None) -> None:
        """Put the masks on, and make the first cut where it comes before all training."""
        self._masking.begin((weight.value for weight in self._cutter.weights), self._regrow)
        self.prune_if_due(scores)

    def step(self) -> None:
        """To be called after every step of the optimiser."""
        self.advance()
        self.prune_if_due()

    def finish(self) -> onnx.ModelProto:
        """The pruned model, zeros in place; what the schedule had still to cut is cut first."""
        if not self.settled:
            self._prune(self.turns[-1], None)
        self.give_back()
        return ir.to_proto(ir.external_data.load_to_model(self.model))

    @property
    def settled(self) -> bool:
        """Whether the last cut is made, so that the masks stay."""
        return self.turns_made == len(self.turns)

    @property
    def due(self) -> Turn | None:
        """The cut that is to be made now."""
        waiting = self.turns[self.turns_made :]
        return waiting[0] if waiting and waiting[0].update <= self.updates else None

    def advance(self) -> None:
        """Count an update of the optimiser, and hold the masks."""
        self.updates += 1
        self._masking.hold()

    def prune_if_due(self, scores: Arrays | None = None) -> bool:
        """Make the cut that is due, if any; `scores`: w * dL/dw by the model's constants, for importance taylor."""
        turn = self.due
        if turn is not None:
            self._prune(turn, scores)
        return turn is not None

    def mask_gradients(self) -> None:
        """Zero the gradients of what is cut for good, so that they count in no norm."""
        self._masking.mask_gradients()

    def give_back(self) -> None:
        """Put the weights into the model."""
        give_back(self.parameters | self.modes.statistics(self.module))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the session goes on from: plain numbers and tensors."""
        return {"updates": self.updates, "turns_made": self.turns_made, "module": self.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict` of a session with the same model and settings."""
        self.updates, self.turns_made = state["updates"], state["turns_made"]
        self._masking.expect(state["module"])
        self.module.load_state_dict(state["module"])
        if self.turns_made:
            self._follow(self.turns[self.turns_made - 1])

    def _prune(self, turn: Turn, scores: Arrays | None) -> None:
        give_back(self._masking.weights())
        if self._fits:
            give_back(self.modes.statistics(self.module))
        self._masking.fix(())
        self._masking.set(self._cutter.cut(turn, scores or {}))
        if self._fits:
            take(self.parameters | self.modes.statistics(self.module))
        same_everywhere(self._masking.masks())
        self._masking.hold()
        self.turns_made = self.turns.index(turn) + 1
        self._follow(turn)

    def _follow(self, turn: Turn) -> None:
        """What holds from a cut on."""
        self._masking.fix(self._cutter.fixed(turn))
        for dropout, drop in self.modes.dropouts:
            if drop.weight is not None:
                dropout.p = shrunk(drop.ratio, self._masking.density(drop.weight))
        if self.settled:
            self._masking.settle()


def _dropouts(cutter: Cutter, config: PruneConfig) -> list[tuple[ir.Value, float]]:
    """The weights behind whose layers to drop, with the ratio."""
    chosen = {
        weight.value: ratio
        for selector, ratio in config.dropout
        for weight in select(selector, cutter.weights)
    }
    return list(chosen.items())


def _values(model: ir.Model, config: PruneConfig) -> list[str]:
    """The names of the inner values that `--distill-values` selects, each once."""
    names = [value.name for node in model.graph for value in node.outputs if value.name and value.uses()]
    chosen = [
        name for selector in config.distill_values for name in matching(selector, names, "value of the graph")
    ]
    return list(dict.fromkeys(chosen))
