"""Static quantization to int8 by onnxruntime's own quantizers, whose weights keep their zeros."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.config.quantization import QDQ, QOPERATOR
from onnxprune.model.constants import constant_tensor
from onnxprune.model.files.staging import staging
from onnxprune.model.operands import operand
from onnxprune.model.reading import out_axis_of
from onnxprune.model.weights import find_weights
from onnxprune.quantization.equalization import JOINED
from onnxprune.quantization.ranges import Ranges, prepared, quantizing

# Per-channel scales and zero points need it (QuantizeLinear-13).
OPSET = 13
# What the quantizer appends to the names of weights and of their scales.
SUFFIX, SCALE = "_quantized", "_scale"
# What attributes of a convolution are where a node does not have them (Conv-11).
DEFAULTS = {"auto_pad": "NOTSET", "dilations": 1, "group": 1, "pads": 0, "strides": 1}
# The inputs that are zero points, of operators of integers.
ZERO_POINTS = {
    "QuantizeLinear": (2,),
    "DequantizeLinear": (2,),
    "QLinearConv": (2, 5, 7),
    "QLinearMatMul": (2, 5, 7),
    "QGemm": (2, 5, 8),
    "QLinearAdd": (2, 5, 7),
    "QLinearMul": (2, 5, 7),
}


class Form(NamedTuple):
    """What a model becomes.

    `name`: QOPERATOR, with operators of integers where onnxruntime has them (QLinearConv, QGemm, ...), or QDQ.
    `symmetric`: activations are int8 with zero points of 0, and not uint8.
    """

    name: str = QOPERATOR
    symmetric: bool = False


FORM = Form()


class Steps(NamedTuple):
    """How a value becomes integers: scale and zero point, one or one for each slice of `axis`."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None = None


def quantized(
    model: ir.Model,
    ranges: Ranges,
    form: Form = FORM,
    *,
    excluded: Collection[ir.Node] = (),
    only: ir.Node | None = None,
    steps: Mapping[str, Steps] | None = None,
) -> ir.Model:
    """The model in int8; `model` stays as it is.

    Weights become int8 with a scale for each output channel and zero point 0, activations uint8 or int8, biases int32.
    Weights keep their names. `ranges`: of the activations, see `measured`. `excluded`: nodes that stay in floats;
    `only`: the single node that does not. `steps`: of values, by their names, in place of what follows from `ranges`.

    Raises:
        ModelFileError: onnxruntime cannot quantize the model.
    """
    return _quantized(model, ranges, form, excluded, only, steps or {}, {})


def simulated(
    model: ir.Model,
    ranges: Ranges,
    form: Form = FORM,
    excluded: Collection[ir.Node] = (),
    steps: Mapping[str, Steps] | None = None,
) -> ir.Model:
    """The model with pairs of QuantizeLinear and DequantizeLinear where `quantized` would have integers, for training.

    Its weights and biases are those of the model, in floats, under their names; weights are rounded by such pairs too.
    """
    options = {"AddQDQPairToWeight": True, "QuantizeBias": False}
    return _quantized(model, ranges, form, excluded, None, steps or {}, options)


def steps_of(model: ir.Model) -> dict[str, Steps]:
    """The steps of a simulated model's values and weights, by their names in the model that it was made of."""
    found = {}
    for node in model.graph:
        if node.op_type == "QuantizeLinear" and (scale := constant_tensor(node.inputs[1])) is not None:
            zero = constant_tensor(node.inputs[2])
            assert zero is not None
            # A weight with one output has a scale for each output too: one, in a vector.
            axis = node.attributes.get_int("axis", 1) if len(scale.shape) > 0 else None
            found[scale_value(node).removesuffix(SCALE)] = Steps(scale.numpy(), zero.numpy(), axis)
    return found


def scales_of_activations(model: ir.Model) -> list[str]:
    """The names of the scales of a simulated model's activations."""
    nodes = [
        node
        for node in model.graph
        if node.op_type == "QuantizeLinear" and constant_tensor(node.inputs[0]) is None
    ]
    return list(dict.fromkeys(map(scale_value, nodes)))


def scale_value(node: ir.Node) -> str:
    """The name of the scale that a QuantizeLinear node reads."""
    value = node.inputs[1]
    assert value is not None
    return value.name or ""


def is_quantized(model: ir.Model) -> bool:
    """Whether a model has operators of integers, or converts to them."""
    return any("Quantize" in node.op_type or node.op_type.startswith("QLinear") for node in model.graph)


def _quantized(
    model: ir.Model,
    ranges: Ranges,
    form: Form,
    excluded: Collection[ir.Node],
    only: ir.Node | None,
    steps: Mapping[str, Steps],
    options: Mapping[str, Any],
) -> ir.Model:
    copy, names = prepared(model)
    with staging(None) as stage:
        stage.write(copy)
        made = stage.path.with_name("quantized.onnx")
        with quantizing():
            from onnxruntime import quantization
            from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
            from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
            from onnxruntime.quantization.quant_utils import (
                QuantizationMode,
                load_model_with_shape_infer,
            )

            further = {
                **options,
                "ActivationSymmetric": form.symmetric,
                "TensorQuantOverrides": dict(_overrides(_completed(steps, model))),
            }
            shared: list[Any] = [
                quantization.QuantType.QInt8,
                quantization.QuantType.QInt8 if form.symmetric else quantization.QuantType.QUInt8,
                ranges,
                [] if only is None else [names[only]],
                [names[node] for node in {*excluded, *_apart(model), *_without_form(model, form)}],
                _operators(form.name),
                further,
            ]
            proto = load_model_with_shape_infer(stage.path)
            own = len(proto.graph.output)
            # The quantizer gives outputs of the graph back in floats, and does not look into bodies.
            bodies = {value.name for value in _captured(model)}
            proto.graph.output.extend(each for each in proto.graph.value_info if each.name in bodies)
            quantizer = (
                QDQQuantizer(proto, True, False, *shared)
                if form.name == QDQ or options
                else ONNXQuantizer(proto, True, False, QuantizationMode.QLinearOps, True, *shared)
            )
            quantizer.quantize_model()
            quantizer.model.save_model_to_file(str(made), False)
            found = ir.from_proto(onnx.load(made))
            del found.graph.outputs[own:]
            # The quantizer orders nodes without what bodies of If and Loop read.
            found.graph.sort()
    _restore_names(found)
    _shorten(found)
    if form.name == QOPERATOR and not options:
        _share_zero_points(found)
    # The quantizer's own is of its stages.
    found.metadata_props.clear()
    found.metadata_props.update(model.metadata_props)
    return found


def _apart(model: ir.Model) -> Iterator[ir.Node]:
    """The activations that the quantizer must not join to what is before them, as more than nodes read it.

    It gives what is before the range of the activation, which cuts what bodies of If and Loop, or outputs, read there.
    """
    captured = set(_captured(model))
    for node in model.graph:
        value = node.inputs[0] if node.op_type in JOINED else None
        if value is not None and (
            value in captured or value.is_graph_output() or node.outputs[0] in captured
        ):
            yield node


def _captured(model: ir.Model) -> Iterator[ir.Value]:
    """What nodes of the graph give, and bodies of If, Loop and Scan read."""
    for node in model.graph:
        for value in node.outputs:
            if any(use.node.graph is not node.graph for use in value.uses()):
                yield value


def _without_form(model: ir.Model, form: Form) -> Iterator[ir.Node]:
    """Nodes for whose weights operators of integers have no scale for each output: they stay in floats.

    QLinearMatMul takes such scales for matrices alone; a weight that is read along two axes, such as a tied one, would
    have those of one of them.
    """
    for weight in find_weights(model).prunable if form.name == QOPERATOR else ():
        stacked = weight.op_type == "MatMul" and len(weight.shape) > 2
        if stacked or len({out_axis_of(use, weight.value) for use in weight.uses}) > 1:
            yield from (use.node for use in weight.uses if use.node.graph is model.graph)


def _operators(form: str) -> list[str]:
    """The operators that a form has integers for: those of the one form may be fewer than those of the other."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QLinearOpsRegistry, *(QDQRegistry if form == QDQ else ())})


def _completed(steps: Mapping[str, Steps], model: ir.Model) -> dict[str, Steps]:
    """With steps of what a joined activation reads: those of what it gives, after which the other form names them."""
    joined = [node for node in model.graph if node.op_type in JOINED]
    pairs = {
        node.inputs[0].name or "": node.outputs[0].name or "" for node in joined if node.inputs[0] is not None
    }
    return {name: steps[given] for name, given in pairs.items() if given in steps} | dict(steps)


def _overrides(steps: Mapping[str, Steps]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Steps in the form that the quantizers take, for each value a dict, or one for each slice."""
    from onnxruntime.quantization import QuantType

    for name, each in steps.items():
        kind = QuantType.QInt8 if each.zero_point.dtype == np.int8 else QuantType.QUInt8
        common = {"quant_type": kind} | ({} if each.axis is None else {"axis": each.axis})
        yield (
            name,
            [
                common | {"scale": np.array(scale), "zero_point": np.array(zero)}
                for scale, zero in zip(np.atleast_1d(each.scale), np.atleast_1d(each.zero_point), strict=True)
            ],
        )


def _shorten(model: ir.Model) -> None:
    """Drop attributes of the quantizer's convolutions that say what holds without them: some 70 bytes a node."""
    for node in model.graph:
        for name, default in DEFAULTS.items() if node.op_type == "QLinearConv" else ():
            attribute = node.attributes.get(name)
            found = () if attribute is None else np.ravel(np.array(attribute.value)).tolist()
            if attribute is not None and all(each == default for each in found):
                del node.attributes[name]


def _share_zero_points(model: ir.Model) -> None:
    """Have one constant for zero points that are alike, and one number where those of a convolution's weight are all 0.

    Each takes some fifty bytes, names included, and a byte more for each output.
    """
    shared: dict[tuple[ir.DataType, tuple[int, ...], bytes], ir.Value] = {}
    for node in model.graph:
        for index in ZERO_POINTS.get(node.op_type, ()):
            value = operand(node, index)
            tensor = constant_tensor(value)
            if value is None or tensor is None or not value.is_initializer() or value.is_graph_input():
                continue
            numbers = tensor.numpy()
            # QGemm wants as many as there are scales.
            if node.op_type == "QLinearConv" and numbers.size > 1 and not numbers.any():
                numbers = np.zeros((), numbers.dtype)
                value = ir.Value(name=value.name, const_value=ir.Tensor(numbers, name=value.name))
            alike = shared.setdefault((tensor.dtype, numbers.shape, numbers.tobytes()), value)
            node.replace_input_with(index, alike)
    unread = [value for value in model.graph.initializers.values() if not value.uses()]
    for value in unread:
        if not value.is_graph_output() and not value.is_graph_input():
            del model.graph.initializers[value.name or ""]
    for value in shared.values():
        if not value.is_initializer():
            model.graph.register_initializer(value)


def _restore_names(model: ir.Model) -> None:
    taken = {value.name for node in model.graph for value in node.outputs} | set(model.graph.initializers)
    for value in list(model.graph.initializers.values()):
        name = (value.name or "").removesuffix(SUFFIX)
        if name != value.name and name not in taken:
            del model.graph.initializers[value.name or ""]
            value.name = name
            model.graph.initializers[name] = value
