"""An ONNX graph as a torch.fx.GraphModule whose parameters are the initializers, by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn

from onnxprune.errors import first_line
from onnxprune.model.constants import constant_tensor
from onnxprune.model.reading import dequantized
from onnxprune.training.module import sizes
from onnxprune.training.module.control import Branches, Repetition
from onnxprune.training.module.definitions import infer, inline_functions
from onnxprune.training.module.ends import FIX, Flow, UnsupportedOperatorError, needed, unsupported
from onnxprune.training.module.fusion import fuse
from onnxprune.training.module.names import ModuleNames
from onnxprune.training.module.ops import Lowering, find_lowering
from onnxprune.training.module.ops.quantization import to_steps
from onnxprune.training.module.ops.types import WIDENED_TYPES, to_tensor, torch_dtype
from onnxprune.training.module.outside import Outside
from onnxprune.training.module.sizes import Sizes
from onnxprune.training.module.trainable import trained_constants, unique_names

# What is known of a value while the graph is built: all of it, its sizes, or only a proxy for it.
Known = torch.Tensor | Sizes | fx.Proxy

_ONNX_DOMAINS = ("", "ai.onnx")


def to_torch(
    model: ir.Model, embeddings: Collection[str] = (), trained_outputs: Sequence[str] | None = None
) -> fx.GraphModule:
    """The graph as a torch module that takes the graph's inputs in order and returns a tuple of its outputs.

    Parameters are the constants that the table of operators declares as trained, and these `embeddings`, under their
    ONNX names; other constants are buffers, or numbers in the code. A name that torch does not allow (`a` beside `a.b`,
    `forward`, one with a quote) is changed: `module.meta["parameters"]` maps the ONNX name of every
    parameter, with #2, #3 where subgraphs repeat one, to its name in the module. `module.meta["inputs"]`
    and `module.meta["outputs"]` list the ONNX names of inputs and outputs.

    float16 and bfloat16 are stored and computed in float32, double stays double. Quantized weights before
    DequantizeLinear are dequantized parameters, which every run rounds (straight-through gradient). Dropout is
    the identity, batch normalization uses its given statistics. The model is not changed; weights are copied once.

    `trained_outputs`: for training, the names of the first outputs, those that a loss can be of. Those without a
    gradient are replaced by what they are made of, and `module.meta["ends"]` tells which, see ends.py; nodes without an
    entry that no weight leads to are run by onnxruntime.

    Raises:
        UnsupportedOperatorError: an operator, or a use of one, has no entry in the table.
    """
    known_names = {*(node.name for node in model.graph), *(v.name for n in model.graph for v in n.outputs)}
    model = model.clone()
    try:
        inline_functions(model)
    except ValueError as error:
        raise UnsupportedOperatorError(
            f"the model's functions cannot be inlined: {first_line(error)}; {FIX}"
        ) from error
    if trained_outputs is not None and not all(_has_entry(node, model) for node in model.graph):
        infer(model)  # what onnxruntime runs needs types
    names = ModuleNames()
    trained = {value: names.give(value.name or "") for value in trained_constants(model, embeddings)}
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    builder = _Builder(model, trained, names, None)
    if trained_outputs is not None:
        builder.flow = Flow(trained, inputs, known_names)
    module = builder.module(model.graph, inputs, trained_outputs)
    module.meta["inputs"] = [value.name for value in inputs]
    module.meta["parameters"] = dict(zip(unique_names(trained), trained.values(), strict=True))
    return module


def channels_last(module: fx.GraphModule) -> fx.GraphModule:
    """The module with the channels of its weights of 2-D convolutions (rank 4) last in memory, in place.

    It is faster for convolutions and pooling on CPUs: a step of LeNet-5 takes 14 ms instead of 25.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return module


class QuietModule(fx.GraphModule):
    """A graph module of which a run that fails raises, without fx's print of the generated code to the terminal."""

    def recompile(self) -> fx.graph.PythonCode:
        code = super().recompile()
        # What fx has called in place of it, to print.
        type(self)._wrapped_call = staticmethod(nn.Module.__call__)  # type: ignore[attr-defined]
        return code


class _Builder:
    """Builds the torch graph of an ONNX graph; each body of If and Loop has its own builder, with an outer one."""

    def __init__(
        self, model: ir.Model, trained: Mapping[ir.Value, str], names: ModuleNames, outer: _Builder | None
    ):
        self._model = model
        self._trained = trained
        self._names = names
        self._outer = outer
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._tracer = fx.proxy.GraphAppendingTracer(self._graph)
        self._known: dict[ir.Value, Known] = {}
        self._held: dict[ir.Value, fx.Proxy] = {}
        self.captured: list[ir.Value] = []
        self.flow: Flow | None = None

    def module(
        self, graph: ir.Graph, inputs: Sequence[ir.Value], trained_outputs: Sequence[str] | None = None
    ) -> fx.GraphModule:
        """The whole graph as a module that takes `inputs`, then the outer values in `captured`."""
        for value in inputs:
            self._known[value] = self._placeholder(value)
        wanted = needed(graph.outputs) if self._outer is None else None
        for node in graph:
            if wanted is None or node in wanted:
                self._build(node)
        if self._outer is None:
            for value in self._trained:  # a weight that no output needs is a parameter all the same
                self.known(value)
        outputs, ends = list(graph.outputs), None
        if self.flow is not None and trained_outputs is not None:
            given, ends = self.flow.ends(dict(zip(outputs, trained_outputs, strict=False)))
            outputs = [*given, *outputs[len(trained_outputs) :]]
        self._graph.output(tuple(self._at_run_time(value).node for value in outputs))
        fuse(self._root, self._graph)
        module = QuietModule(self._root, self._graph)
        module.meta["outputs"], module.meta["ends"] = [value.name for value in outputs], ends
        if module.graph.eliminate_dead_code():
            module.recompile()
        return module

    def _placeholder(self, value: ir.Value) -> fx.Proxy:
        node = self._graph.placeholder("self_" if value.name == "self" else value.name or "input")
        node.target = node.name  # fx makes identifiers of the names of nodes, not of their targets
        proxy = fx.Proxy(node, self._tracer)
        return proxy.to(torch_dtype(value.dtype)) if value.dtype in WIDENED_TYPES else proxy

    def _build(self, node: ir.Node) -> None:
        """Build a node; for training, one that cannot be built is run by onnxruntime, or left out."""
        if self.flow is None:
            self._lower(node)
            return
        if (blocking := self.flow.blocking(node)) is not None:
            self.flow.block(node, blocking)
            return
        try:
            _check_types(node)
            self.flow.note(node, self._lower(node))
        except UnsupportedOperatorError as error:
            if self.flow.is_front(node):
                self._leave_outside(node)
                self.flow.note(node, None, apart=True)
            else:
                self.flow.block(node, error)

    def _leave_outside(self, node: ir.Node) -> None:
        module = Outside(node, self._model)
        operands = [self._at_run_time(value) for value in module.reads]
        results: Any = self._call_module(node, module, *operands)
        named = [value for value in node.outputs if value.name]
        for index, output in enumerate(named):
            self._known[output] = results[index]

    def _lower(self, node: ir.Node) -> Lowering | None:
        """Record a node; returns its entry in the table, None for those that hold values or graphs."""
        lowering = None
        try:
            if _is_control(node):
                results = _CONTROL[node.op_type](self, node)
            else:
                opset = self._model.opset_imports.get(node.domain, 1)
                lowering = find_lowering(node.domain, node.op_type, opset)
                if lowering is None:
                    raise unsupported(node, f"it is not supported in opset {opset}")
                results = self._call(node, lowering, _attributes(node, lowering))
                results = results if lowering.several else (results,)
        except NotImplementedError as error:
            raise unsupported(node, str(error)) from error
        for index, output in enumerate(node.outputs):
            if isinstance(results, fx.Proxy) or index < len(results):
                self._known[output] = results[index]
        return lowering

    def _call(self, node: ir.Node, lowering: Lowering, attributes: dict[str, Any]) -> Any:
        """The results of an operator: computed now if all operands are known, else recorded in the graph."""
        known = [None if value is None else self.known(value) for value in node.inputs]
        if "Conv" in node.op_type and any(
            isinstance(operand, torch.Tensor) and not operand.numel() for operand in known[1:2]
        ):
            raise unsupported(node, "torch has no convolutions without channels")
        kinds = {type(operand) for operand in known if operand is not None}
        if kinds <= {torch.Tensor}:
            operands: list[Any] = [
                operand.tolist() if index in lowering.static and operand is not None else operand
                for index, operand in enumerate(known)
            ]
            return lowering.function(*operands, **attributes)
        if node.domain in _ONNX_DOMAINS:
            if node.op_type == "Shape" and (rank := _rank(node.inputs[0])) is not None:
                return sizes.symbolic_shape(self._at_run_time(node.inputs[0]), rank, **attributes)
            if fx.Proxy not in kinds and (folded := sizes.fold(node.op_type, known, attributes)) is not None:
                return folded
        for name, attribute in attributes.items():
            if isinstance(attribute, torch.Tensor):
                value = ir.Value(name=f"{node.outputs[0].name}/{name}")
                self._known[value] = attribute
                attributes[name] = self._at_run_time(value)
        operands = [
            operand.tolist() if index in lowering.static and operand is not None else self._at_run_time(value)
            for index, (value, operand) in enumerate(zip(node.inputs, known, strict=True))
        ]
        if any(isinstance(known[index], fx.Proxy) for index in lowering.static if index < len(known)):
            # The function needs lists that are known only at run time, so it is recorded as one call.
            return self._tracer.create_proxy("call_function", lowering.function, tuple(operands), attributes)
        return lowering.function(*operands, **attributes)

    def known(self, value: ir.Value) -> Known:
        """What is known of a constant, or of an output of an earlier node."""
        if value not in self._known:
            if self._outer is not None:
                known = self._outer.known(value)
                self._known[value] = known if isinstance(known, torch.Tensor) else self._capture(value)
            elif value in self._trained:
                self._known[value] = self._parameter(value, self._trained[value])
            else:
                self._known[value] = _tensor(value)
        return self._known[value]

    def _parameter(self, value: ir.Value, path: str) -> fx.Proxy:
        """A trained constant as a parameter; a quantized one is dequantized, and rounded again in every run."""
        encoding = dequantized(value)
        if encoding is None:
            return self._hold(path, nn.Parameter(_tensor(value)))
        tensor = constant_tensor(value)
        assert tensor is not None and encoding.scale is not None
        numbers = self._hold(path, nn.Parameter(torch.from_numpy(encoding.decode(tensor.numpy()))))
        parts = (encoding.scale, encoding.zero.astype(np.float32))
        held = [
            self._hold(self._names.give(f"{value.name}_{name}"), torch.from_numpy(np.array(part)))
            for name, part in zip(("scale", "zero_point"), parts, strict=True)
        ]
        low, high = encoding.range()
        return to_steps(numbers, *held, low=low, high=high)

    def _at_run_time(self, value: ir.Value | None) -> Any:
        """The proxy of a value; a constant becomes a buffer of the outermost module. None stays None."""
        if value is None:
            return None
        known = self.known(value)
        if isinstance(known, fx.Proxy):
            return known
        if value not in self._held:
            if isinstance(known, Sizes):
                vector = sizes.stacked(*known.elements)
                self._held[value] = vector if known.rank else vector[0]
            elif self._outer is not None:
                self._outer._known[value] = known
                self._held[value] = self._capture(value)
            else:
                self._held[value] = self._hold(self._names.give(value.name or ""), known)
        return self._held[value]

    def _capture(self, value: ir.Value) -> fx.Proxy:
        self.captured.append(value)
        return self._placeholder(value)

    def _hold(self, path: str, tensor: torch.Tensor) -> fx.Proxy:
        *parents, name = path.split(".")
        module = self._root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, nn.Module())
            module = module.get_submodule(parent)
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(name, tensor)
        else:
            module.register_buffer(name, tensor)
        return fx.Proxy(self._graph.get_attr(path), self._tracer)

    def _constant(self, node: ir.Node) -> tuple[Known]:
        name, attribute = next(iter(node.attributes.items()))
        if name in ("value_int", "value_ints"):
            return (torch.tensor(attribute.value, dtype=torch.int64),)
        if name in ("value_float", "value_floats"):
            return (torch.tensor(attribute.value, dtype=torch.float32),)
        if name != "value":
            raise unsupported(node, f"torch has no constants of type {name}")
        return (self.known(node.outputs[0]),)

    def _if(self, node: ir.Node) -> tuple[Known, ...] | fx.Proxy:
        branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
        (condition_value,) = node.inputs
        assert condition_value is not None
        condition = self.known(condition_value)
        if isinstance(condition, torch.Tensor):
            branch = branches[0] if condition else branches[1]
            for inner in branch:
                self._lower(inner)
            return tuple(self.known(value) for value in branch.outputs)
        builders = [_Builder(self._model, self._trained, ModuleNames(), self) for _ in branches]
        modules = [builder.module(branch, ()) for builder, branch in zip(builders, branches, strict=True)]
        outer_values = [self._outer_values(builder) for builder in builders]
        return self._call_module(node, Branches(*modules), self._at_run_time(condition_value), *outer_values)

    def _loop(self, node: ir.Node) -> fx.Proxy:
        body = node.attributes["body"].as_graph()
        limit, condition, *state = (
            None if value is None else self._at_run_time(value) for value in node.inputs
        )
        builder = _Builder(self._model, self._trained, ModuleNames(), self)
        module = Repetition(builder.module(body, body.inputs), len(state), len(node.outputs) - len(state))
        return self._call_module(node, module, limit, condition, tuple(state), self._outer_values(builder))

    def _outer_values(self, builder: _Builder) -> tuple[fx.Proxy, ...]:
        return tuple(self._at_run_time(value) for value in builder.captured)

    def _call_module(self, node: ir.Node, module: nn.Module, *operands: Any) -> fx.Proxy:
        name = self._names.give((node.name or node.op_type).replace(".", "_"))
        self._root.add_module(name, module)
        return self._tracer.create_proxy("call_module", name, operands, {})


def _check_types(node: ir.Node) -> None:
    """Refuse nodes that read or make texts."""
    if any(
        value is not None and value.dtype == ir.DataType.STRING for value in (*node.inputs, *node.outputs)
    ):
        raise unsupported(node, "torch has no texts")


# Operators that are not functions of tensors: they have values or graphs as attributes.
_CONTROL: dict[str, Callable[[_Builder, ir.Node], Any]] = {
    "Constant": _Builder._constant,
    "If": _Builder._if,
    "Loop": _Builder._loop,
}


def _is_control(node: ir.Node) -> bool:
    return node.domain in _ONNX_DOMAINS and node.op_type in _CONTROL


def _has_entry(node: ir.Node, model: ir.Model) -> bool:
    opset = model.opset_imports.get(node.domain, 1)
    return _is_control(node) or find_lowering(node.domain, node.op_type, opset) is not None


def _attributes(node: ir.Node, lowering: Lowering) -> dict[str, Any]:
    """The node's attributes as keywords; also the number of `outputs` and the input `types`, if asked for."""
    attributes: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        if not lowering.takes(name):
            raise unsupported(node, f"its attribute {name} is not supported")
        if attribute.type == ir.AttributeType.TENSOR:
            attributes[name] = to_tensor(attribute.as_tensor())
        else:
            attributes[name] = (
                tuple(attribute.value) if isinstance(attribute.value, list) else attribute.value
            )
    if lowering.asks_for("outputs"):
        attributes["outputs"] = len(node.outputs)
    if lowering.asks_for("name"):
        attributes["name"] = node.outputs[0].name or ""
    if lowering.asks_for("types"):
        attributes["types"] = tuple(None if value is None else value.dtype for value in node.inputs)
    return attributes


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _tensor(value: ir.Value) -> torch.Tensor:
    tensor = constant_tensor(value)
    assert tensor is not None, value.name
    return to_tensor(tensor)
