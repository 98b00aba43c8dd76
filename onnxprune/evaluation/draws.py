"""Operators that draw random numbers: two models are compared with the same draws, so each gets a seed by its name."""

from __future__ import annotations

import zlib
from collections.abc import Collection

import onnx

from onnxprune.model.files.protos import all_nodes

RANDOM = (
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"
)  # fmt: skip
DROPOUT = "Dropout"
# The seed of most of these operators is a float, which holds integers up to here.
SEEDS = 1 << 24


def seed_draws(proto: onnx.ModelProto) -> dict[str, str]:
    """Give every operator that draws random numbers a seed, in place; returns their types by the name of their output.

    One that has a seed keeps it. In onnxruntime, the draws of an operator with a seed are the same in every new
    session, whatever the rest of the graph is.
    """
    found = {}
    off = {tensor.name for tensor in proto.graph.initializer if _is_false(tensor)}
    for node in all_nodes(proto):
        if node.op_type == "Constant" and any(_is_false(attribute.t) for attribute in node.attribute):
            off.update(node.output)
        if node.domain not in ("", "ai.onnx") or not _draws(node, off):
            continue
        name = next(filter(None, node.output), node.name)
        found[name] = node.op_type
        if all(attribute.name != "seed" for attribute in node.attribute):
            seed = zlib.crc32(name.encode()) % SEEDS
            node.attribute.append(
                onnx.helper.make_attribute("seed", seed if node.op_type == DROPOUT else float(seed))
            )
    return found


def _draws(node: onnx.NodeProto, off: Collection[str]) -> bool:
    """Dropout draws only in training mode, which its third input says (Dropout-12)."""
    if node.op_type == DROPOUT:
        return len(node.input) > 2 and bool(node.input[2]) and node.input[2] not in off
    return node.op_type in RANDOM


def _is_false(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.BOOL and not onnx.numpy_helper.to_array(tensor).any()
