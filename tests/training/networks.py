"""Networks written by hand as torch modules, and exported to ONNX with torch.onnx."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeNet5(nn.Module):
    """models/lenet-5.onnx: image (N, 1, 28, 28) in [0, 1] to logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.deviation
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (He et al. 2016), the stride in the first."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.convs = nn.Sequential(
            *_normalized(inputs, width, 1, stride), nn.ReLU(inplace=True),
            *_normalized(width, width, 3), nn.ReLU(inplace=True),
            *_normalized(width, 4 * width, 1),
        )  # fmt: skip
        same = stride == 1 and inputs == 4 * width
        self.shortcut = nn.Identity() if same else nn.Sequential(*_normalized(inputs, 4 * width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.convs(x) + self.shortcut(x), inplace=True)


class ResNet50(nn.Module):
    """(N, 3, 224, 224) to (N, 1000), with a last softmax as the model of the onnx package has one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_normalized(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        blocks, inputs = [], 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            for block in range(depth):
                blocks.append(Bottleneck(inputs, 64 << stage, 2 if stage and not block else 1))
                inputs = 256 << stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.blocks(self.stem(x)), 7)
        return F.softmax(self.head(x.flatten(1)), -1)


def _normalized(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs)


class EncoderBlock(nn.Module):
    """A layer of BERT: x (N, T, width) to the same shape."""

    def __init__(self, width: int = 768, heads: int = 12):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.out(attended))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):
    """Token ids (N, T) to class scores (N, 10): embeddings, encoder blocks, a head on the first token."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2):
        super().__init__()
        self.words, self.places = nn.Embedding(100, width), nn.Embedding(16, width)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.head = nn.Linear(width, 10)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(torch.tanh(self.blocks(x)[:, 0]))


class VisionTransformer(nn.Module):
    """Images (N, 3, 32, 32) to class scores (N, 10): patches of 8 x 8, a class token, encoder blocks."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.places
        return self.head(self.blocks(x)[:, 0])


class MobileNet(nn.Module):
    """Images (N, 3, 64, 64) to class scores (N, 10): inverted residuals (Sandler et al. 2018), a sixth as wide."""

    def __init__(self) -> None:
        super().__init__()
        layers, inputs = [*_normalized(3, 16, 3, 2), nn.ReLU6()], 16
        for outputs, stride in ((16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
            layers.append(InvertedResidual(inputs, outputs, stride))
            inputs = outputs
        self.features = nn.Sequential(*layers, *_normalized(inputs, 256, 1), nn.ReLU6())
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class InvertedResidual(nn.Module):
    """Six times as wide inside, where the convolution is depthwise; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        wide = 6 * inputs
        depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.convs = nn.Sequential(
            *_normalized(inputs, wide, 1), nn.ReLU6(),
            depthwise, nn.BatchNorm2d(wide), nn.ReLU6(),
            *_normalized(wide, outputs, 1),
        )  # fmt: skip
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x) if self.shortcut else self.convs(x)


class Recurrent(nn.Module):
    """Sequences (N, T, 12) to (N, T, 5): two LSTM layers in both directions, a GRU, a head on every step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 16, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(32, 16, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.lstm(x)[0])[0])


def exported(
    module: nn.Module,
    example: Tensor,
    *,
    dynamo: bool,
    axes: Sequence[int] = (0,),
    opset: int | None = None,
) -> onnx.ModelProto:
    """The module as torch.onnx writes it, by either exporter, at its default opset or this one; axes of x are open."""
    module.eval()
    settings: dict = {"input_names": ["x"], "output_names": ["y"], "opset_version": opset}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
            program = torch.onnx.export(
                module, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False, **settings
            )
            assert program is not None
            return program.model_proto
        path = Path(folder) / "model.onnx"
        names = {"x": {axis: f"axis{axis}" for axis in axes}}
        torch.onnx.export(module, (example,), path, dynamo=False, dynamic_axes=names, **settings)
        return onnx.load(path)
