"""The stage of a job that quantizes the pruned model, in the way that keeps its outputs best."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping
from functools import partial
from typing import NamedTuple

import onnx_ir as ir

from onnxprune.config.declare import AUTO
from onnxprune.config.quantization import QOPERATOR, UINT8
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import ModelFileError, NothingToPruneError, OnnxPruneError
from onnxprune.job.kernels import same_outputs
from onnxprune.job.quantizing.layers import Kept, correct_biases, equalize_channels, restore, tensors
from onnxprune.job.quantizing.outputs import NEAR, SCANNED_SAMPLES, Errors, Inputs, alike
from onnxprune.job.quantizing.training import train
from onnxprune.job.quantizing.values import coarsest
from onnxprune.job.samples.inputs import JobData
from onnxprune.model.shapes.inference import infer_shapes
from onnxprune.model.weights import Weight, find_weights
from onnxprune.pruning.selectors import select
from onnxprune.quantization.ranges import KEEPING, Ranges, measured
from onnxprune.quantization.static import OPSET, Form, Steps, quantized, simulated
from onnxprune.reports.record import Detail
from onnxprune.sparse.fold import Folded, fold_all
from onnxprune.sparse.opset import raise_opset
from onnxprune.system.progress import Progress, along, part_of

# What activations of all samples may take, where the calibrator keeps them.
KEPT_BYTES = 1 << 30
# Those tried by `auto`, the first of equals.
TRIED = ("minmax", "percentile")
# More layers than this part of all, or one, are not spared, and only where the error falls to this part of what it was.
MOST_SPARED, WORTH_SPARING = 0.15, 0.5
# The error of the outputs that the summary names, where no training follows.
FAR = 0.05
# The setting for values of fewer bits, and the error up to which weights have them where training follows.
COARSE, NEAR_TRAINED = "int4", 0.05
# The shares of the stage, roughly: finding ranges, and trying which layers are spared (the rest: which take coarser
# steps); of the whole, what all of that takes beside a training.
ADJUSTING, SPARING, UNTRAINED = 0.3, 0.35, 0.2


class _Tried(NamedTuple):
    """A way to quantize, and the error of the outputs; `rounded` and `plain`: before biases were corrected."""

    error: float
    rounded: float
    way: str
    ranges: Ranges
    plain: Kept
    constants: Kept
    places: int


class Quantization:
    """The quantization of a pruned model with the inputs of a job."""

    def __init__(
        self,
        model: ir.Model,
        name: str,
        data: JobData,
        config: PruneConfig,
        progress: Progress = lambda fraction: None,
        deadline: float | None = None,
    ):
        inputs = data.calibration or data.training
        assert inputs is not None
        self._inputs = Inputs(inputs.spread(config.calibration_samples))
        self._data = data
        self._name = name
        self._config = config
        self._trains = data.training is not None and config.quantize_epochs != 0
        untrained = UNTRAINED if self._trains else 1.0
        self._progress = part_of(progress, 0.0, untrained)
        self._training_progress = part_of(progress, untrained, 1 - untrained)
        self._deadline = deadline
        self._model = model
        self._steps: dict[str, Steps] = {}
        self._form = Form(config.quantize_form, config.quantize_activations != UINT8)

    def run(self) -> tuple[ir.Model, list[Folded], tuple[str, ...]]:
        """The quantized model, the nodes that went into weights before, and notes.

        Raises:
            ModelFileError: onnxruntime cannot quantize the model.
            NothingToPruneError: it has nothing that can be quantized.
        """
        model, reason = raise_opset(self._model, partial(same_outputs, self._data), OPSET)
        if reason is not None:
            raise ModelFileError(f"--quantize needs opset {OPSET}: {reason}")
        folded = fold_all(model, find_weights(model).prunable)
        self._model = model
        self._weights = find_weights(model).prunable
        self._excluded = {
            use.node
            for selector in self._config.quantize_exclude
            for weight in select(selector, self._weights)
            for use in weight.uses
        }
        measuring, held = self._inputs.split(self._config.seed)
        # It is of the model as it is now, before its weights are changed.
        self._errors = Errors(model.clone(), held)
        self._measuring = measuring
        adjusted = self._adjust()
        integers = {weight.name for weight in find_weights(self._made()).prunable if weight.quantized}
        if not integers:
            raise NothingToPruneError(
                f"nothing of {self._name} can be quantized to int8: onnxruntime has no integer form of its operators "
                "(--quantize-form qdq knows more of them), or --quantize-exclude names all of them"
            )
        spared = self._spared(integers)
        coarse = self._coarsened() if self._config.values == COARSE else ""
        trained = self._trained()
        made = self._made()
        count = sum(weight.quantized for weight in find_weights(made).prunable)
        note = f"Quantized to int8: {count} of {len(self._weights)} weights, --quantize-ranges {self._way}."
        if spared:
            note += f" Those that cost most stay in floats: {', '.join(spared)}."
        far = not trained and self._error > FAR
        if far:
            note += (
                f" The outputs are far from those in floats, by a relative squared error of {self._error:.2g}: name "
                "layers by --quantize-exclude, or give --quantize none."
            )
        told = note if far or count < len(self._weights) else Detail(note)
        return made, folded, tuple(each for each in (told, Detail(adjusted), coarse, trained) if each)

    def _made(self) -> ir.Model:
        """The model in int8 as it would be now."""
        return quantized(self._model, self._ranges, self._form, excluded=self._excluded, steps=self._steps)

    def _adjust(self) -> str:
        """Choose the ranges, and adjust weights and biases, for the outputs nearest to those in floats; a note."""
        asked = self._config.quantize_ranges
        ways = TRIED if asked == AUTO else (asked,)
        tried = [self._try(way) for way in along(ways, part_of(self._progress, 0.0, ADJUSTING))]
        plain = min(each.rounded for each in tried)
        places = 0
        # What can be measured in one model need not be in another: these steps are not needed for a valid file.
        with contextlib.suppress(OnnxPruneError):
            places = equalize_channels(self._model, self._measuring)
        if places:
            tried.append(self._try(min(tried, key=_error).way, places))
        best = min(tried, key=_error)
        self._error, self._way, self._ranges = best.error, best.way, best.ranges
        self._plain = best.plain
        restore(best.constants)
        done = (
            [f"channels of {best.places} place{'s' * (best.places > 1)} were equalized"]
            if best.places
            else []
        )
        done += ["biases were corrected"] if best.error < best.rounded else []
        return f"{' and '.join(done).capitalize()}: {_fall(plain, best.error)}" if done else ""

    def _try(self, way: str, places: int = 0) -> _Tried:
        """The model as it is with ranges found in a way, and with corrected biases; its constants are put back."""
        kept = tensors(self._model)
        self._ranges = self._measured(way)
        self._error = rounded = self._errors.of(self._made())
        self._correct()
        found = _Tried(self._error, rounded, way, self._ranges, kept, tensors(self._model), places)
        restore(kept)
        return found

    def _correct(self) -> None:
        """Correct biases where the outputs come nearer to those in floats."""
        kept, before = tensors(self._model), self._error
        found = False
        with contextlib.suppress(OnnxPruneError):
            made = simulated(self._model, self._ranges, self._form, self._excluded, self._steps)
            found = correct_biases(self._model, made, self._measuring)
        if found:
            self._error = self._errors.of(self._made())
            if self._error >= before:
                restore(kept)
                self._error = before

    def _measured(self, way: str) -> Ranges:
        inputs = self._inputs
        if way in KEEPING:
            some = inputs.some(KEPT_BYTES / self._kept_bytes())
            return measured(self._model, alike(some.feeds()), way)
        return measured(self._model, inputs.feeds(), way)

    def _kept_bytes(self) -> float:
        """The approximate bytes of the activations of a sample."""
        first = next(self._inputs.batches())
        shapes = infer_shapes(self._model, {name: array.shape for name, array in first.feeds().items()})
        sizes = (math.prod(dim for dim in shape if isinstance(dim, int)) for shape in shapes.values())
        return max(1.0, 4.0 * sum(sizes) / max(len(first), 1))

    def _spared(self, integers: Collection[str]) -> list[str]:
        """The fewest layers that have to stay in floats for outputs near those in floats; they are excluded.

        Layers are spared by the error that each makes if it alone is quantized. None is where the outputs are near
        already, or sparing a few gains little. `integers`: the weights that are quantized, of which some have to be.
        """
        layers = [weight for weight in self._weights if weight.name in integers]
        if self._error <= NEAR or len(layers) < 2:
            return []
        kept, excluded, before = tensors(self._model), self._excluded, self._error
        # Corrected biases are for layers that are all in int8.
        restore(self._plain)
        scan = self._errors.some(SCANNED_SAMPLES)
        trying = part_of(self._progress, ADJUSTING, SPARING)
        costs = {weight: scan.of(self._alone(weight)) for weight in along(layers, trying)}
        worst = sorted(layers, key=lambda weight: -costs[weight])
        count = 1
        while count <= max(1, int(MOST_SPARED * len(layers))):
            restore(self._plain)
            self._excluded = excluded | {use.node for weight in worst[:count] for use in weight.uses}
            self._error = self._errors.of(self._made())
            self._correct()
            if self._error <= max(NEAR, WORTH_SPARING * before):
                return [weight.name for weight in worst[:count]]
            count *= 2
        restore(kept)
        self._excluded, self._error = excluded, before
        return []

    def _coarsened(self) -> str:
        """Take coarser steps for the weights that bear them; a note."""
        weights = [
            weight
            for weight in self._weights
            if weight.value.graph is self._model.graph
            and not any(use.node in self._excluded for use in weight.uses)
            # What operators of integers read first has one scale, and the type of activations.
            and not (self._form.name == QOPERATOR and any(use.index == 0 for use in weight.uses))
        ]
        # Corrected biases are for the steps that they were corrected with.
        corrected, before = tensors(self._model), self._error
        restore(self._plain)
        scan = self._errors.some(SCANNED_SAMPLES)

        def error(steps: Mapping[str, Steps], errors: Errors) -> float:
            return errors.of(
                quantized(self._model, self._ranges, self._form, excluded=self._excluded, steps=steps)
            )

        most = NEAR_TRAINED if self._trains else NEAR
        self._steps = coarsest(
            weights,
            partial(error, errors=scan),
            partial(error, errors=self._errors),
            max(most, before),
            part_of(self._progress, ADJUSTING + SPARING, 1 - ADJUSTING - SPARING),
        )
        if not self._steps:
            restore(corrected)
            return "No weight bears values of fewer bits than int8."
        self._error = self._errors.of(self._made())
        self._correct()
        return (
            f"{len(self._steps)} of {len(weights)} quantized weights have few different values (--values int4): "
            f"{_fall(before, self._error)}"
        )

    def _alone(self, weight: Weight) -> ir.Model:
        """The model with one layer in int8."""
        return quantized(
            self._model, self._ranges, self._form, excluded=self._excluded, only=weight.uses[0].node
        )

    def _trained(self) -> str:
        """Fine-tune with simulated quantization, where there is data for it; a note."""
        kept = tensors(self._model)
        make = partial(simulated, self._model, self._ranges, self._form, self._excluded, self._steps)
        outcome = train(self._model, make, self._data, self._config, self._training_progress, self._deadline)
        training, untrained = self._data.training, self._steps
        self._steps = outcome.steps or self._steps
        if not outcome.steps or training is None or training.labeled:
            return outcome.note
        # A loss that compares distributions does not see all that changes in the outputs.
        error = self._errors.of(self._made())
        if error > self._error:
            restore(kept)
            self._steps = untrained
            return (
                "Fine-tuning with simulated quantization was undone: the relative squared error of the outputs rose "
                f"from {self._error:.2g} to {error:.2g}."
            )
        return outcome.note


def _error(tried: _Tried) -> float:
    return tried.error


def _fall(before: float, after: float) -> str:
    return f"relative squared error of the outputs {before:.2g} -> {after:.2g}."
