"""Static quantization to int8 by onnxruntime's own quantizer: operators of integers, whose weights keep their zeros."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from onnxprune.errors import ModelFileError, first_line
from onnxprune.model.staging import staging

Feeds = Mapping[str, np.ndarray]

# The calibrators of onnxruntime, by the names of its `CalibrationMethod`.
RANGES: Mapping[str, str] = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
# They keep every activation of all samples, for histograms.
KEEPING = ("percentile", "entropy")
# Per-channel scales and zero points need it (QuantizeLinear-13).
OPSET = 13
# What the quantizer appends to the name of a weight.
SUFFIX = "_quantized"


def quantized(
    model: ir.Model,
    samples: Iterable[Feeds],
    ranges: str,
    excluded: Collection[ir.Node] = (),
    only: ir.Node | None = None,
) -> ir.Model:
    """The model with integer operators (QLinearConv, QGemm, ...) where onnxruntime has them; `model` stays as it is.

    Weights become int8 with a scale for each output channel and zero point 0, activations uint8, biases int32. Weights
    keep their names. `samples`: batches of inputs by name, from which the ranges of activations are measured.
    `ranges`: one of `RANGES`. `excluded`: nodes that stay in floats; `only`: the single node that
    does not.

    Raises:
        ModelFileError: onnxruntime cannot quantize the model.
    """
    left = [number for number, node in enumerate(model.graph) if node in excluded]
    chosen = [number for number, node in enumerate(model.graph) if node is only]
    model = model.clone()
    nodes = list(model.graph)
    _name(nodes)
    names, chosen_names = ([nodes[number].name or "" for number in each] for each in (left, chosen))
    LiftConstantsToInitializersPass(lift_all_constants=False)(model)
    with staging(None) as stage:
        stage.write(model)
        made = stage.path.with_name("quantized.onnx")
        try:
            with _silence():
                _quantize(stage.path, made, samples, ranges, names, chosen_names)
            found = ir.from_proto(onnx.load(made))
        # The quantizer reports by many classes, KeyError and ValueError among them.
        except Exception as error:
            raise ModelFileError(f"onnxruntime cannot quantize the model: {first_line(error)}") from error
    _restore_names(found)
    found.metadata_props.update(model.metadata_props)
    return found


def is_quantized(model: ir.Model) -> bool:
    """Whether a model has operators of integers, or converts to them."""
    return any("Quantize" in node.op_type or node.op_type.startswith("QLinear") for node in model.graph)


def _quantize(
    source: Path,
    target: Path,
    samples: Iterable[Feeds],
    ranges: str,
    excluded: Sequence[str],
    only: Sequence[str],
) -> None:
    # It takes a second to import.
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(samples)

        def get_next(self) -> Any:
            batch = next(self._left, None)
            return None if batch is None else dict(batch)

    quantization.quantize_static(
        source,
        target,
        Reader(),
        quant_format=quantization.QuantFormat.QOperator,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        nodes_to_quantize=only,
        nodes_to_exclude=excluded,
        calibrate_method=quantization.CalibrationMethod[RANGES[ranges]],
    )


def _name(nodes: Iterable[ir.Node]) -> None:
    """Give every node a name of its own: the quantizer knows nodes by their names."""
    taken: set[str] = set()
    for number, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)


def _restore_names(model: ir.Model) -> None:
    taken = {value.name for node in model.graph for value in node.outputs} | set(model.graph.initializers)
    for value in list(model.graph.initializers.values()):
        name = (value.name or "").removesuffix(SUFFIX)
        if name != value.name and name not in taken:
            del model.graph.initializers[value.name or ""]
            value.name = name
            model.graph.initializers[name] = value


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The quantizer prints what it does, and advises to prepare the model, which is done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
