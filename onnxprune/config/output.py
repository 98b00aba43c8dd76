"""Settings of the output file, and of the kernels that run it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.checks import AT_LEAST_1
from onnxprune.config.declare import setting

VALUES = ("fp32", "fp16", "int8", "int4")
EXTERNAL_DATA = ("auto", "always", "never")
KERNELS = ("estimated", "measured", "all")


@dataclass(frozen=True)
class OutputSettings:
    """The form of the file that is written."""

    heading = "Output"

    remove_dead: bool = setting(
        True,
        "Remove neurons and channels that have lost all their inputs or all their outputs.",
        trains=False,
    )
    format: str = setting(
        "ops",
        "Storage format of the weights.",
        table="formats",
        trains=False,
        common="Storage format of the weights",
    )
    values: str = setting(
        "fp32",
        "Type of the stored values with --format ops: unchanged (fp32), fp16, or int8 or int4 with a scale per output. "
        "With calibration or training data, weights that the outputs do not bear in int4 are int8. "
        "With --quantize, int4 gives int8 weights as few different values as the outputs bear.",
        choices=VALUES,
    )
    static: bool = setting(
        False,
        "Fix all free dims of the inputs (one sample, and the dims of --input-shape), and fold what computes shapes.",
        trains=False,
    )
    opset: int | None = setting(
        None,
        "Convert OUT.onnx to this opset of ONNX.  [default: that of the input model]",
        metavar="N",
        within=AT_LEAST_1,
        trains=False,
    )
    overridable: bool = setting(
        False,
        "Keep initializers that the input model lists among its inputs there, for callers to override; they then keep "
        "their shapes.",
    )
    external_data: str = setting(
        "auto",
        "Store the weights in OUT.onnx.data: if the input model has external data or the file would exceed 2 GB "
        "(auto), always, or never.",
        choices=EXTERNAL_DATA,
    )
    annotations: bool = setting(
        True,
        "Write the settings, densities and results of the job into the metadata of OUT.onnx. Without them, `report` "
        "cannot read the file, and `retrain` and `compare` need its --transform, --batch-axis, --format and --values.",
        trains=False,
    )


@dataclass(frozen=True)
class KernelSettings:
    """Which nodes use the sparse kernels."""

    heading = "Kernels"

    # The default is not "measured": that choice varies from run to run, and holds for the machine that prunes, seldom
    # the one that runs the model. `onnxprune tune` measures there.
    kernels: str = setting(
        "estimated",
        "Which nodes use the sparse kernels, if their library is loaded: those estimated to be faster, those measured "
        "to be faster on this machine, or all.",
        choices=KERNELS,
    )
