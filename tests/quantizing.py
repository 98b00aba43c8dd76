"""Models as onnxruntime's quantizer writes them, in operators of integers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)


class _Reader(CalibrationDataReader):
    """The same inputs each time."""

    def __init__(self, feeds: Mapping[str, np.ndarray]):
        self._left: Iterator[Mapping[str, np.ndarray]] = iter([feeds])

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._left, None)


def static(
    model: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    *,
    per_channel: bool = False,
    weights: QuantType = QuantType.QInt8,
    activations: QuantType = QuantType.QUInt8,
) -> onnx.ModelProto:
    """The QOperator format: QLinearConv, QGemm, QLinearAdd, ...

    int8 weights have 7 bits: two products of them do not overflow the 16 bits in which AVX2 adds them.
    """
    with tempfile.TemporaryDirectory() as made:
        paths = Path(made) / "in.onnx", Path(made) / "out.onnx"
        onnx.save(_lifted(model), paths[0])
        quantize_static(
            *paths,
            _Reader(feeds),
            quant_format=QuantFormat.QOperator,
            per_channel=per_channel,
            reduce_range=weights == QuantType.QInt8,
            weight_type=weights,
            activation_type=activations,
        )
        return onnx.load(paths[1])


def dynamic(
    model: onnx.ModelProto, *, per_channel: bool = False, weights: QuantType = QuantType.QUInt8
) -> onnx.ModelProto:
    """Weights of integers, and data that becomes so when the model runs."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "out.onnx"
        reduced = weights == QuantType.QInt8
        quantize_dynamic(
            _lifted(model), path, weight_type=weights, per_channel=per_channel, reduce_range=reduced
        )
        return onnx.load(path)


def optimized(model: onnx.ModelProto) -> onnx.ModelProto:
    """What onnxruntime makes of a model, in which it fuses operators that every processor has."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as made:
        options.optimized_model_filepath = str(Path(made) / "out.onnx")
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def _lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """With constants in initializers alone: the quantizer takes no others."""
    lifted = ir.from_proto(onnx.ModelProto.FromString(model.SerializeToString()))
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(lifted)
    return ir.to_proto(lifted)
