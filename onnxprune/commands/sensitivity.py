"""The sensitivity scan of a model file: from its data to the record of what pruning each weight alone costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.markup import escape
from rich.table import Table

from onnxprune.calibration.segments import compared
from onnxprune.calibration.sensitivity import measure
from onnxprune.calibration.walk import affordable
from onnxprune.config.settings import describe_source
from onnxprune.data.dataset import check_shapes, input_specs, sized
from onnxprune.errors import NothingToPruneError
from onnxprune.evaluation.evaluate import make_session
from onnxprune.job.inputs import read_inputs
from onnxprune.job.material import sample_shapes
from onnxprune.model.io import ModelLike, load
from onnxprune.model.weights import find_weights
from onnxprune.pruning.sensitivity import RATES, Scan, scan
from onnxprune.sparse.restore import from_ops


def sensitivity(
    model: ModelLike,
    data: Any,
    *,
    shapes: Mapping[str, Sequence[int]] = MappingProxyType({}),
    rates: Sequence[float] = RATES,
    samples: int = 1000,
    state: Path | None = None,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Scan:
    """Prune every weight alone at each of the rates: the deviation of the outputs.

    `data` as in `prune`, of which the first `samples` are used, fewer where the graph is wide; `shapes`: of inputs that
    are made up, by name; `state`: a JSON file to keep the scan in and to go on from.

    Raises:
        OnnxPruneError: what is wrong, in a sentence that says the mend.
    """
    graph, origin = load(model)
    from_ops(graph)
    weights = find_weights(graph).prunable
    if not weights:
        raise NothingToPruneError(f"{origin.name} has no weight that can be pruned: see `onnxprune inspect`")
    session = make_session(origin.file, origin.name)
    specs = input_specs(graph)
    check_shapes(specs, shapes)
    inputs = read_inputs(data, graph, session, specs, seed, sized(specs, shapes))
    inputs = inputs.take(slice(0, affordable(graph, inputs, samples)))
    about: dict[str, Any] = {
        "model": origin.sha256,
        "data": describe_source(data),
        "samples": len(inputs),
        "shapes": {name: list(shape) for name, shape in sample_shapes(inputs).items()},
        "rates": sorted(rates),
        "labelled": inputs.labels is not None,
        "compared": [value.name for value in compared(graph)],
    }
    for found in scan(weights, partial(measure, graph, inputs), about["rates"], about, state):
        progress(len(found.layers) / len(weights))
    return found


def scan_table(found: Scan) -> Table:
    """Deviation, and error where there are labels, of each weight at each rate."""
    labelled = found.about["labelled"]
    names = ", ".join(map(escape, found.about["compared"]))
    what = "error" if labelled else f"deviation |y - y0|² / |y0|² of {names}"
    table = Table(
        title=f"{what}, each weight pruned alone, {found.about['samples']:,} samples", title_justify="left"
    )
    table.add_column("weight", overflow="fold")
    for rate in found.about["rates"]:
        table.add_column(f"{rate:.0%}", justify="right")
    for name, losses in found.layers.items():
        cells = [
            f"{error:.2%}" if error is not None else f"{deviation:.2g}"
            for _, (deviation, error) in sorted(losses.items())
        ]
        table.add_row(escape(name), *cells)
    return table
