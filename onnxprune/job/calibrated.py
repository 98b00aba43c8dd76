"""Pruning by what the layers read: a criterion, reconstruction and corrections, layer by layer.

The layers are taken in the order of the graph, so that each is fitted to inputs that come through what was pruned
before it, and towards the outputs of the dense model: it makes up for the errors of the layers before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.corrections import bias_of, correct_norm, shift_bias
from onnxprune.calibration.moments import collect
from onnxprune.calibration.segments import Tensors
from onnxprune.calibration.walk import Visit, affordable, walk
from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset
from onnxprune.model.blocks import Blocks
from onnxprune.model.constants import constant_tensor, constants
from onnxprune.model.weights import Weight
from onnxprune.pruning.criteria import find_criterion, ranks
from onnxprune.pruning.layerwise import Problem, reconstruct
from onnxprune.pruning.patterns import keep_largest, keep_n_of_m

# A layer needs (inputs, inputs) matrices of float64: wider ones are pruned by magnitude.
WIDEST = 8192


@dataclass(frozen=True)
class Calibration:
    """A model with the constants that it had when it was dense, and inputs to run it on."""

    model: ir.Model
    dense: Tensors
    data: Dataset
    config: PruneConfig

    @classmethod
    def of(cls, model: ir.Model, data: Dataset, config: PruneConfig) -> Calibration:
        """For a model that is still dense; of the data, samples spread evenly over it."""
        dense = {
            value: tensor for value in constants(model) if (tensor := constant_tensor(value)) is not None
        }
        samples = affordable(model, data, config.calibration_samples)
        return cls(model, dense, data.take(np.linspace(0, len(data) - 1, samples).astype(int)), config)

    def prune(self, weights: Sequence[Weight], rates: Mapping[str, float]) -> dict[ir.Value, np.ndarray]:
        """Prune weights, in the model, to the rates given by name: the masks by value, True = kept.

        Weights without a rate are left as they are, those of `passed_over` are pruned by magnitude.
        """
        visited: dict[ir.Node, list[Weight]] = {}
        masks = {}
        passed_over = set(self.passed_over(weights))
        for weight in (weight for weight in weights if weight.name in rates):
            if weight in passed_over:
                masks[weight.value] = prune_by_magnitude(weight, rates[weight.name], self.config.pattern)
            else:
                visited.setdefault(weight.uses[0].node, []).append(weight)
        norms = {
            node
            for node in self.model.graph
            if node.op_type == "BatchNormalization" and self.config.norm_correction
        }
        for visit in walk(self.model, self.dense, self.data, visited.keys() | norms):
            if visit.node in norms:
                correct_norm(visit, self.dense)
            for weight in visited.get(visit.node, ()):
                masks[weight.value] = self._prune_layer(weight, rates[weight.name], visit)
        return masks

    def passed_over(self, weights: Sequence[Weight]) -> list[Weight]:
        """Those whose inputs say nothing here: in the body of an If, not read as `Blocks`, wider than `WIDEST`."""
        graph = set(self.model.graph)
        return [
            weight
            for weight in weights
            if weight.uses[0].node not in graph
            or not Blocks.fit(weight)
            or Blocks.of(weight).shape[2] > WIDEST
        ]

    def _prune_layer(self, weight: Weight, rate: float, visit: Visit) -> np.ndarray:
        blocks = Blocks.of(weight)
        bias = bias_of(weight) if self.config.bias_correction else None
        fits = self.config.reconstruct or find_criterion(self.config.criterion).solve is not None
        dense = blocks.split(self.dense[weight.value].numpy()).astype(np.float64)
        alive = blocks.split(weight.array()) != 0
        moments = problem = None
        # By far the most work, which a mask alone does not need.
        if fits or bias is not None:
            moments = collect(blocks, visit.pairs(blocks.data), self.config.seed)
        if fits and moments is not None:
            # A bias that makes up for the mean leaves the variance to the weights.
            fitted = moments if bias is None else moments.centered()
            problem = Problem.of(dense, fitted.second, fitted.cross)
        scores = self._scores(blocks, dense, visit)
        mask, values = self._choose(blocks, dense, scores, alive, rate, problem)
        weight.assign(blocks.join(values))
        if bias is not None and moments is not None:
            shift_bias(bias, self.dense[bias], moments, dense, values)
        return blocks.join(mask)

    def _scores(self, blocks: Blocks, dense: np.ndarray, visit: Visit) -> np.ndarray:
        """How much each weight matters, (groups, outputs, inputs), above 0."""
        criterion = find_criterion(self.config.criterion)
        if criterion.needs != "inputs" or criterion.solve is not None:
            return np.abs(dense)
        # With norms of the pruned model's inputs LeNet-5 at 70 % is wrong on 33 % instead of 14 %.
        squares = blocks.square_sums([batch[blocks.data] for batch in visit.dense])
        return criterion.score(dense, np.sqrt(squares))

    def _choose(
        self,
        blocks: Blocks,
        dense: np.ndarray,
        scores: np.ndarray,
        alive: np.ndarray,
        rate: float,
        problem: Problem | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mask and the values under it, both (groups, outputs, inputs); fitted to a problem where there is one."""

        def choose(scores: np.ndarray, part: float) -> np.ndarray:
            # From 1, so that what is dead ranks below all.
            scores = ranks(scores) + 1 if self.config.allocation == "per-output" else scores
            return keep(blocks, np.where(alive, scores, 0), rate * part, self.config.pattern) & alive

        solve = find_criterion(self.config.criterion).solve
        if problem is not None and solve is not None:
            mask, values = solve(problem, choose)
        else:
            mask = choose(scores, 1.0)
            values = np.where(mask, dense, 0)
        if problem is not None and self.config.reconstruct:
            values = reconstruct(problem, mask, values)
        return mask, values


def prune_by_magnitude(weight: Weight, rate: float, pattern: str) -> np.ndarray:
    """Prune one weight, in the model, by the size of its elements, in a pattern: the mask, True = kept."""
    scores = np.abs(weight.numbers().astype(np.float64))
    mask = keep(weight, scores, rate, pattern) & weight.present()
    weight.prune(~mask)
    return mask


def keep(layout: Blocks | Weight, scores: np.ndarray, rate: float, pattern: str) -> np.ndarray:
    """A mask (True = kept) of the largest scores in the pattern, in the layout: a weight's own shape, or its blocks'.

    Exactly round(rate * n) of n are removed; under 2:4 no more than the pattern removes, and on the way to it the
    smallest of those that it removes in the end.
    """
    if pattern != "2:4":
        return keep_largest([scores], rate)[0]
    spared = layout.channels_back(keep_n_of_m(layout.channels_last(scores), 2, 4))
    if round(rate * scores.size) >= np.count_nonzero(~spared):
        return spared
    return keep_largest([np.where(spared, np.inf, scores)], rate)[0]
