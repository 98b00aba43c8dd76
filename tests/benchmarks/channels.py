"""What half of the weights, removed in whole channels, does to whole models: python -m tests.benchmarks.channels

Parameters and multiply-adds left, latency in stock onnxruntime after / before (one thread, runs interleaved, medians),
and the largest difference from the model with the same channels at zero, relative to the largest output (before a
last Softmax or Sigmoid).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.model.costs import multiply_adds
from onnxprune.pruning.channels import choose_channels
from onnxprune.surgery import remove_dead_units, unit_groups, zero_units
from tests.surgery.whole_models import MODELS, MissingPackageError, Whole

ROUNDS = 15
WORDS = 500  # token ids are below it
SQUASHING = ("Softmax", "Sigmoid")  # as last nodes, they hide differences: what they read is compared


@dataclass(frozen=True)
class Row:
    """One model before and after."""

    name: str
    parameters_before: int
    parameters_after: int
    multiply_adds_before: int
    multiply_adds_after: int
    latency_ratio: float
    difference: float
    seconds: float


def measure(name: str, whole: Whole, rate: float = 0.5, rounds: int = ROUNDS, round_to: int = 1) -> Row:
    """Prune a whole model and hold the result against the model with the same channels at zero.

    Raises:
        onnx.checker.ValidationError: the result is no valid model.
    """
    proto, shapes = whole
    before = ir.from_proto(proto)
    pruned = ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    start = time.perf_counter()
    groups = unit_groups(pruned)
    choice = choose_channels(groups.positions, groups.weights, rate, round_to=round_to)
    zero_units(pruned, groups, choice.chosen)
    zeroed = ir.to_proto(pruned)
    remove_dead_units(pruned)
    seconds = time.perf_counter() - start
    after = ir.to_proto(pruned)
    onnx.checker.check_model(after, full_check=True)
    onnx.shape_inference.infer_shapes(after, check_type=True, strict_mode=True, data_prop=True)
    sessions = [_session(m) for m in (proto, after)]
    feeds = _feeds(sessions[0], shapes)
    outputs = [_session(unsquashed(m)).run(None, feeds) for m in (zeroed, after)]
    difference = max(
        float(np.abs(zero - cut).max() / np.abs(zero).max()) for zero, cut in zip(*outputs, strict=True)
    )
    return Row(
        name,
        choice.total,
        sum(array.size for array in unit_groups(pruned).weights.values()),
        sum(multiply_adds(before, shapes).values()),
        sum(multiply_adds(pruned, shapes).values()),
        _latency_ratio(sessions[0], sessions[1], feeds, rounds) if rounds else float("nan"),
        difference,
        seconds,
    )


def unsquashed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what its last Softmax or Sigmoid reads as output."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    sources = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type in SQUASHING}
    names = [sources.get(output.name, output.name) for output in proto.graph.output]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return proto


def _session(proto: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _feeds(session: ort.InferenceSession, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        info.name: rng.integers(0, WORDS, shapes[info.name])
        if "int" in info.type
        else rng.standard_normal(shapes[info.name], np.float32)
        for info in session.get_inputs()
    }


def _latency_ratio(
    before: ort.InferenceSession, after: ort.InferenceSession, feeds: dict[str, np.ndarray], rounds: int
) -> float:
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for session, own in zip((before, after), times, strict=True):
            start = time.perf_counter()
            session.run(None, feeds)
            own.append(time.perf_counter() - start)
    return float(np.median(times[1]) / np.median(times[0]))


def table(names: list[str]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| model | parameters left | multiply-adds left | latency | with --round-to 8 | largest difference |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        try:
            whole = MODELS[name]()
            row, rounded = measure(name, whole), measure(name, whole, round_to=8)
        except MissingPackageError as missing:
            yield f"| {name} | left out: {missing} | | | | |"
            continue
        yield (
            f"| {name} | {row.parameters_after / row.parameters_before:.0%} of {row.parameters_before / 1e6:.2f} M "
            f"| {row.multiply_adds_after / row.multiply_adds_before:.0%} of {row.multiply_adds_before / 1e6:,.0f} M "
            f"| {row.latency_ratio:.2f}x | {rounded.latency_ratio:.2f}x | {row.difference:.0e} |"
        )


if __name__ == "__main__":
    for line in table(sys.argv[1:] or list(MODELS)):
        print(line, flush=True)
