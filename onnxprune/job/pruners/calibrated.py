"""Pruning with calibration data: a criterion, reconstruction and corrections, layer by layer.

Layers are pruned in the order of the graph. Each is fitted to the inputs that it has in the pruned model and to the
outputs that it has in the dense model, so it also compensates the errors of the layers before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.corrections import bias_of, correct_norm, shift_bias
from onnxprune.calibration.moments import COLUMNS, Moments, check_finite, collect
from onnxprune.calibration.segments import Tensors
from onnxprune.calibration.split import split
from onnxprune.calibration.unseen import Places, constants_of, places_before, unseen
from onnxprune.calibration.walk import Visit, affordable, walk
from onnxprune.config.settings import PruneConfig
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.job.pruners.blockwise import NO_LIMITS, Limits, Reconstruction
from onnxprune.model.blocks import Blocks
from onnxprune.model.constants import constant_tensor, constants
from onnxprune.model.shapes.inference import infer_shapes
from onnxprune.model.weights import Weight, find_weights
from onnxprune.pruning.blocks import BLOCK_PATTERNS
from onnxprune.pruning.criteria import find_criterion, ranks
from onnxprune.pruning.layerwise import DAMPING, Problem, best_damping, reconstruct
from onnxprune.pruning.patterns import keep_largest, keep_n_of_m
from onnxprune.pruning.sensitivity import PrunedArrays, pruned_arrays
from onnxprune.reports.record import Detail
from onnxprune.system.progress import StageProgress

# A layer needs (inputs, inputs) matrices of float64; layers with more inputs are pruned by magnitude.
WIDEST = 8192
# One of so many batches is apart where the damping is chosen: the others are fitted to, and these tell how well.
HELD_OF = 4
# One of so many samples is fitted to nowhere, and says how well what was fitted to the others does; of fewer samples,
# none.
VALIDATION_OF = 8
FEWEST_TO_SPLIT = 64
# Of a layer that is fitted to its own outputs, on the pruned model's inputs.
OWN_DAMPING = 1.0
# Layers with more inputs take long to solve, and are solved once.
WIDEST_DAMPED = 2048


@dataclass(frozen=True)
class Calibration:
    """A model that is being pruned, the constants of the dense model, and the calibration inputs.

    `held`: those of the inputs that nothing is fitted to; None where all are needed, or nothing is validated.
    """

    model: ir.Model
    dense: Tensors
    data: Batch
    config: PruneConfig
    held: Batch | None = None
    fixed: frozenset[ir.Value] = frozenset()
    """Constants that stay as they are: those of layers that --exclude names, and of layers of `unseen`."""
    unseen: frozenset[ir.Value] = frozenset()
    """Constants of layers of `unseen`: of them each output keeps the same share."""
    places: Mapping[ir.Value, Places] = field(default_factory=dict)
    """Where such layers read means of places: of these, by the weight. Others are fitted to nothing."""
    limits: Limits = NO_LIMITS
    """Of what is trained over several layers."""
    notes: list[str] = field(default_factory=list)
    """What was done beside the pass over the layers, in sentences."""
    dampings: Counter[float] = field(default_factory=Counter)
    """How many layers each damping was best for, where it was chosen."""
    progress: StageProgress = lambda stage, fraction: None
    """Called with the name of a stage and the fraction of it that is done."""

    @classmethod
    def of(
        cls,
        model: ir.Model,
        data: Dataset,
        config: PruneConfig,
        excluded: Collection[Weight] = (),
        limits: Limits = NO_LIMITS,
        progress: StageProgress = lambda stage, fraction: None,
    ) -> Calibration:
        """For a model that is still dense, with samples spread evenly over the data.

        `excluded`: weights that stay as they are, with the biases of their layers.
        """
        dense = {
            value: tensor for value in constants(model) if (tensor := constant_tensor(value)) is not None
        }
        samples = affordable(model, data, config.calibration_samples)
        found, held = data.spread(samples).read(), None
        if trains(config) and len(found) >= FEWEST_TO_SPLIT:
            found, held = split(found, VALIDATION_OF)
        few = tuple(unseen(model, find_weights(model).prunable, len(found)))
        fixed = constants_of((*excluded, *few))
        places = {}
        if few and find_criterion(config.criterion).solve is not None:
            shapes = infer_shapes(model, found.shapes())
            places = {weight.value: place for weight in few if (place := places_before(weight, shapes))}
        return cls(
            model, dense, found, config, held, fixed, constants_of(few), places, limits, progress=progress
        )

    def prune(self, weights: Sequence[Weight], rates: Mapping[str, float]) -> dict[ir.Value, np.ndarray]:
        """Prune weights in place to the rates given by name; returns the masks by value, True = kept.

        Weights without a rate are unchanged; those of `uncalibrated` are pruned by magnitude.
        """
        visited: dict[ir.Node, list[Weight]] = {}
        masks = {}
        uncalibrated = set(self.uncalibrated(weights))
        for weight in (weight for weight in weights if weight.name in rates):
            if weight in uncalibrated:
                masks[weight.value] = prune_by_magnitude(weight, rates[weight.name], self.config.pattern)
            else:
                apart = self.places.get(weight.value)
                node = weight.uses[0].node if apart is None else apart.node
                visited.setdefault(node, []).append(weight)
        norms = {
            node
            for node in self.model.graph
            if node.op_type == "BatchNormalization" and self.config.norm_correction
        }
        nodes = visited.keys() | norms
        for place, visit in enumerate(walk(self.model, self.dense, self.data, nodes)):
            self.progress("prune", place / len(nodes))
            if visit.node in norms:
                correct_norm(visit, self.dense)
            for weight in visited.get(visit.node, ()):
                masks[weight.value] = self._prune_layer(weight, rates[weight.name], visit)
        self.notes.clear()
        self.notes.extend(self._damping_notes())
        self.notes.extend(self._unseen_notes(weights))
        if not self.unseen:
            self.notes.extend(self.fit_together(masks))
        elif trains(self.config):
            # MobileNetV2 at 70 %, from 300 images, comes to a cosine of 0.713 instead of 0.694 so, and answers as the
            # dense model in 61.0 instead of 63.2 % of 1,000 others; the same way in five pairs of runs.
            self.notes.append(
                "Layers were reconstructed one by one only: there are fewer samples than classes."
            )
        return masks

    def fit_together(self, masks: Mapping[ir.Value, np.ndarray]) -> Iterator[str]:
        """Train what is left of the pruned model over several layers, where the settings ask for it; yields notes.

        `masks`: of the constants, True = kept.
        """
        config = self.config
        if trains(config):
            yield from Reconstruction(
                self.model, self.dense, self.data, self.held, masks, config.seed, self.fixed, self.limits
            ).run(config.effort, partial(self.progress, "reconstruct"))

    def pruned_alone(self, weights: Sequence[Weight], rates: Sequence[float]) -> PrunedArrays:
        """Each weight as it would be pruned in the dense model, by rate; to be called in the order of the graph.

        Weights of `uncalibrated` are pruned by magnitude.
        """
        others = set(self.uncalibrated(weights))
        by_node: dict[ir.Node, list[Weight]] = {}
        for weight in weights:
            if weight not in others:
                by_node.setdefault(weight.uses[0].node, []).append(weight)
        visits = walk(self.model, None, self.data, by_node.keys())
        found: dict[Weight, Mapping[float, np.ndarray]] = {}

        def arrays(weight: Weight) -> Mapping[float, np.ndarray]:
            if weight in others:
                return pruned_arrays(weight, rates)
            while weight not in found:
                visit = next(visits)
                for each in by_node[visit.node]:
                    found[each] = self._at_rates(each, rates, visit)
            return found.pop(weight)

        return arrays

    def uncalibrated(self, weights: Sequence[Weight]) -> list[Weight]:
        """The weights that cannot be calibrated: in the body of an If, no `Blocks`, or more inputs than `WIDEST`."""
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
        place = self.places.get(weight.value)
        fits = fits and (weight.value not in self.unseen or place is not None)
        dense = blocks.split(self.dense[weight.value].numpy()).astype(np.float64)
        alive = blocks.split(weight.array()) != 0
        moments = problem = None
        parts: list[Moments] = []
        # The moments are by far the most work, and a mask alone does not need them.
        if fits or bias is not None:
            parts = self._moments(blocks, self._pairs(blocks, visit, place))
            # Of all samples, also of those that say which damping is the best.
            moments = reduce(Moments.joined, parts)
        if place is not None and moments is not None:
            second, _ = self._fitted(moments, bias)
            problem = Problem.of(dense, second, second, OWN_DAMPING)
        elif fits and moments is not None:
            problem = Problem.of(dense, *self._fitted(moments, bias))
        scores = self._scores(blocks, dense, visit)
        mask, values = self._choose(weight, dense, scores, alive, rate, problem)
        if place is None and fits and moments is not None and len(parts) == 2 and self.config.reconstruct:
            rest, held = (self._fitted(part, bias) for part in parts)
            damping = best_damping(dense, mask, values, rest, held)
            self.dampings[damping] += 1
            if damping != DAMPING:
                problem = Problem.of(dense, *self._fitted(moments, bias), damping)
                values = reconstruct(problem, mask, values)
        weight.assign(blocks.join(values))
        if bias is not None and moments is not None:
            shift_bias(bias, self.dense[bias], moments, dense, values)
        return blocks.join(mask)

    def _at_rates(self, weight: Weight, rates: Sequence[float], visit: Visit) -> dict[float, np.ndarray]:
        """A weight pruned at each of the rates, its bias unchanged."""
        blocks = Blocks.of(weight)
        dense = blocks.split(weight.array()).astype(np.float64)
        # Fitted also where pruning does not: biases, which make up for the mean there, are not those of a scan.
        moments = collect(blocks, visit.pairs(blocks.data), self.config.seed)
        problem = Problem.of(dense, *moments.whole())
        scores = self._scores(blocks, dense, visit)
        arrays = {}
        for rate in rates:
            _, values = self._choose(weight, dense, scores, dense != 0, rate, problem)
            arrays[rate] = blocks.join(values).astype(weight.array().dtype)
        return arrays

    def _pairs(
        self, blocks: Blocks, visit: Visit, place: Places | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The data operand of a layer by batch, (in the dense model, in the pruned one); each place apart, if any."""
        if place is None:
            return visit.pairs(blocks.data)
        return [
            (place.inputs(dense, blocks), place.inputs(pruned, blocks))
            for dense, pruned in visit.pairs(place.value)
        ]

    def _moments(self, blocks: Blocks, pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[Moments]:
        """The moments of a layer's inputs; those of a part of them apart, last, if the effort is worth it."""
        seed = self.config.seed
        narrow = blocks.shape[2] <= WIDEST_DAMPED
        if self.config.effort == "fast" or len(pairs) < HELD_OF or not narrow:
            return [collect(blocks, pairs, seed)]
        held = pairs[HELD_OF - 1 :: HELD_OF]
        rest = [pair for number, pair in enumerate(pairs, 1) if number % HELD_OF]
        columns = COLUMNS // HELD_OF
        return [collect(blocks, rest, seed, COLUMNS - columns), collect(blocks, held, seed, columns)]

    def _damping_notes(self) -> Iterator[str]:
        chosen = ", ".join(f"{damping:g} in {count}" for damping, count in sorted(self.dampings.items()))
        if chosen:
            yield Detail(f"Damping of layers, chosen on validation samples: {chosen}.")

    def _unseen_notes(self, weights: Sequence[Weight]) -> Iterator[str]:
        for weight in (weight for weight in weights if weight.value in self.unseen):
            fitted = (
                "Fitted to what it gives itself"
                if weight.value in self.places
                else "Not fitted to the inputs"
            )
            yield (
                f"{fitted}, as the inputs show too few of the classes that it scores: {weight.name}; each class keeps "
                "the same share of its weights. More inputs than classes would allow better."
            )

    def _fitted(self, moments: Moments, bias: ir.Value | None) -> tuple[np.ndarray, np.ndarray]:
        """The moments that weights are fitted to, H and C; a bias compensates the mean, so that it is the rest."""
        return moments.whole() if bias is None else moments.centered()

    def _scores(self, blocks: Blocks, dense: np.ndarray, visit: Visit) -> np.ndarray:
        """The importance of each weight, (groups, outputs, inputs), above 0."""
        criterion = find_criterion(self.config.criterion)
        if criterion.needs != "inputs":
            return criterion.score(dense, dense)
        if criterion.solve is not None:
            return np.abs(dense)
        # With norms of the pruned model's inputs, LeNet-5 at a rate of 70 % has an error of 33 % instead of 14 %.
        squares = blocks.square_sums([batch[blocks.data] for batch in visit.dense])
        check_finite((squares,), blocks.node)
        return criterion.score(dense, np.sqrt(squares))

    def _choose(
        self,
        weight: Weight,
        dense: np.ndarray,
        scores: np.ndarray,
        alive: np.ndarray,
        rate: float,
        problem: Problem | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mask and the values under it, both (groups, outputs, inputs); fitted to `problem` if there is one."""
        blocks, pattern = Blocks.of(weight), BLOCK_PATTERNS.get(self.config.pattern)

        def choose(scores: np.ndarray) -> np.ndarray:
            if self.config.allocation == "per-output" or weight.value in self.unseen:
                # Ranks start at 1, so that weights that are zero already rank below all others. Those of a block are
                # neighbors.
                if pattern is not None:
                    scores = blocks.split(pattern.spread(weight, pattern.norms(weight, blocks.join(scores))))
                scores = ranks(scores) + 1
            scores = blocks.join(np.where(alive, scores, 0))
            return blocks.split(keep(weight, scores, rate, self.config.pattern)) & alive

        solve = find_criterion(self.config.criterion).solve
        if problem is not None and solve is not None:
            mask, values = solve(problem, choose)
        else:
            mask = choose(scores)
            values = np.where(mask, dense, 0)
        if problem is not None and self.config.reconstruct:
            values = reconstruct(problem, mask, values)
        return mask, values


def trains(config: PruneConfig) -> bool:
    """Whether layers are trained together after the cut; of several pruning steps, each has a training of its own."""
    once = config.data is None or config.schedule == "one-shot"
    return bool(config.reconstruct) and config.effort != "fast" and once


def prune_by_magnitude(weight: Weight, rate: float, pattern: str) -> np.ndarray:
    """Prune one weight by magnitude in a pattern, in place; returns the mask, True = kept."""
    scores = np.abs(weight.numbers().astype(np.float64))
    mask = keep(weight, scores, rate, pattern) & weight.present()
    weight.prune(~mask)
    return mask


def keep(weight: Weight, scores: np.ndarray, rate: float, pattern: str) -> np.ndarray:
    """A mask (True = kept) of the largest scores in a pattern, in the shape of a weight.

    Exactly round(rate * n) of n scores are removed, or of n blocks; under 2:4, at most those that the pattern removes,
    the smallest first.
    """
    if (blocks := BLOCK_PATTERNS.get(pattern)) is not None:
        [kept] = keep_largest([blocks.norms(weight, scores)], rate)
        return blocks.spread(weight, kept)
    if pattern != "2:4":
        return keep_largest([scores], rate)[0]
    kept = weight.channels_back(keep_n_of_m(weight.channels_last(scores), 2, 4))
    if round(rate * scores.size) >= np.count_nonzero(~kept):
        return kept
    return keep_largest([np.where(kept, np.inf, scores)], rate)[0]
