"""`onnxprune.export`: a model as plain operators, for tools that read no functions or need fixed shapes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from onnxprune.commands.compare import compare
from onnxprune.config.checks import input_shapes
from onnxprune.config.declare import ShapesLike
from onnxprune.config.output import OutputSettings
from onnxprune.data.specs import input_specs
from onnxprune.errors import MissingOperatorError, SettingError, ValidationError
from onnxprune.job.plain import inline_all, plain, static_shapes
from onnxprune.job.store import store
from onnxprune.model.files.io import ModelLike
from onnxprune.model.files.staging import staging
from onnxprune.model.weights import find_weights
from onnxprune.reports.record import restated
from onnxprune.sparse.functions import standard_opset
from onnxprune.sparse.opening import open_model
from onnxprune.sparse.stored import stored_dense
from onnxprune.system.trust import Paths, trust

FORMATS = ("dense", "coo")


@dataclass(frozen=True)
class Exported:
    """The result of `export`: the file's opset, the shapes of its inputs, bytes before and after, and notes.

    `difference`: the largest relative difference of an output to the model's in onnxruntime, on random inputs.
    """

    path: Path
    opset: int
    inputs: tuple[str, ...]
    bytes_before: int
    bytes: int
    difference: float
    notes: tuple[str, ...]


def export(
    model: ModelLike,
    output: str | os.PathLike[str],
    *,
    format: str = "dense",
    static: bool = False,
    input_shape: ShapesLike = (),
    opset: int | None = None,
    annotations: bool = True,
    allow_links: Paths = (),
    custom_ops: Paths = (),
) -> Exported:
    """Write a model, pruned or not, as standard operators with weights in place, and everything else as it is.

    Model-local functions are inlined, and quantized layers stand between DequantizeLinear and QuantizeLinear. `format`:
    "dense", or "coo" for `sparse_initializer`. `static`: fix all free dims (one sample, and `input_shape`, which
    implies it), and fold what computes shapes. `opset`: convert to it. The file is written only if onnxruntime gives
    the same outputs for it, on random inputs.

    Raises:
        ModelFileError: the model is broken, or a function or the opset cannot be converted.
        SettingError: a shape does not fit, or a free dim is not known.
        ValidationError: the outputs differ; nothing was written.
    """
    trust(allow_links, custom_ops)
    if format not in FORMATS:
        raise SettingError(
            f"--format is {format!r}: export writes {' or '.join(FORMATS)}; prune writes the others"
        )
    shapes = input_shapes(input_shape)
    settings = OutputSettings(
        format=format, static=static or bool(shapes), opset=opset, annotations=annotations
    )
    opened = open_model(model)
    graph, origin, metadata = opened.model, opened.origin, dict(opened.model.metadata_props)
    target = Path(output)
    with staging(target, origin, external=origin.external) as stage:
        inlined = (*origin.inlined, *inline_all(graph, origin.name))
        graph, notes = plain(graph, origin.name, settings, shapes, standard=True)
        stored = store(graph, stage, settings, origin.external)
        if annotations:
            outcomes = (
                stored.get(weight.name) or stored_dense(weight, "") for weight in find_weights(graph).all
            )
            forms = {each.name: {"format": each.format, "bytes_after": each.bytes} for each in outcomes}
            stage.annotate(restated(metadata, forms))
        fixed = static_shapes(input_specs(graph), {}) if settings.static else {}
        try:
            found = compare(origin.file, stage.path, input_shape=fixed, custom_ops=custom_ops)
        except MissingOperatorError as error:
            raise MissingOperatorError(f"{error}; without it the exported file cannot be checked") from None
        differing = [each for each in found.outputs if each.mismatched]
        if differing:
            worst = differing[0]
            raise ValidationError(
                f"output {worst.output!r} differs for {worst.mismatched:,} of {worst.elements:,} numbers (relative "
                f"{worst.relative:.3g}); {target} was not written: give another --opset, or none"
            )
        if inlined:
            notes = (f"Model-local functions were inlined: {', '.join(inlined)}.", *notes)
        size = stage.file_bytes()
        stage.commit()
    inputs = tuple(f"{value.name} {value.shape}" for value in graph.graph.inputs)
    return Exported(target, standard_opset(graph), inputs, origin.file_bytes, size, found.relative(), notes)
