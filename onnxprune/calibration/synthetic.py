"""Synthetic inputs, generated from the model, for users without data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.walk import walk
from onnxprune.data.axes import BatchAxes
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.ragged import repeated
from onnxprune.data.random import random_shapes
from onnxprune.data.specs import InputSpec
from onnxprune.model.constants import constant_tensor

NAME = "synthetic"
SAMPLES = 256
# Number of samples that each range of values is tried on.
TRIED = 16
# Common ranges of image values: lowest and highest.
RANGES = ((0.0, 1.0), (-1.0, 1.0), (-2.2, 2.7), (0.0, 255.0))
# Cells along an axis of the coarse noise that smooth images are interpolated from.
CELLS = (2, 3, 5, 9)


def synthetic_data(
    model: ir.Model, specs: Sequence[InputSpec], axes: BatchAxes, free_size: int, seed: int
) -> Dataset:
    """Synthetic inputs of `SAMPLES` samples: images, uniform token ids, masks of ones; normal noise for all others.

    Half of the images are smooth, a quarter have edges, a quarter are noise. Other open axes have `free_size`
    positions. The images have the range of `RANGES` that fits the statistics of BatchNormalization best;
    without BatchNormalization, [0, 1].
    """
    random = np.random.default_rng(seed)
    arrays = {}
    for name, shape in random_shapes(specs, axes, free_size, SAMPLES).items():
        spec = next(spec for spec in specs if spec.name == name)
        if axes.of(name) is None and not axes.whole:
            arrays[name] = repeated(_values(model, spec, (1, *shape[1:]), random)[0], shape[0])
        else:
            arrays[name] = _values(model, spec, shape, random)
    data = Batch(arrays, axes=axes)
    images = [
        spec.name
        for spec in specs
        if axes.of(spec.name) == 0 and _channel_axis(spec, arrays[spec.name].shape) is not None
    ]
    data = _in_range(model, data, images) if images else data
    return Dataset.of(data.inputs, name="synthetic inputs generated from the model", axes=axes)


def _values(
    model: ir.Model, spec: InputSpec, shape: tuple[int, ...], random: np.random.Generator
) -> np.ndarray:
    axis = _channel_axis(spec, shape)
    if spec.dtype.kind in "iub":
        words = _table_rows(model, spec.name)
        return np.asarray(random.integers(0, words, shape) if words else np.ones(shape)).astype(spec.dtype)
    if axis is None:
        return np.asarray(random.standard_normal(shape)).astype(spec.dtype)
    planes = (*shape[:1], shape[axis], *(size for index, size in enumerate(shape) if index not in (0, axis)))
    return np.moveaxis(_pictures(planes, random), 1, axis).astype(spec.dtype)


def _channel_axis(spec: InputSpec, shape: tuple[int, ...]) -> int | None:
    """The color axis of an input that looks like images, (N, 3, H, W) or (N, H, W, 3); else None."""
    if spec.dtype.kind != "f" or len(shape) != 4:
        return None
    return next((axis for axis in (1, 3) if shape[axis] in (1, 3, 4)), None)


def _table_rows(model: ir.Model, name: str) -> int | None:
    """The number of rows of the embedding that an input of ids indexes by Gather; None if there is none."""
    value = next(value for value in model.graph.inputs if value.name == name)
    for use in value.uses():
        table = constant_tensor(use.node.inputs[0])
        if use.node.op_type == "Gather" and use.idx == 1 and table is not None:
            return int(table.shape.numpy()[use.node.attributes.get_int("axis", 0)])
    return None


def _pictures(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """(samples, channels, height, width) in [0, 1]."""
    pictures = random.random(shape, dtype=np.float32)
    for index in range(len(pictures)):
        if index % 4 < 2:
            pictures[index] = sum(
                _smooth(random.standard_normal((shape[1], cells, cells)), shape[2:]) / cells
                for cells in CELLS
            )
        elif index % 4 == 2:
            pictures[index] = _edges(shape[1:], random)
        low, high = pictures[index].min(), pictures[index].max()
        pictures[index] = (pictures[index] - low) / max(high - low, np.finfo(np.float32).tiny)
    return pictures


def _smooth(coarse: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(channels, cells, cells) interpolated linearly to (channels, height, width)."""
    for axis, length in zip((1, 2), size, strict=True):
        places = np.linspace(0, coarse.shape[axis] - 1, length)
        left = np.minimum(places.astype(int), coarse.shape[axis] - 2)
        share = np.expand_dims(places - left, 1 if axis == 1 else 0)
        coarse = coarse.take(left, axis) * (1 - share) + coarse.take(left + 1, axis) * share
    return coarse


def _edges(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Plain rectangles on a plain background."""
    picture = np.broadcast_to(random.random((shape[0], 1, 1)), shape).astype(np.float32)
    for _ in range(random.integers(3, 12)):
        corners = [np.sort(random.integers(0, size + 1, 2)) for size in shape[1:]]
        area = tuple(slice(*corner) for corner in corners)
        picture[:, area[0], area[1]] = random.random((shape[0], 1, 1))
    return picture


def _in_range(model: ir.Model, data: Batch, images: Sequence[str]) -> Batch:
    """The images in the range that fits the statistics of BatchNormalization best."""
    norms = [node for node in model.graph if node.op_type == "BatchNormalization"]

    def scaled(some: Batch, low: float, high: float) -> Batch:
        moved = {
            name: (low + (high - low) * some.inputs[name]).astype(some.inputs[name].dtype) for name in images
        }
        return Batch(some.inputs | moved, axes=some.axes)

    some = data.take(slice(0, TRIED))
    best = min(RANGES, key=lambda ends: _mismatch(model, scaled(some, *ends), norms)) if norms else RANGES[0]
    return scaled(data, *best)


def _mismatch(model: ir.Model, data: Batch, norms: Sequence[ir.Node]) -> float:
    """The distance of the inputs of norms from their stored statistics, in standard deviations; mean over channels."""
    distances = []
    for visit in walk(model, None, data, norms):
        statistics = [constant_tensor(value) for value in visit.node.inputs[3:5]]
        value = visit.node.inputs[0]
        if value is None or None in statistics:
            continue
        seen = np.concatenate([batch[value] for batch in visit.pruned])
        axes = (0, *range(2, seen.ndim))
        mean, variance = (tensor.numpy() for tensor in statistics if tensor is not None)
        spread = np.maximum(variance, np.finfo(np.float32).tiny)
        growth = np.maximum(seen.var(axes), np.finfo(np.float32).tiny) / spread
        distances.append(np.mean((seen.mean(axes) - mean) ** 2 / spread + np.log(growth) ** 2))
    return float(np.mean(distances)) if distances else 0.0
