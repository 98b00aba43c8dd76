"""What the reader of a job's summary should know, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnxprune.calibration.synthetic import NAME as SYNTHETIC
from onnxprune.config.settings import PruneConfig
from onnxprune.job.inputs import JobData
from onnxprune.job.records import Records
from onnxprune.model.io import Source
from onnxprune.surgery import SurgeryReport

# Channels are coarse: a rate missed by less is not worth a word.
SHORTFALL = 0.02


def notes(
    config: PruneConfig,
    origin: Source,
    target: Path | None,
    data: JobData,
    records: Records,
    by_magnitude: tuple[str, ...],
    surgery: SurgeryReport | None,
) -> Iterator[str]:
    """The notes of a job that is over, but for those of a search."""
    yield from _on_data(config, origin, target, data)
    if by_magnitude:
        yield (
            f"Pruned by magnitude, without reconstruction: {', '.join(by_magnitude)} "
            "(quantized, transposed or in the body of an If, or too many inputs)."
        )
    if origin.inlined:
        yield f"The functions {', '.join(origin.inlined)} were inlined, because they contain weights."
    if surgery is not None and surgery.units_removed:
        yield (
            f"{surgery.units_removed:,} neurons and channels were dead and have been removed, "
            "with the weights that still led to or from them."
        )
    yield from _on_rates(config, records)


def _on_data(config: PruneConfig, origin: Source, target: Path | None, data: JobData) -> Iterator[str]:
    if data.training is None:
        yield (
            "Nothing was fine-tuned, as no data was given. To do so: "
            f"onnxprune {origin.path or 'IN.onnx'} {target or 'OUT.onnx'} {config.amount} --data DATA"
        )
    elif config.data == SYNTHETIC:
        yield (
            f"Fine-tuned on {data.training.name}, towards the model's own outputs: real --data gives better results."
        )
    elif config.eval_data is None:
        yield (
            f"Evaluated on the {data.test.name}, which also selected the best epoch; "
            "give --eval-data for an independent evaluation."
        )
    if data.training is None and data.calibration is not None:
        yield (
            f"Calibrated on {data.calibration.name}, at most {config.calibration_samples:,} samples; "
            "no label was used."
        )
    if data.test.labels is None:
        yield "There are no labels: the table says how far the outputs moved, not whether they are right."


def _on_rates(config: PruneConfig, records: Records) -> Iterator[str]:
    reached = 1 - records.kept / max(records.size, 1)
    channel = config.pattern == "channel" and config.rate is not None and records.size
    if channel and config.rate is not None and reached < config.rate - SHORTFALL:
        yield (
            f"Only {reached:.0%} of the weights were removed; the rest is excluded, or frozen (--json says why): "
            "--pattern unstructured can remove more."
        )
    if config.flops is not None or config.bytes is not None:
        tuned = " (within 2% below the size, before any fine-tuning)" if config.bytes is not None else ""
        yield f"{config.amount} came to a rate of {reached:.4f}{tuned}."
    empty = [layer.name for layer in records.layers if not layer.kept]
    if empty:
        yield f"All weights of {', '.join(empty)} were removed, so its outputs are constant: give it a --layer-rate."
