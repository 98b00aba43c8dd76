"""Whole real models at three rates in every format: python -m tests.benchmarks.real_models [NAME ...]

A row a model: each format's file against that of the same model, as multiples of the input's bytes, and the largest
difference of any output from that of the model with the same weights at zero (`--format dense --no-remove-dead`),
relative to the output's largest magnitude.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import onnx_ir as ir

from onnxprune.model.files.protos import all_tensors
from onnxprune.model.reading import FLOAT_TYPES
from onnxprune.model.weights import find_weights
from tests.real_models import FORMATS, MODELS, RATES, trials
from tests.surgery.whole_models import MissingPackageError


def row(name: str) -> str:
    """A line of the Markdown table."""
    try:
        proto, shapes = MODELS[name]()
    except MissingPackageError as missing:
        return f"| {name} | left out: {missing} |" + " |" * (len(RATES) * len(FORMATS) + 2)
    weights = find_weights(ir.from_proto(proto)).prunable
    prunable = sum(weight.size for weight in weights)
    tensors = (tensor for tensor, constant in all_tensors(proto) if constant)
    elements = sum(math.prod(tensor.dims) for tensor in tensors if tensor.data_type in FLOAT_TYPES)
    results = list(trials(proto, shapes))
    ratios = " | ".join(f"{result.bytes:.2f}" for result in results)
    worst = max(result.difference for result in results)
    seconds = sum(result.seconds for result in results) / len(results)
    return f"| {name} | {elements / 1e6:.3g} M | {prunable / elements:.1%} | {ratios} | {worst:.0e} | {seconds:.1f} s |"


def table(names: list[str]) -> Iterator[str]:
    """Lines of a Markdown table."""
    columns = [f"{rate:g} {form}" for rate in RATES for form in FORMATS]
    yield "| model | weights | prunable | " + " | ".join(columns) + " | difference | a job |"
    yield "|---" * (len(columns) + 5) + "|"
    yield from map(row, names)


if __name__ == "__main__":
    for line in table(sys.argv[1:] or list(MODELS)):
        print(line, flush=True)
