"""The weights from which channels can be removed, in models by other hands: python -m tests.benchmarks.free_groups

    python -m tests.benchmarks.free_groups [--no-jobs] [NAME ...]

A row a model: the share of the prunable weights that lie in free groups, the share that can lose inputs and outputs
both (as residual streams must lose channels for), what keeps the rest from losing outputs or inputs, and the largest
difference, relative to the output's largest magnitude, of a model without 30 % in channels from the same model with
those channels at zero (before a last Softmax or Sigmoid): from the weights alone, and compensated by random inputs.
"emptied": layers of which nothing is left. Files of packages that are not installed are left out: see group_files.py.
Names are prefixes, or ONNX files of other exporters.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
from torch.onnx.errors import OnnxExporterError as TorchExportError

import onnxprune
from onnxprune.errors import OnnxPruneError
from onnxprune.job import pipeline
from onnxprune.model.constants import constant_tensor, constants, set_constant
from onnxprune.model.weights import find_weights
from onnxprune.sparse.opening import open_model
from onnxprune.surgery import SurgeryReport, remove_dead_units
from onnxprune.surgery.axes import Axis
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.units import Units
from tests.benchmarks.group_files import FILES, from_file
from tests.real_models import difference, inputs, run
from tests.surgery.channel_pruning import both_ways, free_share, unsquashed
from tests.surgery.whole_models import MissingPackageError, Whole

RATE = 0.3
REASONS_SHOWN = 3


def reasons_of(model: ir.Model) -> Counter[str]:
    """The share of the prunable weights that each reason keeps from losing outputs, or inputs."""
    weights = find_weights(model).prunable
    total = sum(weight.size for weight in weights)
    units, reasons = Units(Facts(model)), Counter[str]()
    for weight in weights:
        left = weight.size / total
        for side, dim in (("outputs", weight.out_axis), ("inputs", weight.in_axis)):
            if weight.shape[dim] == 1 and side == "inputs":
                continue
            axis, stays = Axis(weight.value, dim), Counter[str]()
            groups = units.groups(axis) if axis in units else np.zeros(1, int)
            for group, count in zip(*np.unique(groups, return_counts=True), strict=True):
                reason = units.reason(int(group)) if axis in units else "its size is not known"
                if reason is not None:
                    stays[f"{side}: {reason}"] += int(count)
            for reason, count in stays.items():
                reasons[reason] += left * count / len(groups)
            left *= 1 - stays.total() / len(groups)
    return reasons


def jobs(whole: Whole, folder: Path) -> Iterator[tuple[float, int]]:
    """What a model pruned without and with calibration data differs from the zeroed one, and its emptied layers."""
    proto, shapes = whole
    source, zeroed, target = (folder / f"{name}.onnx" for name in ("in", "zeroed", "out"))
    onnx.save(proto, source)
    feeds = inputs(proto, shapes)
    data = folder / "data.npz"
    np.savez(data, **feeds)

    def keep_zeroed(model: ir.Model) -> SurgeryReport:
        copy = model.clone()
        for value in constants(copy):
            tensor = constant_tensor(value)
            if isinstance(tensor, ir.ExternalTensor):
                set_constant(value, tensor.numpy().copy(), tensor.dtype)
        onnx.save(ir.to_proto(copy), zeroed)
        return remove_dead_units(model)

    for settings in ({}, {"calibration_data": data, "effort": "fast"}):
        with mock.patch.object(pipeline, "remove_dead_units", keep_zeroed):
            onnxprune.prune(
                source, target, pattern="channel", rate=RATE, format="dense", evaluate=False, **settings
            )
        before = {weight.name: weight for weight in find_weights(ir.load(source)).prunable}
        after = {weight.name: weight for weight in find_weights(ir.load(target)).prunable}
        emptied = sum(
            weight.nonzero() > 0 and (name not in after or not after[name].nonzero())
            for name, weight in before.items()
        )
        outputs = []
        for file in (target, zeroed):
            onnx.save(unsquashed(onnx.load(file)), file)
            outputs.append(run(file, feeds))
        yield difference(*outputs), emptied


def row(name: str, *, with_jobs: bool) -> str:
    """A line of the Markdown table."""
    try:
        whole = FILES[name]() if name in FILES else from_file(name)
    except MissingPackageError as missing:
        return f"| {name} | left out: {missing} | | | | |"
    except TorchExportError as error:
        return f"| {name} | left out: torch does not export it ({type(error).__name__}) | | | | |"
    model = open_model(whole[0]).model
    share = free_share(model)[0]
    reasons = reasons_of(model).most_common(REASONS_SHOWN)
    texts = "; ".join(f"{part:.1%} {reason}" for reason, part in reasons)
    cells = ["", ""]
    if with_jobs:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = list(jobs(whole, Path(folder)))
            except OnnxPruneError as error:
                cells = [str(error), ""]
            else:
                cells = [
                    ", ".join(f"{apart:.0e}" for apart, _ in found),
                    ", ".join(str(emptied) for _, emptied in found),
                ]
    return f"| {name} | {share:.1%} | {both_ways(model):.1%} | {texts} | " + " | ".join(cells) + " |"


def table(prefixes: list[str], *, with_jobs: bool) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| model | in free groups | both ways | what freezes the rest | difference at 0.3 | emptied |"
    yield "|---|---|---|---|---|---|"
    files = [name for name in prefixes if name.endswith(".onnx")]
    chosen = tuple(name for name in prefixes if name not in files)
    for name in (*(name for name in FILES if not prefixes or (chosen and name.startswith(chosen))), *files):
        yield row(name, with_jobs=with_jobs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-jobs", action="store_true", help="only count")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    for line in table(options.names, with_jobs=not options.no_jobs):
        print(line, flush=True)
