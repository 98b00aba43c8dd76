"""Pictures of where a weight is not zero: all of it, downsampled, and a part of it element by element."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from onnxprune.data.images.png import LEVELS, png_of_levels
from onnxprune.model.weights import Weight

# Cells of the picture of a whole weight, and of a part of it: (rows, columns).
WHOLE, PART = (96, 160), (32, 64)
# The blocks of all patterns begin at multiples of this.
ALIGNED = 4
COLOR = (0x2B, 0x8F, 0xD6)
# So many weights have pictures, the largest ones.
DRAWN = 12


def sparsity_maps(weights: Sequence[Weight], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`sparsity_map` of the largest pruned weights, by name; `layers`: their records."""
    found = {weight.name: weight for weight in weights}
    names = {name for name, weight in found.items() if weight.size}
    pruned = [layer for layer in layers if layer["kept"] < layer["size"] and layer["name"] in names]
    largest = sorted(pruned, key=lambda layer: -layer["size"])[:DRAWN]
    return {layer["name"]: sparsity_map(found[layer["name"]], layer.get("shape")) for layer in largest}


def sparsity_map(weight: Weight, shape_before: Sequence[int] | None = None) -> dict[str, Any]:
    """Where a weight is not zero, as (outputs, kernel positions and inputs): neighbors of a block are side by side.

    `whole`: the density of each cell relative to `densest`, the largest one, as a PNG in Base64; removed outputs and
    inputs are empty cells at the bottom and on the right. `part`: the elements in the middle, one cell each; empty if
    the whole weight has one cell for each, or no zeros. `shape`, `before`: rows and columns in the file and in the
    input model.
    """
    present = outputs_by_inputs(weight)
    before = _before(weight, present.shape, shape_before)
    room = np.zeros(before, bool)
    room[: present.shape[0], : present.shape[1]] = present
    whole = densities(room, WHOLE)
    densest = float(whole.max(initial=0.0))
    plain = whole.shape == room.shape or present.all()
    part = "" if plain else _png(middle(present, PART).astype(float))
    shown = {"whole": _png(whole / (densest or 1.0)), "cells": list(whole.shape), "part": part}
    return shown | {"densest": densest, "shape": list(present.shape), "before": list(before)}


def outputs_by_inputs(weight: Weight) -> np.ndarray:
    """Where a weight is not zero, bool: a row for each output, and in it the inputs of each kernel position."""
    present = weight.present()
    if present.ndim < 2 or weight.in_axis == weight.out_axis:
        return np.asarray(weight.matrix(present))
    moved = np.moveaxis(present, (weight.out_axis, weight.in_axis), (0, -1))
    return moved.reshape(len(moved), -1)


def densities(present: np.ndarray, most: tuple[int, int]) -> np.ndarray:
    """The fraction of true elements in each cell of a grid of at most `most` rows and columns."""
    rows, columns = (
        np.linspace(0, size, min(size, limit), endpoint=False).astype(int)
        for size, limit in zip(present.shape, most, strict=True)
    )
    if not present.size:
        return np.zeros((len(rows), len(columns)))
    # One row of cells after the other: a large weight is not copied.
    strips = [present[start:end].sum(0) for start, end in pairwise([*rows, present.shape[0]])]
    sums = np.add.reduceat(np.stack(strips), columns, 1)
    heights, widths = np.diff([*rows, present.shape[0]]), np.diff([*columns, present.shape[1]])
    return np.asarray(sums / np.outer(heights, widths))


def middle(present: np.ndarray, most: tuple[int, int]) -> np.ndarray:
    """The part in the middle of at most `most` rows and columns."""
    starts = [
        max(size - limit, 0) // 2 // ALIGNED * ALIGNED
        for size, limit in zip(present.shape, most, strict=True)
    ]
    return present[starts[0] : starts[0] + most[0], starts[1] : starts[1] + most[1]]


def _before(weight: Weight, shape: tuple[int, ...], given: Sequence[int] | None) -> tuple[int, int]:
    """Rows and columns of the weight in the input model; those in the file where they are not known."""
    if given is None or len(given) != len(weight.shape) or len(given) < 2:
        return shape[0], shape[1]
    rows = given[weight.out_axis]
    return max(rows, shape[0]), max(math.prod(given) // max(rows, 1), shape[1])


def _png(shares: np.ndarray) -> str:
    """Shares from 0 to 1 as a PNG in Base64; cells that are not 0 are visible."""
    return base64.b64encode(png_of_levels(np.ceil(shares * (LEVELS - 1)), COLOR)).decode()
