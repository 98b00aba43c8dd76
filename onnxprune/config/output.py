"""Settings of the output: what the file holds, and which kernels run it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.declare import setting

VALUES = ("fp32", "fp16", "int8")
EXTERNAL_DATA = ("auto", "always", "never")
KERNELS = ("estimated", "measured", "all")


@dataclass(frozen=True)
class OutputSettings:
    """The form of the file that is written."""

    heading = "Output"

    remove_dead: bool = setting(
        True,
        "Remove neurons and channels that no connection leads to or from any more.",
        trains=False,
    )
    format: str = setting(
        "ops", "Format of the weights.", table="formats", trains=False, common="Format of the weights"
    )
    values: str = setting(
        "fp32",
        "Type of the values in sparse nodes: as they are, or rounded to fp16, or to int8 with a scale for each output.",
        choices=VALUES,
    )
    external_data: str = setting(
        "auto",
        "Store weights in OUT.onnx.data: where the input does or the file would pass 2 GB, always, or never.",
        choices=EXTERNAL_DATA,
    )


@dataclass(frozen=True)
class KernelSettings:
    """Which nodes the sparse kernels run."""

    heading = "Kernels"

    # Estimated: a measured choice would differ from run to run and hold for the machine that prunes, seldom the one
    # that runs; `onnxprune tune` measures there.
    kernels: str = setting(
        "estimated",
        "Which sparse nodes use the sparse kernels, where their library is loaded: those estimated to gain, those "
        "measured to gain on this machine, or all.",
        choices=KERNELS,
    )
