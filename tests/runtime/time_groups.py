"""Times one thread takes for whole networks: dense, by the provider layer by layer, and by the provider with groups.

python -m tests.runtime.time_groups [NETWORK ...]
ONNXPRUNE_ISA=avx2 python -m tests.runtime.time_groups

Weights are random, a tenth of them kept (of MobileNetV2, a fifth of those of 1x1 convolutions and the last layer). In
CPU time, 20th percentiles of rounds in which all take turns, so that other work on the machine matters little.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnxprune import runtime
from onnxprune.latency import networks
from onnxprune.runtime.timing import session_options
from tests.runtime.time_provider import race

MODELS = Path(__file__).parents[2] / "models"
# Blocks of MobileNetV2: expansion, channels, count, stride of the first (Sandler et al. 2018, table 2).
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
ROUNDS = 30
PERCENTILE = 20


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def constant(self, array: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array, np.float32), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def conv(self, x: str, shape: tuple[int, ...], stride: int = 1, group: int = 1) -> str:
        weight = self._rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        parts = [x, self.constant(weight), self.constant(np.zeros(shape[0]))]
        return self.add("Conv", parts, pads=[shape[2] // 2] * 4, strides=[stride] * 2, group=group)


def mobilenet_v2() -> onnx.ModelProto:
    net = _Graph()
    low, high = net.constant(0.0), net.constant(6.0)

    def clipped(x: str) -> str:
        return net.add("Clip", [x, low, high])

    x, channels = clipped(net.conv("x", (32, 3, 3, 3), 2)), 32
    for expansion, outputs, count, first_stride in MOBILENET_V2:
        for index in range(count):
            hidden, y = channels * expansion, x
            if expansion > 1:
                y = clipped(net.conv(y, (hidden, channels, 1, 1)))
            y = clipped(net.conv(y, (hidden, 1, 3, 3), 1 if index else first_stride, hidden))
            y = net.conv(y, (outputs, hidden, 1, 1))
            x, channels = net.add("Add", [x, y]) if index else y, outputs
    x = net.add("Flatten", [net.add("GlobalAveragePool", [clipped(net.conv(x, (1280, 320, 1, 1)))])])
    rng = np.random.default_rng(1)
    last = net.constant(rng.standard_normal((1000, 1280)) / 36)
    y = net.add("Gemm", [x, last, net.constant(np.zeros(1000))], transB=1)
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", (1, 3, 224, 224)), (y, (1, 1000)))
    ]
    graph = helper.make_graph(net.nodes, "mobilenet-v2", infos[:1], infos[1:], net.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pruned(model: onnx.ModelProto, density: float, first: bool = True) -> onnx.ModelProto:
    """The model with the smallest weights of each layer set to zero; depthwise layers stay whole.

    With `first` the convolution of the image is pruned, too.
    """
    slots = {node.input[1]: node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name not in slots or (array.ndim == 4 and array.shape[1] in (1, *(() if first else (3,)))):
            continue
        kept = max(round(array.size * density), 1)
        array[np.abs(array) < np.partition(np.abs(array).ravel(), -kept)[-kept]] = 0
        # As large a result as of all weights, so that nothing vanishes on the way.
        tensor.CopyFrom(
            numpy_helper.from_array((array * np.sqrt(1 / (3 * density))).astype(np.float32), tensor.name)
        )
    return model


def committed(name: str) -> onnx.ModelProto:
    return onnx.load(MODELS / f"{name}.onnx")


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "ResNet-50": lambda: pruned(networks.light("resnet50"), 0.1),
    "VGG-16": lambda: pruned(networks.vgg16(), 0.1),
    "SqueezeNet": lambda: pruned(networks.light("squeezenet"), 0.1),
    "MobileNetV2": lambda: pruned(mobilenet_v2(), 0.2, first=False),
    "ResNet-20": lambda: pruned(committed("resnet-20"), 0.1),
    "LeNet-5": lambda: pruned(committed("lenet-5"), 0.1),
}


def sessions(path: Path) -> dict[str, ort.InferenceSession]:
    made = {"dense": ort.InferenceSession(path, session_options(1), providers=["CPUExecutionProvider"])}
    for name, kernels, groups in (
        ("layer by layer", "all", False),
        ("groups", "all", True),
        ("groups, estimated", "estimated", True),
    ):
        options = session_options(1)
        runtime.add_provider(options, kernels, groups=groups)
        made[name] = ort.InferenceSession(path, options)
    return made


def main(names: list[str]) -> None:
    for name in names or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(NETWORKS[name](), path)
            raced = sessions(path)
        rows = race(raced.values(), ROUNDS)
        times = dict(zip(raced, (np.percentile(row, PERCENTILE) for row in rows), strict=True))
        text = ", ".join(f"{kind} {times['dense'] / seconds:.2f}" for kind, seconds in times.items())
        print(f"{name}: dense {1000 * times['dense']:.3f} ms; {text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
