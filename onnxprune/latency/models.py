"""The models suite: whole networks, pruned by magnitude to given densities, dense and sparse."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from onnxprune.data.random import random_feeds
from onnxprune.data.specs import input_specs
from onnxprune.latency import integers
from onnxprune.latency.engines import DENSE, KERNELS, OTHERS, Engine, Feeds, Worker
from onnxprune.latency.networks import NETWORKS, Network
from onnxprune.latency.race import Entrant, Row, race
from onnxprune.model.files.staging import staging
from onnxprune.model.weights import find_weights
from onnxprune.pruning.allocation import Pool
from onnxprune.pruning.blocks import BlockPattern
from onnxprune.pruning.masks import apply_masks, make_masks
from onnxprune.sparse.choose import choose_auto
from onnxprune.sparse.opset import raise_opset
from onnxprune.sparse.rewrite import to_ops

# Relative to the largest output; rounding errors add up over the layers of a network.
TOLERANCE = 1e-3
TUNED = f"{KERNELS.name} auto"
SEARCH_SECONDS = 20.0


@dataclass(frozen=True)
class Prepared:
    """A pruned network in dense and in sparse form, and its inputs."""

    dense: ir.Model
    sparse: ir.Model
    feeds: Feeds


def bench_models(
    networks: Mapping[str, Network] = NETWORKS,
    threads: Sequence[int] = (1, 2),
    engines: Sequence[Engine] = (KERNELS, *OTHERS),
    seconds: float = SEARCH_SECONDS,
    densities: Sequence[float] = (),
    blocks: BlockPattern | None = None,
    int8: bool = False,
) -> Iterator[Row]:
    """Time each pruned network: dense onnxruntime, `--kernels all`, `--kernels measured`, and other engines.

    `densities`: of all weights, one row for each, in the place of the network's own; `blocks` are removed whole. With
    `int8`, the engines also run the network quantized.

    `seconds`: time for the search of `--kernels measured`. Every row has its own processes, so that memory is measured
    separately.

    Raises:
        MissingPackageError: the package of a network is not installed.
        SettingError: the outputs of a sparse network are wrong.
    """
    present = [engine for engine in (DENSE, *engines) if not engine.missing()]
    pairs = [
        (name, network, density) for name, network in networks.items() for density in densities or (None,)
    ]
    for whole_name, network, density in pairs:
        # The names end in the network's own density.
        name = whole_name if density is None else whole_name.partition(",")[0]
        prepared = prepare(network if density is None else replace(network, densities=density), blocks)
        quantized = integers.quantize(prepared.dense, prepared.feeds) if int8 else None
        for count in threads:
            with tempfile.TemporaryDirectory() as folder:
                dense = _write(prepared.dense, Path(folder) / "dense.onnx")
                sparse = _write(prepared.sparse, Path(folder) / "sparse.onnx")
                tuned = _tuned(prepared.sparse, prepared.feeds, count, seconds, Path(folder) / "tuned.onnx")
                entrants = {
                    engine.name: Entrant(Worker(engine), sparse if engine.own else dense, engine.own)
                    for engine in present
                }
                entrants[TUNED] = Entrant(Worker(KERNELS), tuned, own=True)
                added = {}
                if quantized is not None:
                    dense, sparse = (
                        _write(each, Path(folder) / f"{form}-int8.onnx")
                        for form, each in zip(("dense", "sparse"), quantized, strict=True)
                    )
                    own = {engine: Worker(engine) for engine in present}
                    added = integers.entrants(own, dense, sparse)
                    tuned = _tuned(
                        quantized[1].clone(), prepared.feeds, count, seconds, Path(folder) / "tuned-int8.onnx"
                    )
                    added[f"{TUNED} int8"] = Entrant(Worker(KERNELS), tuned)
                try:
                    yield race(
                        name,
                        density,
                        count,
                        entrants | added,
                        prepared.feeds,
                        tolerance=TOLERANCE,
                        references=integers.references(added),
                    )
                finally:
                    for entrant in (*entrants.values(), *added.values()):
                        entrant.worker.close()


def _tuned(model: ir.Model, feeds: Feeds, threads: int, seconds: float, path: Path) -> Path:
    choose_auto(model, feeds, threads=threads, seconds=seconds)
    return _write(model, path)


def prepare(network: Network, blocks: BlockPattern | None = None) -> Prepared:
    """Build a network and prune each weight by magnitude to its density."""
    model = ir.from_proto(network.build())
    weights = find_weights(model).prunable
    densities = network.densities
    shares = [densities] * len(weights) if isinstance(densities, float) else densities
    pools = [Pool((weight,), 1 - share, None) for weight, share in zip(weights, shares, strict=True)]
    apply_masks(weights, make_masks(pools, blocks=blocks))
    model, _ = raise_opset(model, lambda before, after: True)
    for value in model.graph.inputs:
        # The other engines compile for one shape.
        if (shape := network.shapes.get(value.name or "")) is not None:
            value.shape = ir.Shape(shape)
    sparse = model.clone()
    to_ops(sparse, find_weights(sparse).prunable)
    feeds = random_feeds(input_specs(model), network.shapes)
    return Prepared(model, sparse, feeds)


def _write(model: ir.Model, path: Path) -> Path:
    with staging(path) as stage:
        stage.write(model.clone(), external=False)
        stage.commit()
    return path
