"""Whole models as torch graphs beside onnxruntime: python -m tests.benchmarks.training_graphs [NAME ...]

The largest difference of any output, relative to the largest magnitude in that output; before a last Softmax or
Sigmoid, which would hide it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from onnxprune.training.module.graph import to_torch
from tests.surgery.whole_models import MissingPackageError
from tests.training.whole_models import MODELS, difference


def parameters(proto: onnx.ModelProto) -> int:
    """Elements of the parameters of the graph."""
    return sum(parameter.numel() for parameter in to_torch(ir.from_proto(proto)).parameters())


def table(names: list[str]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| model | nodes | parameters | largest relative difference |"
    yield "|---|---|---|---|"
    for name in names:
        try:
            proto, shapes = MODELS[name]()
        except MissingPackageError as missing:
            yield f"| {name} | left out: {missing} | | |"
            continue
        count = parameters(proto) / 1e6
        yield f"| {name} | {len(proto.graph.node)} | {count:.2f} M | {difference((proto, shapes)):.0e} |"


if __name__ == "__main__":
    for line in table(sys.argv[1:] or list(MODELS)):
        print(line, flush=True)
