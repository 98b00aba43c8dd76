"""`onnxprune.tune`: choose which nodes use the sparse kernels, on the machine that will run the model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxprune.config.checks import input_shapes
from onnxprune.config.declare import ShapesLike
from onnxprune.data.random import random_feeds
from onnxprune.data.specs import input_specs
from onnxprune.errors import NothingToPruneError
from onnxprune.model.files.io import load
from onnxprune.model.files.staging import staging
from onnxprune.model.weights import find_weights
from onnxprune.reports.record import ANNOTATION_PREFIX
from onnxprune.runtime.cpu import cpu_name
from onnxprune.sparse.choose import SEARCH_SECONDS, Choice, choose_auto
from onnxprune.sparse.functions import SPARSE_WEIGHT
from onnxprune.sparse.placement import kernel_nodes
from onnxprune.sparse.rewrite import to_ops
from onnxprune.system.progress import StageProgress
from onnxprune.system.trust import Paths, trust


@dataclass(frozen=True)
class Tuning:
    """The result of `tune`: the choice, the shapes of the inputs, and the file's bytes before and after."""

    choice: Choice
    input_shapes: Mapping[str, tuple[int, ...]]
    bytes_before: int
    bytes_after: int


def tune(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    input_shape: ShapesLike = (),
    threads: int = 0,
    seconds: float = SEARCH_SECONDS,
    progress: StageProgress = lambda stage, fraction: None,
    allow_links: Paths = (),
    custom_ops: Paths = (),
) -> Tuning:
    """Measure each sparse node and the whole graph, and write the model with the fastest choice for this machine.

    `source`: a file that onnxprune wrote; one of `--format dense` or `coo` is written in the `ops` format. Weights keep
    their values and how they are stored; the rest of the model is unchanged. `threads`: of onnxruntime (0: its own
    choice). `seconds`: time for the search over whole graphs. `allow_links`, `custom_ops`: as in `prune`.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it; nothing was written.
    """
    progress("load", 0.0)
    trust(allow_links, custom_ops)
    model, origin = load(source)
    target = Path(target)
    stored = to_ops(model, find_weights(model).prunable)
    if not kernel_nodes(model):
        if any(node.op_type == SPARSE_WEIGHT for node in model.graph.all_nodes()):
            raise NothingToPruneError(
                f"{origin.name} has no Gemm, MatMul or Conv with a sparse weight of its own, and kernels run nothing "
                "else: it runs by onnxruntime alone"
            )
        reason = next((f": {outcome.name}: {outcome.reason}" for outcome in stored), "")
        raise NothingToPruneError(
            f"{origin.name} has no weight that is smaller when stored sparse{reason}; prune it first: onnxprune "
            "IN.onnx OUT.onnx --rate 0.9"
        )
    feeds = random_feeds(input_specs(model), input_shapes(input_shape))
    with staging(target, origin, external=origin.external) as stage:
        choice = choose_auto(
            model, feeds, threads=threads, seconds=seconds, progress=lambda done: progress("measure", done)
        )
        shapes = {name: array.shape for name, array in feeds.items()}
        model.metadata_props[f"{ANNOTATION_PREFIX}tuned"] = _annotation(choice, shapes, threads)
        stage.write(model, external=origin.external)
        tuning = Tuning(choice, shapes, origin.file_bytes, stage.file_bytes())
        stage.commit()
    return tuning


def _annotation(choice: Choice, shapes: Mapping[str, tuple[int, ...]], threads: int) -> str:
    assert choice.after is not None
    return json.dumps(
        {
            "cpu": cpu_name(),
            "threads": threads,
            "input_shapes": shapes,
            "speedup": round(choice.after.ratio, 3),
            "by_kernel": [node.name for node in choice.nodes if node.by_kernel],
        }
    )
