"""Settings of data: what to fine-tune and to evaluate on."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.checks import FRACTION, PART, input_shapes
from onnxprune.config.declare import DataSource, ShapesLike, setting


@dataclass(frozen=True)
class DataSettings:
    """Samples to train on, to choose by, and to evaluate on."""

    heading = "Data"

    data: DataSource = setting(
        None,
        "Fine-tune on this: {data_forms}; or 'synthetic'. Without it, pruning is one-shot.",
        metavar="DATA",
        common="Training data: fine-tune on this",
    )
    validation_split: float = setting(
        0.1,
        "Share of --data that is not trained on but selects the best state; at least one sample.",
        metavar="SHARE",
        within=PART,
    )
    validation_data: DataSource = setting(
        None,
        "Validation data instead of a split: best are samples that the input model was not trained on either.",
        metavar="DATA",
    )
    eval_data: DataSource = setting(
        None,
        "Test data: both models are evaluated on it once, at the end. It is not used for any choice.",
        metavar="DATA",
        trains=False,
        common="Test data: evaluate both models on this",
    )
    old_data: DataSource = setting(
        None,
        "Evaluate both models on this as well: the data from before, where --data is new.",
        metavar="DATA",
        trains=False,
    )
    input_shape: ShapesLike = setting(
        (),
        "The shape of an input where the model leaves it open, for example x:1,3,224,224: for synthetic inputs and "
        "for choosing kernels. Repeatable.",
        metavar="NAME:DIMS",
    )
    max_drop: float | None = setting(
        None,
        "Refuse a result that is worse by more than this (0.005 or 0.5%): exit status 1, the output is not written. "
        "Without --rate: search for the highest rate within it on the validation data.",
        metavar="DROP",
        within=FRACTION,
        trains=False,
        common="Largest loss of accuracy; without --rate, search for the rate",
    )

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """`input_shape` as shapes by input name."""
        return input_shapes(self.input_shape)
