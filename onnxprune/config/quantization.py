"""Settings of the quantization to int8."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.declare import AUTO, Names, setting

NO_QUANTIZATION = "none"
QUANTIZATIONS = (NO_QUANTIZATION, "int8")
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

    @property
    def quantizes(self) -> bool:
        """Whether the model is quantized."""
        return self.quantize != NO_QUANTIZATION
