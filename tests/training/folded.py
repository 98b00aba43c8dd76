"""A residual network whose norms are folded, data for it, and what tests ask of such models."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper

from onnxprune.model.constants import constant_tensor
from onnxprune.training.module.norms import (
    restore_norms,
)
from tests.builders import floats, model_of, normal

CLASSES = 4


def residual(depth=3, seed=0, scales=None):
    """x [N, 3, 8, 8] -> Conv -> Relu -> blocks of two Convs beside a shortcut -> mean -> Gemm -> y [N, 4].

    `scales`: every filter is multiplied by a number between 1 / scales and scales, as folding does.
    """
    rng = np.random.default_rng(seed)
    weights, nodes, last = {}, [], "x"

    def conv(name, source, inputs, group=1):
        array = rng.standard_normal((8, inputs // group, 3, 3)) * (2 / (9 * inputs / group)) ** 0.5
        factor = np.exp(rng.uniform(-1, 1, (8, 1, 1, 1)) * np.log(scales or 1))
        weights[f"{name}.weight"] = (array * factor).astype(np.float32)
        weights[f"{name}.bias"] = (0.1 * rng.standard_normal(8)).astype(np.float32)
        operands = [source, f"{name}.weight", f"{name}.bias"]
        settings = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": group}
        nodes.append(helper.make_node("Conv", operands, [name], f"{name}.node", **settings))
        return name

    def relu(source):
        nodes.append(helper.make_node("Relu", [source], [f"{source}.relu"], f"{source}.act"))
        return f"{source}.relu"

    last = relu(conv("stem", "x", 3))
    for block in range(depth):
        inner = relu(conv(f"b{block}.conv1", last, 8, group=8 if block == 1 else 1))
        outer = conv(f"b{block}.conv2", inner, 8)
        nodes.append(helper.make_node("Add", [outer, last], [f"b{block}"], f"b{block}.add"))
        last = relu(f"b{block}")
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["mean"], "mean.node"),
        helper.make_node("Flatten", ["mean"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]
    weights |= {"fc.weight": normal(CLASSES, 8, seed=8), "fc.bias": normal(CLASSES, seed=9)}
    return model_of(nodes, [floats("x", "N", 3, 8, 8)], [floats("y", "N", CLASSES)], weights)


def images(count=400, seed=5):
    """Noise over one of four colors, which is the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    colors = normal(CLASSES, 3, 1, 1, seed=6)
    noise = rng.standard_normal((count, 3, 8, 8)).astype(np.float32)
    return {"x": colors[labels] + 2 * noise, "labels": labels}


def outputs(model, x):
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    session = ort.InferenceSession(proto.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def without_numbers(proto):
    """Everything of a model but the numbers of its initializers."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in copy.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
    return copy


def restored(proto, **settings):
    model = ir.from_proto(proto)
    restore_norms(model, **settings)
    return model


def array(model, name):
    return constant_tensor(model.graph.initializers[name]).numpy()


def score(model):
    test = images(1000, seed=11)
    return float((outputs(model, test["x"]).argmax(1) == test["labels"]).mean())
