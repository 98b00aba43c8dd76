"""Whole models without half of their weights, in whole channels, held against the same with those channels at zero."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.model.costs import multiply_adds
from onnxprune.model.weights import find_weights
from onnxprune.pruning.channels import choose_channels
from onnxprune.surgery import remove_dead_units, unit_groups, zero_units
from tests.surgery.oracle import known_to_onnx
from tests.surgery.whole_models import Whole

WORDS = 100  # token ids are below it
SQUASHING = ("Softmax", "Sigmoid")  # as last nodes, they hide differences: what they read is compared


@dataclass(frozen=True)
class PrunedModel:
    """A model without some of its channels; what the two count, and how far their outputs differ, relatively."""

    model: onnx.ModelProto
    parameters_before: int
    parameters_after: int
    multiply_adds_before: int
    multiply_adds_after: int
    difference: float
    seconds: float


def prune_channels(whole: Whole, rate: float = 0.5, round_to: int = 1) -> PrunedModel:
    """Prune a whole model, and compare it with the model with the same channels at zero.

    Raises:
        onnx.checker.ValidationError: the result is no valid model.
    """
    proto, shapes = whole
    before = ir.from_proto(proto)
    pruned = ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    start = time.perf_counter()
    groups = unit_groups(pruned)
    size = sum(array.size for array in groups.weights.values())
    choice = choose_channels(groups.positions, groups.weights, rate, round_to=round_to)
    zero_units(pruned, groups, choice.chosen)
    zeroed = ir.to_proto(pruned)
    remove_dead_units(pruned)
    seconds = time.perf_counter() - start
    after = ir.to_proto(pruned)
    onnx.checker.check_model(known_to_onnx(after), full_check=True)
    onnx.shape_inference.infer_shapes(known_to_onnx(after), check_type=True, strict_mode=True, data_prop=True)
    inputs = random_inputs(session(proto), shapes)
    outputs = [session(unsquashed(each)).run(None, inputs) for each in (zeroed, after)]
    difference = max(
        float(np.abs(zero - cut).max() / np.abs(zero).max()) for zero, cut in zip(*outputs, strict=True)
    )
    return PrunedModel(
        after,
        size,
        sum(array.size for array in unit_groups(pruned).weights.values()),
        sum(multiply_adds(before, shapes).values()),
        sum(multiply_adds(pruned, shapes).values()),
        difference,
        seconds,
    )


def free_share(model: ir.Model) -> tuple[float, dict[str, int]]:
    """The share of the prunable weights in groups that can be removed, and the other elements by name of the weight."""
    groups = unit_groups(model)
    names = {weight.name for weight in find_weights(model).prunable}
    arrays = {name: array for name, array in groups.weights.items() if name in names}
    stuck = choose_channels(groups.positions, arrays, 1.0).stuck
    return 1 - sum(stuck.values()) / sum(array.size for array in arrays.values()), dict(stuck)


def both_ways(model: ir.Model) -> float:
    """The share of the prunable weights that can lose their outputs and their inputs (depthwise layers have none)."""
    groups, free, total = unit_groups(model), 0.0, 0
    places: dict[tuple[str, int], set[int]] = {}
    for positions in groups.positions:
        for at, where in positions.items():
            places.setdefault(at, set()).update(where.tolist())
    for weight in find_weights(model).prunable:
        axes = {weight.out_axis, weight.in_axis} if weight.shape[weight.in_axis] > 1 else {weight.out_axis}
        shares = [len(places.get((weight.name, axis), ())) / weight.shape[axis] for axis in axes]
        free += weight.size * float(np.prod(shares))
        total += weight.size
    return free / total


def unsquashed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what its last Softmax or Sigmoid reads as output."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    sources = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type in SQUASHING}
    names = [sources.get(output.name, output.name) for output in proto.graph.output]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return proto


def session(proto: onnx.ModelProto) -> ort.InferenceSession:
    """A session of one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def random_inputs(session: ort.InferenceSession, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Inputs of these shapes: normal numbers, or token ids."""
    rng = np.random.default_rng(0)
    return {
        info.name: rng.integers(0, WORDS, shapes[info.name])
        if "int" in info.type
        else rng.standard_normal(shapes[info.name], np.float32)
        for info in session.get_inputs()
    }
