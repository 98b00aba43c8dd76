"""Settings of the data to fine-tune, validate and evaluate on."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.checks import AT_LEAST_0, PART, batch_axes, input_shapes
from onnxprune.config.declare import AxesLike, DataSource, ShapesLike, setting


@dataclass(frozen=True)
class DataSettings:
    """Training, validation and test data."""

    heading = "Data"

    data: DataSource = setting(
        None,
        "Training data: {data_forms}; or 'synthetic'. Without it, pruning is one-shot.",
        metavar="DATA",
        common="Training data: fine-tune on this",
    )
    validation_split: float = setting(
        0.1,
        "Fraction of --data to hold back for validation, which selects the best epoch.",
        metavar="SHARE",
        within=PART,
    )
    validation_data: DataSource = setting(
        None,
        "Validation data, instead of a split of --data. Use samples that the input model was not trained on.",
        metavar="DATA",
    )
    eval_data: DataSource = setting(
        None,
        "Test data: both models are evaluated on it at the end. It is not used for any choice.  [default: the "
        "validation data, or calibration samples that nothing is fitted to, or random inputs]",
        metavar="DATA",
        trains=False,
        common="Test data to evaluate both models on",
    )
    old_data: DataSource = setting(
        None,
        "A second test set: for example data of the original task, if --data is from a new one.",
        metavar="DATA",
        trains=False,
    )
    transform: str | None = setting(
        None,
        "How images become inputs: a preset ({presets}); steps such as resize:256,crop:224,scale:1/255,mean:0.5,"
        "std:0.5; or a preset and steps that replace some of its own, such as imagenet,channels:bgr. Other steps are "
        "letterbox:SIZE and layout:nhwc.  [default: by the shape of the input]",
        metavar="STEPS",
        common="Images to inputs, for example imagenet",
    )
    augment: str | None = setting(
        None,
        "Random changes of the training images, which the teacher sees too: NAME or NAME:NUMBER, separated by commas, "
        "for example flip,crop:4. {augmentations}. Or none.  [default: auto, of flip and crop those that "
        "the input model is indifferent to]",
        metavar="STEPS",
        common="Change training images, for example flip,crop:4",
    )
    label_offset: int = setting(
        0,
        "Added to class numbers: 1 where the model has a class for the background first.",
        metavar="N",
    )
    data_workers: int | None = setting(
        None,
        "Processes that read training data ahead; 0: none.  [default: one a core for images and datasets, none for "
        "arrays and on one core]",
        metavar="N",
        within=AT_LEAST_0,
        trains=False,
    )
    input_shape: ShapesLike = setting(
        (),
        "Shape of an input with dynamic dims, for example x:1,3,224,224. It is used for synthetic inputs and for "
        "choosing kernels. Repeatable.",
        metavar="NAME:DIMS",
    )

    batch_axis: AxesLike = setting(
        (),
        "Axis of an input, an output or labels along which samples lie, counted from 0, for example x:1; or none, for "
        "an input that goes with every sample. Repeatable.  [default: found out by names, sizes and trial runs]",
        metavar="NAME:AXIS",
    )

    @property
    def batch_axes(self) -> dict[str, int | None]:
        """`batch_axis` as axes by name."""
        return batch_axes(self.batch_axis)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """`input_shape` as shapes by input name."""
        return input_shapes(self.input_shape)
