"""BatchNormalization put back for the fine-tuning behind layers that an export folded it into, and folded again.

A network whose norms are folded into its weights trains badly: ResNet-20 on CIFAR-10, see training/README.md. Each norm
starts as the identity: a filter w becomes w / |w|, and the norm multiplies by |w|. So magnitudes are compared in units
that folding, which scales every filter by scale / deviation, has not distorted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.model.operands import operand
from onnxprune.model.reading import Use
from onnxprune.model.weights import Weight, find_weights

EPSILON = 1e-5
MOMENTUM = 0.9
# Shallower networks, as LeNet-5, have no norms to begin with, and train without them.
FEWEST_LAYERS = 6
# Statistics of a batch say little with fewer samples, and a norm has to learn them.
FEWEST_SAMPLES = 1000
SMALLEST_BATCH = 16
# The opset in which BatchNormalization has no mode for training.
FIRST_OPSET = 7

NORMS = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
    }
)
ACTIVATIONS = frozenset(
    {"Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu"}
    | {"Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu"}
)
# What reads a hidden layer. A linear bottleneck (Sandler et al. 2018) is read by a convolution.
READERS = (
    ACTIVATIONS
    | {"Add", "Sum", "Mul", "Conv", "ConvTranspose"}
    | {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
)
TYPES = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
_MARK = "onnxprune.restored"


@dataclass(frozen=True)
class Layer:
    """A layer that a norm can stand behind: its weight, its bias (one element an output), and its result."""

    weight: Weight
    bias: ir.Value
    result: ir.Value


@dataclass(frozen=True)
class Norm:
    """A norm that was put back, and the layer before it."""

    node: ir.Node
    layer: Layer


def layers_without_norm(model: ir.Model) -> list[Layer]:
    """The hidden layers that norms can be put behind, in the order of the graph.

    These are Conv, ConvTranspose, Gemm, and MatMul with an Add, with a bias, as folding leaves one, which an
    activation, a sum, a product, pooling or a convolution reads. Not a layer that only leads to outputs, one before a
    norm, one with a shared, quantized or transposed weight, one in the body of an If, or a product of sequences.
    """
    if model.opset_imports.get("", 0) < FIRST_OPSET:
        return []
    weighted = {use.node for weight in find_weights(model).prunable for use in weight.uses}
    found = (_layer(weight, model.graph) for weight in find_weights(model).prunable)
    return [layer for layer in found if layer is not None and _is_hidden(layer, weighted)]


def lacks_norms(model: ir.Model, samples: int, batch: int) -> bool:
    """Whether a model is a convolutional network whose norms were folded, with enough data to train them."""
    nodes = list(model.graph.all_nodes())
    attends = any(
        node.op_type in ("MatMul", "Attention", "MultiHeadAttention")
        and all(constant_tensor(value) is None for value in node.inputs[:2])
        for node in nodes
    )
    if attends or any(node.op_type in NORMS for node in nodes):
        return False
    convolutions = [layer for layer in layers_without_norm(model) if "Conv" in layer.weight.op_type]
    return len(convolutions) >= FEWEST_LAYERS and samples >= FEWEST_SAMPLES and batch >= SMALLEST_BATCH


def restore_norms(model: ir.Model, *, by_filter: bool = True) -> int:
    """Put norms back, in place, and return their number; the function of the model does not change.

    `by_filter`: every filter gets the norm 1; otherwise the filters of a layer keep their proportions, as criteria for
    whole channels need it, and have the norm 1 in the mean square.
    """
    layers = layers_without_norm(model)
    taken = {name for graph in model.graphs() for name in _names(graph)}
    for layer in layers:
        sizes = np.sqrt(np.square(layer.weight.matrix(), dtype=np.float64).sum(1))
        if not by_filter:
            sizes = np.full_like(sizes, np.sqrt(np.square(sizes).mean()))
        sizes[sizes == 0] = 1
        layer.weight.assign(layer.weight.array() / _along(sizes, layer.weight))
        _assign(layer.bias, _numbers(layer.bias) / sizes)
        _insert(model.graph, layer, sizes, taken)
    return len(layers)


def restored_norms(model: ir.Model) -> list[Norm]:
    """The norms that `restore_norms` put into a model, or into the one that it is a clone of."""
    nodes = [node for node in model.graph if is_restored(node)]
    weights = find_weights(model).prunable if nodes else ()
    layers = [layer for weight in weights if (layer := _layer(weight, model.graph)) is not None]
    behind = {layer.result: layer for layer in layers}
    return [Norm(node, behind[value]) for node in nodes for value in node.inputs[:1] if value is not None]


def is_restored(node: ir.Node) -> bool:
    """Whether `restore_norms` made a node."""
    return bool(node.meta.get(_MARK))


def fold_norms(model: ir.Model) -> None:
    """Fold the norms that `restore_norms` put into a model into the layers before them, and remove them, in place."""
    for norm in restored_norms(model):
        weight, bias = norm.layer.weight, norm.layer.bias
        scale, shift, mean, variance = (_numbers(value) for value in norm.node.inputs[1:5])
        factor = scale / np.sqrt(variance + norm.node.attributes.get_float("epsilon", EPSILON))
        weight.assign(weight.array() * _along(factor, weight))
        vector = _numbers(bias)
        _assign(bias, (vector - mean) * factor + shift)
        _remove(model.graph, norm.node)


def _layer(weight: Weight, graph: ir.Graph) -> Layer | None:
    """The layer of a weight, if a norm behind it can be folded into it."""
    node, index = weight.uses[0].node, weight.uses[0].index
    alone = len(weight.uses) == 1 and len(list(weight.value.uses())) == 1
    if not alone or node.graph is not graph or node.inputs[index] is not weight.value:
        return None
    find = _BIASED.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if find is None or weight.tensor.dtype not in TYPES:
        return None
    found = find(weight.uses[0])
    if found is None or any(value.is_graph_output() for value in (node.outputs[0], found[1])):
        return None
    bias, result = found
    tensor = constant_tensor(bias)
    if tensor is None or tensor.dtype != weight.tensor.dtype or len(list(bias.uses())) != 1:
        return None
    outputs = weight.shape[weight.out_axis]
    fits = tensor.size == outputs and tensor.shape.numpy()[-1:] == (outputs,)
    return Layer(weight, bias, result) if fits else None


def _conv(use: Use) -> tuple[ir.Value, ir.Value] | None:
    """The bias and the result; the outputs of grouped transposed convolutions lie on two axes."""
    node = use.node
    bias = operand(node, 2)
    if use.index != 1 or bias is None:
        return None
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
        return None
    return bias, node.outputs[0]


def _gemm(use: Use) -> tuple[ir.Value, ir.Value] | None:
    node = use.node
    bias = operand(node, 2)
    scaled = node.attributes.get_float("beta", 1.0) != 1
    return None if use.index != 1 or bias is None or scaled else (bias, node.outputs[0])


def _matmul(use: Use) -> tuple[ir.Value, ir.Value] | None:
    """A product of rank 2 with an Add behind it."""
    product = use.node.outputs[0]
    uses = list(product.uses())
    if use.index != 1 or len(uses) != 1 or product.shape is None or len(product.shape) != 2:
        return None
    add = uses[0].node
    if add.op_type != "Add" or add.domain not in ("", "ai.onnx") or add.graph is not use.node.graph:
        return None
    bias = add.inputs[1 - uses[0].idx]
    return None if bias is None or constant_tensor(bias) is None else (bias, add.outputs[0])


_BIASED = {"Conv": _conv, "ConvTranspose": _conv, "Gemm": _gemm, "MatMul": _matmul}


def _is_hidden(layer: Layer, weighted: Collection[ir.Node]) -> bool:
    """Whether the readers of a layer are those of a hidden one, and another layer follows."""
    readers = {use.node for use in layer.result.uses()}
    hidden = bool(readers) and all(reader.op_type in READERS for reader in readers)
    return hidden and any(node in weighted for node in _after(layer.result))


def _after(value: ir.Value) -> Iterator[ir.Node]:
    """Every node that depends on a value."""
    seen: set[ir.Node] = set()
    waiting = [use.node for use in value.uses()]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            waiting += [use.node for output in node.outputs for use in output.uses()]


def _insert(graph: ir.Graph, layer: Layer, sizes: np.ndarray, taken: set[str | None]) -> None:
    """A norm behind a layer that multiplies its channels by `sizes`: with its mean and variance as good as 0 and 1."""
    dtype, name = layer.weight.tensor.dtype, layer.result.name
    constants = []
    for part, array in (
        ("scale", sizes),
        ("shift", np.zeros_like(sizes)),
        ("mean", np.zeros_like(sizes)),
        ("variance", np.full_like(sizes, 1 - EPSILON)),
    ):
        label = _free(f"{name}/norm_{part}", taken)
        tensor = ir.Tensor(array.astype(dtype.numpy()), dtype=dtype, name=label)
        constants.append(
            ir.Value(name=label, shape=tensor.shape, type=ir.TensorType(dtype), const_value=tensor)
        )
        graph.register_initializer(constants[-1])
    attributes = [ir.AttrFloat32("epsilon", EPSILON), ir.AttrFloat32("momentum", MOMENTUM)]
    node = ir.Node(
        "", "BatchNormalization", [layer.result, *constants], attributes, name=_free(f"{name}/norm", taken)
    )
    node.meta[_MARK] = True
    result = node.outputs[0]
    result.name, result.shape, result.type = node.name, layer.result.shape, layer.result.type
    for use in [use for use in layer.result.uses() if use.node is not node]:
        use.node.replace_input_with(use.idx, result)
    maker = layer.result.producer()
    assert maker is not None
    graph.insert_after(maker, node)


def _remove(graph: ir.Graph, node: ir.Node) -> None:
    """Take a norm out of a graph, with its constants."""
    for use in list(node.outputs[0].uses()):
        use.node.replace_input_with(use.idx, node.inputs[0])
    constants = [value for value in node.inputs[1:] if value is not None]
    graph.remove(node, safe=True)
    for value in constants:
        del graph.initializers[value.name or ""]


def _names(graph: ir.Graph) -> Iterator[str | None]:
    """The names of the values and nodes of a graph."""
    yield from (value.name for value in (*graph.inputs, *graph.initializers.values()))
    for node in graph:
        yield node.name
        yield from (value.name for value in node.outputs)


def _free(name: str, taken: set[str | None]) -> str:
    """The name, or a longer one that no value has."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _numbers(value: ir.Value | None) -> np.ndarray:
    """A constant as a vector, in double precision."""
    tensor = constant_tensor(value)
    assert tensor is not None
    return tensor.numpy().astype(np.float64).reshape(-1)


def _assign(value: ir.Value, vector: np.ndarray) -> None:
    """Replace the numbers of a constant."""
    tensor = constant_tensor(value)
    assert tensor is not None
    array = vector.reshape(tensor.shape.numpy()).astype(tensor.dtype.numpy())
    set_constant(value, array, tensor.dtype)


def _along(vector: np.ndarray, weight: Weight) -> np.ndarray:
    """A number for each output, in the rank of the weight."""
    shape = [1] * len(weight.shape)
    shape[weight.out_axis] = -1
    return vector.reshape(shape)
