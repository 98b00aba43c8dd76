"""What a job's report says of its model, for choosing among many: how small it is, and how good."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.reports.record import Report


@dataclass(frozen=True)
class Scored:
    """A pruned model on validation data.

    `kept`: number of non-zero weights, `total`: of all that can be pruned; `size`: bytes of the file; `value`: of the
    `metric`; `baseline`: that of the input model; `drop`: how much worse the model is on the same samples, in the unit
    of the metric; `drop_error`: its standard error (None: not known).
    """

    kept: int
    total: int
    size: int
    metric: str
    value: float
    baseline: float
    drop: float
    drop_error: float | None

    @classmethod
    def of(cls, report: Report) -> Scored:
        """Without labels, the metric is the agreement with the input model, or the cosine of the outputs."""
        evaluation = report.evaluation
        assert evaluation is not None, "searches and sweeps evaluate"
        moved = "cosine" if evaluation["outputs"][0]["agreement"] is None else "agreement"
        metric = evaluation["pruned"] or {"name": moved, "value": 1 - evaluation["drop"]}
        return cls(
            kept=sum(layer.kept for layer in report.layers),
            total=sum(layer.size for layer in report.layers),
            size=report.pruned.bytes,
            metric=metric["name"],
            value=metric["value"],
            baseline=(evaluation["baseline"] or {"value": 1.0})["value"],
            drop=evaluation["drop"],
            drop_error=evaluation["drop_error"],
        )
