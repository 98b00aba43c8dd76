"""Settings of the quantization to int8."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.checks import AT_LEAST_0
from onnxprune.config.declare import AUTO, Names, setting

NO_QUANTIZATION = "none"
QUANTIZATIONS = (NO_QUANTIZATION, "int8")
# Operators of integers, or float operators between pairs of QuantizeLinear and DequantizeLinear.
QOPERATOR, QDQ = "qoperator", "qdq"
UINT8 = "uint8"
QUANTIZATION_FORMS = (QOPERATOR, QDQ)
ACTIVATIONS = (UINT8, "int8")
QUANTIZATION_RANGES = (AUTO, "minmax", "percentile", "entropy")


@dataclass(frozen=True)
class QuantizationSettings:
    """Whether the pruned model computes in integers, and how it is made to."""

    heading = "Quantization"

    quantize: str = setting(
        NO_QUANTIZATION,
        "Quantize the pruned model: int8 weights with a scale for each output, uint8 activations. Needs inputs: those "
        "of --calibration-data, or of --data.",
        choices=QUANTIZATIONS,
        trains=False,
        common="Quantize the pruned model to int8",
    )
    quantize_ranges: str = setting(
        AUTO,
        "With --quantize: how the ranges of activations are found. Auto is minmax or percentile, whichever keeps the "
        "outputs nearer to those in floats.",
        choices=QUANTIZATION_RANGES,
        trains=False,
    )
    quantize_exclude: Names = setting(
        (),
        "With --quantize: weights that stay in floats, as for --exclude. Repeatable.",
        metavar="SELECTOR",
        trains=False,
    )

    quantize_form: str = setting(
        QOPERATOR,
        "With --quantize: operators of integers, such as QLinearConv (qoperator), which onnxruntime runs; or float "
        "operators between QuantizeLinear and DequantizeLinear (qdq), which other runtimes read too.",
        choices=QUANTIZATION_FORMS,
        trains=False,
    )
    quantize_activations: str = setting(
        UINT8,
        "With --quantize: the type of activations, uint8 with a zero point, or int8 with zero points of 0, which are "
        "the only ones that TensorRT takes.",
        choices=ACTIVATIONS,
        trains=False,
    )
    quantize_epochs: int | None = setting(
        None,
        "With --quantize and --data: passes over the training data with simulated quantization, after the others; 0 "
        "for none.  [default: 15% of the --epochs, or of the --time]",
        metavar="N",
        within=AT_LEAST_0,
        trains=False,
    )

    @property
    def quantizes(self) -> bool:
        """Whether the model is quantized."""
        return self.quantize != NO_QUANTIZATION
