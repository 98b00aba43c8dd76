"""Operators that behave differently in training (BatchNormalization, Dropout), as modules of the torch graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor, fx, nn

from onnxprune.model.constants import constant_tensor
from onnxprune.training.module.batch_norm import BatchNorm
from onnxprune.training.module.norms import is_restored
from onnxprune.training.module.ops.table import lowers, opaque

# Nodes that will become modules are moved to this domain; `number` is their index in the list of moved nodes.
DOMAIN = "onnxprune.training"
ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "Sigmoid", "Tanh", "Clip", "HardSwish", "Softplus"}
)


@lowers("BatchNormalization", domain=DOMAIN, trains=(1, 2))
@opaque
def _batch_norm(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, number: int
) -> Tensor:
    raise AssertionError("a module takes its place")


@lowers("Dropout", domain=DOMAIN)
@opaque
def _dropout(x: Tensor, *, number: int) -> Tensor:
    raise AssertionError("a module takes its place")


@dataclass(frozen=True)
class Drop:
    """A Dropout after a layer; `weight` of the layer is None if there is none."""

    ratio: float
    weight: ir.Value | None


class Modes:
    """The nodes of a model that become modules, and these modules after `install`.

    `norms`: those whose statistics change; `estimated`: those whose statistics are measured before each evaluation;
    `restored`: norms that were put back, with the paths of scale, bias, mean and variance in the module.
    """

    def __init__(self, model: ir.Model, batch_norm: str, dropout: Iterable[tuple[ir.Value, float]]):
        """`dropout`: weights, with the dropout ratio after their layers; the model is not changed."""
        self._model = model
        self._batch_norm = batch_norm
        self._norms: list[ir.Node] = []
        self._drops: list[Drop] = []
        self._added = list(dropout)
        self._statistics: dict[ir.Value, str] = {}
        self.norms: list[BatchNorm] = []
        self.estimated: list[BatchNorm] = []
        self.restored: list[tuple[BatchNorm, list[str]]] = []
        self.dropouts: list[tuple[nn.Dropout, Drop]] = []

    def prepared(self, values: Sequence[str] = (), ends: Sequence[str] = ()) -> ir.Model:
        """A copy of the model with these nodes moved to `DOMAIN`, and some intermediate values as further outputs.

        `ends`: the values that are outputs in the place of the model's own.
        """
        copy = self._model.clone()
        if ends:
            made = {value.name: value for node in copy.graph for value in node.outputs}
            copy.graph.outputs[:] = [made[name] for name in ends]
        copy.opset_imports[DOMAIN] = 1
        pairs = list(zip(self._model.graph, copy.graph, strict=True))
        for node, twin in pairs:
            if node.domain in ("", "ai.onnx"):
                if node.op_type == "BatchNormalization" and self._has_mode(node) and _is_own(node):
                    self._move(copy.graph, twin, len(self._norms))
                    self._norms.append(node)
                elif node.op_type == "Dropout" and (ratio := _ratio(node)) and not _mask_is_read(node):
                    self._move(copy.graph, twin, len(self._drops), inputs=1)
                    self._drops.append(Drop(ratio, _weight_before(node.inputs[0])))
        twins = dict(pairs)
        for weight, ratio in self._added:
            for use in weight.uses():
                if use.node in twins:
                    self._insert(copy.graph, _end_of_layer(twins[use.node]), Drop(ratio, weight))
        named = {value.name: value for node in copy.graph for value in node.outputs}
        copy.graph.outputs.extend(named[name] for name in values)
        return copy

    def _has_mode(self, norm: ir.Node) -> bool:
        return self._batch_norm != "frozen" or is_restored(norm)

    def _move(self, graph: ir.Graph, twin: ir.Node, number: int, inputs: int | None = None) -> None:
        attributes = [ir.AttrInt64("number", number)]
        new = ir.Node(DOMAIN, twin.op_type, twin.inputs[:inputs], attributes, num_outputs=1, name=twin.name)
        old, result = twin.outputs[0], new.outputs[0]
        result.name, result.shape, result.type = old.name, old.shape, old.type
        ir.convenience.replace_nodes_and_values(graph, twin, [twin], [new], [old], [result])

    def _insert(self, graph: ir.Graph, node: ir.Node, drop: Drop) -> None:
        old = node.outputs[0]
        attributes = [ir.AttrInt64("number", len(self._drops))]
        new = ir.Node(DOMAIN, "Dropout", [old], attributes, num_outputs=1, name=f"{node.name}/dropout")
        new.outputs[0].shape, new.outputs[0].type = old.shape, old.type
        uses = [use for use in old.uses() if use.node is not new]
        for use in uses:
            use.node.replace_input_with(use.idx, new.outputs[0])
        for index, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[index] = new.outputs[0]
        graph.insert_after(node, new)
        self._drops.append(drop)

    def install(self, module: fx.GraphModule) -> None:
        """Replace the calls of the moved nodes by modules."""
        for node in list(module.graph.nodes):
            if node.target is _batch_norm:
                number = node.kwargs["number"]
                source = self._norms[number]
                epsilon = source.attributes.get_float("epsilon", 1e-5)
                momentum = 1 - source.attributes.get_float("momentum", 0.9)
                restored = is_restored(source)
                norm = BatchNorm(epsilon, momentum, restored or self._batch_norm == "train")
                self.norms.append(norm)
                if restored or self._batch_norm == "re-estimate":
                    self.estimated.append(norm)
                paths = [str(held.target) for held in node.args[1:5] if isinstance(held, fx.Node)]
                if restored:
                    self.restored.append((norm, paths))
                for value, path in zip(source.inputs[3:5], paths[2:], strict=True):
                    assert value is not None
                    self._statistics[value] = path
                _call(module, node, f"batch_norm_{number}", norm)
            elif node.target is _dropout:
                number = node.kwargs["number"]
                drop = self._drops[number]
                dropout = nn.Dropout(drop.ratio)
                self.dropouts.append((dropout, drop))
                _call(module, node, f"dropout_{number}", dropout)
        module.recompile()

    def statistics(self, module: fx.GraphModule) -> dict[ir.Value, Tensor]:
        """The trained means and variances, by the model's constants."""
        return {value: module.get_buffer(path) for value, path in self._statistics.items()}


def _call(module: fx.GraphModule, node: fx.Node, name: str, part: nn.Module) -> None:
    module.add_submodule(f"onnxprune_modes.{name}", part)
    with module.graph.inserting_before(node):
        call = module.graph.call_module(f"onnxprune_modes.{name}", node.args)
    node.replace_all_uses_with(call)
    module.graph.erase_node(node)


def _is_own(node: ir.Node) -> bool:
    """Whether a BatchNormalization's statistics are constants that no other node reads."""
    statistics = node.inputs[3:5]
    return all(
        constant_tensor(value) is not None and value is not None and len(list(value.uses())) == 1
        for value in statistics
    ) and not any(output.uses() for output in node.outputs[1:])


def _ratio(node: ir.Node) -> float:
    """A Dropout's ratio; 0 if it is not known. It is an attribute up to opset 11, an input since."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = constant_tensor(node.inputs[1])
        return 0.0 if tensor is None else float(tensor.numpy())
    return node.attributes.get_float("ratio", 0.5)


def _mask_is_read(node: ir.Node) -> bool:
    return any(output.uses() for output in node.outputs[1:])


def _weight_before(value: ir.Value | None) -> ir.Value | None:
    """The weight of the layer before a value, seen through activations and reshapes; None if there is none."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            constants = [each for each in node.inputs if constant_tensor(each) is not None]
            return constants[0] if constants else None
        value = node.inputs[0] if node.inputs else None
    return None


def _end_of_layer(node: ir.Node) -> ir.Node:
    """The last node of a layer, including a bias, a norm and an activation that follow with no other readers."""
    while True:
        uses = list(node.outputs[0].uses())
        if len(uses) != 1:
            return node
        follower = uses[0].node
        biases = follower.op_type == "Add" and any(
            constant_tensor(operand) is not None for operand in follower.inputs
        )
        continues = biases or follower.op_type == "BatchNormalization"
        if not continues and follower.op_type not in ACTIVATIONS:
            return node
        node = follower
        if not continues:
            return node


def shrunk(ratio: float, density: float) -> float:
    """The dropout ratio of a layer at a density: D * sqrt(C_r / C_o) (Han et al. 2015)."""
    return ratio * math.sqrt(density)
