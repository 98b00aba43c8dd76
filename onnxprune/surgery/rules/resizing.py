"""Operators that change the spatial size: Resize, Upsample, DepthToSpace, SpaceToDepth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.dims import changeable, follow_sizes, set_size
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Coupling,
    Kept,
    passes_channels,
    passes_constants,
    rewrites,
)

SIZES = 3  # Resize's input of sizes


@passes_channels("Resize", "Upsample")
def resize(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple batch and channels if their size is unchanged."""
    data = node.inputs[0]
    crops = node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    stretches = node.attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    if data is None or crops or not stretches:
        return
    target = _sizes(node)
    if target is None:
        scales = _scales(node, facts)
        unscaled = (
            [] if scales is None or len(scales) != facts.rank(data) else np.flatnonzero(scales == 1).tolist()
        )
        yield from couple_axes(data, node.outputs[0], [axis for axis in (0, 1) if axis in unscaled], facts)
        return
    elements = facts.elements(target)
    if elements is None or len(elements) != facts.rank(data):
        return
    couplings = list(
        couple_axes(data, node.outputs[0], [axis for axis in (0, 1) if changeable(elements[axis])], facts)
    )
    yield from couplings
    yield from follow_sizes(node, target, facts, {coupling.right.dim for coupling in couplings})


@passes_constants("Resize", "Upsample")
def resize_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """A channel of zeros stays zero under any interpolation."""
    return _zeros(facts.known(node.inputs[0]))


@rewrites("Resize")
def resize_target(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the number of channels, if sizes are given."""
    elements = facts.elements(_sizes(node))
    if elements is None or len(elements) != facts.rank(node.outputs[0]):
        return
    for axis in (0, 1):
        kept = kept_of(Axis(node.outputs[0], axis))
        if elements[axis].stored and not kept.all():
            set_size(node, SIZES, axis, int(kept.sum()), facts)


@passes_channels("DepthToSpace")
def depth_to_space(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple a channel with the blocksize * blocksize channels that it is made of."""
    blocks = node.attributes.get_int("blocksize", 1) ** 2
    yield from _woven(node, node.inputs[0], node.outputs[0], blocks, facts)


@passes_channels("SpaceToDepth")
def space_to_depth(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple a channel with the blocksize * blocksize channels that are made of it."""
    blocks = node.attributes.get_int("blocksize", 1) ** 2
    yield from _woven(node, node.outputs[0], node.inputs[0], blocks, facts)


def _woven(
    node: ir.Node, deep: ir.Value | None, wide: ir.Value | None, blocks: int, facts: Facts
) -> Iterator[Claim]:
    """Mode DCR: deep channel = block * channels + channel; mode CRD: channel * blocks + block."""
    if deep is None or wide is None:
        return
    yield from couple_axes(deep, wide, (0,), facts)
    length, channels = facts.length(Axis(deep, 1)), facts.length(Axis(wide, 1))
    if length is None or channels is None or length != channels * blocks:
        return
    positions = np.arange(length)
    crossed = node.attributes.get_string("mode", "DCR") == "CRD"
    yield Coupling(
        Axis(deep, 1), Axis(wide, 1), positions, positions // blocks if crossed else positions % channels
    )


def _scales(node: ir.Node, facts: Facts) -> np.ndarray | None:
    if "axes" in node.attributes:
        return None
    if "scales" in node.attributes:
        return np.array(node.attributes.get_floats("scales", ()))
    return facts.constant(node.inputs[2 if len(node.inputs) > 2 else 1])


def _sizes(node: ir.Node) -> ir.Value | None:
    return node.inputs[SIZES] if node.op_type == "Resize" and len(node.inputs) > SIZES else None


def _zeros(known: np.ma.MaskedArray | None) -> np.ma.MaskedArray | None:
    if known is None or known.ndim < 2 or any(length != 1 for length in known.shape[2:]):
        return None
    return np.ma.masked_where(known != 0, known) if known.dtype.kind == "f" else None
