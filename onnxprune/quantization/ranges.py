"""The ranges of activations, measured on inputs by onnxruntime's calibrators."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from onnxprune.errors import ModelFileError, first_line
from onnxprune.model.files.staging import staging
from onnxprune.model.slots import domain_of

Feeds = Mapping[str, np.ndarray]
Ranges = Any
"""onnxruntime's `TensorsData`: what was measured of each value, by its name."""

# The calibrators of onnxruntime, by the names of its `CalibrationMethod`.
RANGES: Mapping[str, str] = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
# They keep every activation of all samples, for histograms.
KEEPING = ("percentile", "entropy")


def measured(model: ir.Model, samples: Iterable[Feeds], ranges: str) -> Ranges:
    """The ranges of a model's values on batches of inputs by name; `ranges`: one of `RANGES`.

    Raises:
        ModelFileError: onnxruntime cannot measure them.
    """
    # It takes a second to import.
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(samples)

        def get_next(self) -> Any:
            batch = next(self._left, None)
            return None if batch is None else dict(batch)

    with staging(None) as stage:
        stage.write(prepared(model)[0])
        with quantizing():
            calibrator = quantization.create_calibrator(
                stage.path,
                [],
                augmented_model_path=str(stage.path.with_name("augmented.onnx")),
                calibrate_method=quantization.CalibrationMethod[RANGES[ranges]],
            )
            calibrator.collect_data(Reader())
            return calibrator.compute_data()


def prepared(model: ir.Model) -> tuple[ir.Model, dict[ir.Node, str]]:
    """A copy for the quantizer, which knows nodes by their names and no Constant nodes; and the names, by node.

    A Sum of two is an Add there: the quantizer has integers for that alone.
    """
    copy = model.clone()
    taken: dict[str, None] = {}
    for number, node in enumerate(copy.graph):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        while node.name in taken:
            node.name += "_"
        taken[node.name] = None
        if node.op_type == "Sum" and not domain_of(node) and len(node.inputs) == 2:
            node.op_type = "Add"
    names = dict(zip(model.graph, taken, strict=True))
    LiftConstantsToInitializersPass(lift_all_constants=False)(copy)
    return copy, names


@contextlib.contextmanager
def quantizing() -> Iterator[None]:
    """What onnxruntime's quantizer raises, as a ModelFileError; what it prints is left out, as it is not for users."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    # It reports by many classes, KeyError and ValueError among them.
    except Exception as error:
        raise ModelFileError(
            f"onnxruntime cannot quantize the model: {first_line(error)}; give --quantize none"
        ) from error
    finally:
        logging.disable(before)
