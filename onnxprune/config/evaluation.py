"""Settings of the evaluation: by which metrics models are compared."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.checks import AT_LEAST_0, FRACTION
from onnxprune.config.declare import Names, setting


@dataclass(frozen=True)
class EvaluationSettings:
    """Metrics, and how much worse the pruned model may be."""

    heading = "Evaluation"

    metric: Names = setting(
        (),
        "Metric on labeled data: {metrics}; or MODULE:FUNCTION, a function of (outputs, labels) that returns a score "
        "for each sample, or a class with update and compute. Repeatable, or separated by commas; the first one counts "
        "for --max-drop and --max-loss. By default, the one for the kind of the labels.",
        metavar="NAME",
        common="Metric on labeled data, for example f1, iou, psnr or map",
    )
    postprocess: str | None = setting(
        None,
        "A function of the outputs (a dict of arrays by name) that makes what the metrics score: an array or a list, "
        "with one item for each sample, for example decoded texts or detections.",
        metavar="MODULE:FUNCTION",
    )
    label_output: str | None = setting(
        None,
        "The output that labels belong to, where they fit several; `labels.OUTPUT` in the data names it as well.",
        metavar="NAME",
        aliases=("--output",),
    )
    max_drop: float | None = setting(
        None,
        "Largest drop allowed, absolute, in the unit of the first metric: 0.005 or 0.5% of accuracy, 0.3 for 0.3 dB of "
        "PSNR. If the result is worse, no file is written and the exit status is 1. Without --rate, search for the "
        "highest rate within this drop on the validation data.",
        metavar="DROP",
        within=AT_LEAST_0,
        trains=False,
        common="Largest drop; without --rate, search for the rate",
    )
    max_loss: float | None = setting(
        None,
        "As --max-drop, but relative to the input model's value of the first metric (0.01 or 1%).",
        metavar="LOSS",
        within=FRACTION,
        trains=False,
    )

    evaluate: bool = setting(
        True,
        "Evaluate both models in onnxruntime. Without it and without data, the model is not run at all, which allows "
        "operators that onnxruntime does not have: the file says that nothing was evaluated.",
        trains=False,
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of `metric`, each once."""
        given = (self.metric,) if isinstance(self.metric, str) else self.metric
        names = (name.strip() for text in given for name in text.split(","))
        return tuple(dict.fromkeys(name for name in names if name and name != "auto"))
