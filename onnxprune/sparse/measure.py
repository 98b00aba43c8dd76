"""How long sparse nodes take: dense in onnxruntime against the library's kernels, alone and in the whole graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper, numpy_helper

from onnxprune.errors import DataError, first_line
from onnxprune.model.constants import constant_tensor
from onnxprune.model.files.sessions import open_session
from onnxprune.model.files.staging import staging
from onnxprune.model.shapes.inference import Shape
from onnxprune.runtime.timing import Timing, burst, fastest, session_options, take_turns
from onnxprune.sparse.functions import DENSE_DOMAIN, DOMAIN, DOMAIN_VERSION
from onnxprune.sparse.placement import decoders, place
from onnxprune.sparse.quantized_functions import QUANTIZED_OPS

NODE_TURNS = 10
GRAPH_TURNS = 10
CONFIRMING_TURNS = 20
BURST_SECONDS = 0.005
# Random inputs are about as large as this, so that those of integers differ.
SPREAD = 30


def time_node(
    model: ir.Model, node: ir.Node, shapes: Mapping[ir.Value, Shape], threads: int
) -> Timing | None:
    """A sparse node alone, on random inputs of its own shapes; None where these are not known."""
    feeds = _feeds(node, shapes)
    if feeds is None:
        return None
    bursts = []
    for domain in (DENSE_DOMAIN, DOMAIN):
        content = _alone(model, node, domain, feeds).SerializeToString()
        session = _session(content, threads)
        bursts.append(partial(burst, partial(session.run, None, feeds), BURST_SECONDS))
    return fastest(*take_turns(bursts, NODE_TURNS))


class GraphTimer:
    """Times the whole graph with some of its sparse nodes run by kernels, against the same with all of them dense.

    Moves the nodes of the model to and fro.
    """

    def __init__(self, model: ir.Model, feeds: Mapping[str, np.ndarray], threads: int):
        self._model, self._feeds, self._threads = model, dict(feeds), threads
        self._dense = self._placed(())

    def __call__(self, by_kernel: Collection[ir.Node]) -> Timing:
        return self.together([by_kernel], GRAPH_TURNS)[0]

    def together(self, choices: Iterable[Collection[ir.Node]], turns: int = CONFIRMING_TURNS) -> list[Timing]:
        """The times of several choices that take turns, so that what they gain over each other is seen."""
        bursts = [self._burst(each) for each in (self._dense, *map(self._placed, choices))]
        dense, *others = take_turns(bursts, turns)
        return [fastest(dense, other) for other in others]

    def _placed(self, by_kernel: Collection[ir.Node]) -> ort.InferenceSession:
        place(self._model, by_kernel)
        with staging(None) as stage:
            stage.write(self._model.clone(), external=False)
            session = _session(stage.path, self._threads)
        try:
            session.run(None, self._feeds)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in self._feeds.items())
            raise DataError(
                f"onnxruntime cannot run the model on {shapes}: {first_line(error)}; give shapes that fit it "
                "by --input-shape NAME:DIMS"
            ) from error
        return session

    def _burst(self, session: ort.InferenceSession) -> partial[float]:
        return partial(burst, partial(session.run, None, self._feeds), BURST_SECONDS)


def _session(model: Path | bytes, threads: int) -> ort.InferenceSession:
    return open_session(model, session_options(threads), "the sparse model", kernels=True)


def _feeds(node: ir.Node, shapes: Mapping[ir.Value, Shape]) -> dict[str, np.ndarray] | None:
    """Random arrays for the inputs that are neither constant nor decoded from constants; None if a shape is open."""
    decoded = {output for maker in decoders(node) for output in maker.outputs}
    rng = np.random.default_rng(0)
    feeds = {}
    for value in node.inputs:
        if value is None or value in decoded or constant_tensor(value) is not None:
            continue
        shape = shapes.get(value)
        sizes = [dim for dim in shape or () if isinstance(dim, int)]
        if shape is None or len(sizes) < len(shape):
            return None
        dtype = _input_type(node, value).numpy()
        feeds[value.name or ""] = np.asarray(rng.standard_normal(sizes) * SPREAD).astype(dtype)
    return feeds


def _input_type(node: ir.Node, value: ir.Value | None) -> ir.DataType:
    """The type of an input of a sparse node, or with None of its output."""
    op = QUANTIZED_OPS.get(node.op_type)
    if op is None:
        return ir.DataType(node.attributes.get_int("dtype", 0))
    name = "y" if value is None else op.inputs[node.inputs.index(value)]
    if name == "y" and op.dynamic:
        return ir.DataType.FLOAT if "w_scale" in op.inputs else ir.DataType.INT32
    if name.endswith("scale") or "x_zero_point" not in op.inputs:
        return ir.DataType.FLOAT
    zero = constant_tensor(node.inputs[op.inputs.index("x_zero_point")])
    # That of dynamic quantization is uint8.
    return ir.DataType.UINT8 if zero is None else zero.dtype


def _alone(model: ir.Model, node: ir.Node, domain: str, feeds: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The node in a graph of its own, in `domain`."""
    nodes = [*decoders(node), node]
    protos = [ir.to_proto(each) for each in nodes]
    called = [each.op_identifier() for each in nodes]
    bodies: dict[ir.OperatorIdentifier, onnx.FunctionProto] = {}
    while called:
        body = model.functions[called.pop()]
        bodies[body.identifier()] = ir.to_proto(body)
        called += [each.op_identifier() for each in body if each.op_identifier() in model.functions]
    protos[-1].domain = bodies[node.op_identifier()].domain = domain
    constants = {
        value.name: numpy_helper.from_array(tensor.numpy(), value.name)
        for each in nodes
        for value in each.inputs
        if value is not None and (tensor := constant_tensor(value)) is not None
    }
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info(protos[-1].output[0], _input_type(node, None), None)]
    graph = helper.make_graph(protos, "node", inputs, outputs, list(constants.values()))
    versions = {each.domain: each.version for body in bodies.values() for each in body.opset_import}
    versions |= {"": model.opset_imports[""]} | dict.fromkeys(
        (proto.domain for proto in protos), DOMAIN_VERSION
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*pair) for pair in versions.items()],
        ir_version=model.ir_version,
        functions=list(bodies.values()),
    )
