"""Which sparse nodes run by the library's kernels and which dense, so that the whole graph is fastest.

`auto` measures: each node alone first, then whole graphs, since onnxruntime's own convolutions work in blocks of
channels and a lone sparse one between them costs two reorders. `portable` puts estimates (`sparse/estimate.py`) in
the place of measurements, and so comes to the same choice on every machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune import runtime
from onnxprune.errors import SettingError
from onnxprune.model.names import name_of
from onnxprune.model.shapes.inference import infer_shapes
from onnxprune.runtime.timing import Timing
from onnxprune.sparse.blocks import decode_blocks
from onnxprune.sparse.decoders import part_array
from onnxprune.sparse.encode import Encoded
from onnxprune.sparse.estimate import Estimates
from onnxprune.sparse.functions import DOMAIN
from onnxprune.sparse.measure import GraphTimer, time_node
from onnxprune.sparse.placement import kernel_nodes, paying_quantized, place, sparse_nodes
from onnxprune.sparse.quantized import zero_point_of
from onnxprune.sparse.quantized_functions import QUANTIZED_OPS

# In favour of dense: kernels that gain less are not worth another machine's being slower with them.
LEAST_SPEEDUP = 1.05
# A change of the graph that gains less is noise.
LEAST_PROGRESS = 1.01
SEARCH_SECONDS = 60.0

# Places of nodes in the graph's order: those that run by kernels.
Places = frozenset[int]


@dataclass(frozen=True)
class NodeChoice:
    """A sparse node: the shape and density of its weight, its times alone where measured, and where it runs."""

    name: str
    op_type: str
    shape: tuple[int, ...]
    density: float
    timing: Timing | None
    by_kernel: bool


@dataclass(frozen=True)
class Choice:
    """What was chosen for a model; `before` (as it came) and `after` are of the whole graph, where measured."""

    nodes: tuple[NodeChoice, ...]
    before: Timing | None
    after: Timing | None


def choose_portable(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> Choice:
    """Place the model's sparse nodes by what they are estimated to cost on inputs of these shapes."""
    nodes = sparse_nodes(model)
    shapes = infer_shapes(model, {name: array.shape for name, array in feeds.items()})
    weights = [(math.prod(weight_shape(model, node)), density(model, node)) for node in nodes]
    estimates = Estimates(nodes, shapes, weights)
    places = search(estimates.gains(LEAST_SPEEDUP), estimates.speedup, lambda: False)
    by_kernel = {nodes[index] for index in places} | paying_quantized(model, shapes)
    nodes = kernel_nodes(model)
    return _placed(model, nodes, [None] * len(nodes), by_kernel, None, None)


def choose_auto(
    model: ir.Model,
    feeds: Mapping[str, np.ndarray],
    *,
    threads: int = 0,
    seconds: float = SEARCH_SECONDS,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Choice:
    """Place the model's sparse nodes by what is measured on these inputs: never slower than all of them dense.

    `seconds` limits the search over whole graphs, which begins when each node has been measured; `threads` are
    onnxruntime's, 0: as many as it takes by itself.

    Raises:
        SettingError: there are no kernels to measure.
        DataError: the model does not run on the inputs.
    """
    require_kernels()
    nodes = kernel_nodes(model)
    shapes = infer_shapes(model, {name: array.shape for name, array in feeds.items()})
    came = {node for node in nodes if node.domain == DOMAIN}
    whole = GraphTimer(model, feeds, threads)
    before = whole(came)
    timings = []
    for done, node in enumerate(nodes):
        timings.append(time_node(model, node, shapes, threads))
        progress(0.5 * (done + 1) / len(nodes))
    start = time.monotonic()

    def out_of_time() -> bool:
        spent = (time.monotonic() - start) / seconds
        progress(0.5 + 0.5 * min(spent, 1.0))
        return spent > 1

    found: dict[Places, Timing] = {frozenset(): Timing(before.dense, before.dense, 1.0)}

    def speedup(places: Places) -> float:
        found[places] = whole([nodes[place] for place in places])
        return found[places].ratio

    # Dense integers pay for each change of layout between them and kernels: the rule looks at runs of them.
    paying = paying_quantized(model, shapes)
    ruled = frozenset(index for index, node in enumerate(nodes) if node in paying)

    def confirm(finalists: Sequence[Places]) -> list[float]:
        together = whole.together([nodes[place] for place in places] for places in finalists)
        found.update(zip(finalists, together, strict=True))
        return [timing.ratio for timing in together]

    places = search([_gain(timing) for timing in timings], speedup, out_of_time, [ruled], confirm)
    return _placed(model, nodes, timings, {nodes[index] for index in places}, before, found[places])


def require_kernels() -> None:
    """Raise SettingError where there are no kernels to measure."""
    if not (kernels := runtime.available()):
        raise SettingError(f"there are no sparse kernels to measure: {kernels.reason}")


def search(
    gains: Sequence[float],
    speedup: Callable[[Places], float],
    out_of_time: Callable[[], bool],
    starts: Collection[Places] = (),
    confirm: Callable[[Sequence[Places]], Sequence[float]] | None = None,
) -> Places:
    """The places of the nodes to run by kernels: `speedup` tells how many times faster a graph is than dense.

    Starts from the nodes that gain alone (`gains`, in any unit of time), from all or from one of `starts`; then
    turns whole runs of neighbours over, those first that speak least for what they are, and halves of runs where
    that is no gain. What was found and all starts are measured once more at the end, by `confirm` one beside the other.
    Comes to no node at all where the graph is not faster by `LEAST_SPEEDUP`.
    """
    everything = frozenset(range(len(gains)))
    gaining = frozenset(place for place in everything if gains[place] > 0)
    candidates = {gaining, everything, *starts} - {frozenset()}
    if not candidates:
        return frozenset()
    found = {candidate: speedup(candidate) for candidate in candidates}
    start = chosen = max(found, key=lambda places: found[places])
    fastest = found[start]
    segments = sorted(_runs(chosen, len(gains)), key=lambda run: abs(sum(gains[place] for place in run)))
    while segments and not out_of_time():
        segment = segments.pop(0)
        trial = chosen.symmetric_difference(segment)
        faster = speedup(trial) if trial else 1.0
        if faster > fastest * LEAST_PROGRESS:
            chosen, fastest = trial, faster
        elif len(segment) > 1:
            half = len(segment) // 2
            segments += [segment[:half], segment[half:]]
    # Of many noisy measurements the best flatters itself: the last word have new ones.
    finalists = [places for places in dict.fromkeys((start, chosen, *candidates)) if places]
    again = dict(zip(finalists, confirm(finalists) if confirm else map(speedup, finalists), strict=True))
    chosen = max(again, key=lambda places: again[places])
    return chosen if again[chosen] >= LEAST_SPEEDUP else frozenset()


def density(model: ir.Model, node: ir.Node) -> float:
    """The share of a sparse node's weight that is not zero."""
    values = _part(model, node, "values")
    if node.op_type in QUANTIZED_OPS:
        zero, axis = zero_point_of(node), QUANTIZED_OPS[node.op_type].input_axis
        parts = Encoded(values, _part(model, node, "gaps"), _part(model, node, "shape"))
        values = decode_blocks(parts, zero, axis, node.name or "") != zero
    nonzero = np.count_nonzero(values)
    return float(nonzero / max(math.prod(weight_shape(model, node)), 1))


def weight_shape(model: ir.Model, node: ir.Node) -> tuple[int, ...]:
    """The shape of a sparse node's weight."""
    return tuple(int(dim) for dim in _part(model, node, "shape"))


def _part(model: ir.Model, node: ir.Node, name: str) -> np.ndarray:
    """What a sparse node's function calls `name`."""
    names = [value.name for value in model.functions[node.op_identifier()].inputs]
    value = node.inputs[names.index(name)]
    assert value is not None, node.name
    return part_array(value)


def _gain(timing: Timing | None) -> float:
    """Seconds that a kernel saves, beyond what dense is favoured by; none where nothing was measured."""
    return 0.0 if timing is None else timing.dense * (1 - LEAST_SPEEDUP / timing.ratio)


def _runs(chosen: Places, count: int) -> list[list[int]]:
    """Neighbouring places that are alike, together: {0, 1, 4} of 5 -> [0 1] [2 3] [4]."""
    runs: list[list[int]] = []
    for at in range(count):
        if runs and (at - 1 in chosen) == (at in chosen):
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


def _placed(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    timings: Sequence[Timing | None],
    by_kernel: Collection[ir.Node],
    before: Timing | None,
    after: Timing | None,
) -> Choice:
    place(model, by_kernel)
    records = [
        NodeChoice(
            name_of(node),
            node.op_type,
            weight_shape(model, node),
            density(model, node),
            timing,
            node in by_kernel,
        )
        for node, timing in zip(nodes, timings, strict=True)
    ]
    return Choice(tuple(records), before, after)
