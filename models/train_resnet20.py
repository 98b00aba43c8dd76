"""Trains ResNet-20 (He et al. 2016, arXiv 1512.03385) on CIFAR-10 and writes models/resnet-20.onnx.

    python -m models.train_resnet20

All 50,000 training images are trained on, and the weights of the last epoch are written: nothing is chosen. The file is
evaluated on the 10,000 test images in onnxruntime, once.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.cifar10 import CLASSES, DEFAULT_FOLDER, MEAN, STD, read_split
from models.exporting import export

EPOCHS = 45
BATCH = 128
LEARNING_RATE = 0.2  # the peak of a line up and a cosine down
RISING = 0.1  # the share of the updates on the line
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
BORDER = 4  # pixels that random crops move by at most
SEED = 0
THREADS = 2  # the order of the sums, and so the last bits of the weights, depends on it
TEST_BATCH = 1_000
HERE = Path(__file__).parent


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: subsampled and padded with zeros where the shape changes (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride, self.new = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.new:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))
        return F.relu(x + y)


class ResNet20(nn.Module):
    """Three stages of three blocks with 16, 32 and 64 channels: 269,722 parameters.

    (N, 3, 32, 32), pixels / 255 minus MEAN, by STD -> logits (N, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        stages = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        self.blocks = nn.Sequential(
            *(
                Block(outputs if index else inputs, outputs, 1 if index else stride)
                for inputs, outputs, stride in stages
                for index in range(3)
            )
        )
        self.fc = nn.Linear(64, len(CLASSES))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.norm(self.conv(pixels))))
        return self.fc(x.mean((2, 3)))


def train(net: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Train `net` in place; it is left in eval mode. images: (N, 3, 32, 32) float32; labels: (N,) int64."""
    optimizer = torch.optim.SGD(
        net.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, EPOCHS * (len(labels) // BATCH), RISING, cycle_momentum=False
    )
    # Twice as fast where the processor has it, and as good.
    halves = torch.cpu._is_avx512_bf16_supported()
    for epoch in range(1, EPOCHS + 1):
        net.train()
        begun, losses = time.perf_counter(), []
        for batch in torch.randperm(len(labels)).split(BATCH)[: len(labels) // BATCH]:
            with torch.autocast("cpu", torch.bfloat16, enabled=halves):
                logits = net(changed(images[batch]))
            loss = F.cross_entropy(logits.float(), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        click.echo(f"epoch {epoch}: loss {np.mean(losses):.3f}, {time.perf_counter() - begun:.0f} s")
    net.eval()


def changed(images: Tensor) -> Tensor:
    """Images (N, 3, H, W), each cropped at random from itself with a border of zeros, half of them mirrored."""
    count, _, height, width = images.shape
    down, right = torch.randint(2 * BORDER + 1, (2, count, 1))
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    mirrored = torch.rand(count, 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, [BORDER] * 4)
    places = torch.arange(count)[:, None, None, None]
    return padded[places, torch.arange(3)[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def normalized(images: np.ndarray) -> np.ndarray:
    """The input of images (N, 32, 32, 3) of bytes: (N, 3, 32, 32) float32."""
    scaled = (images.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def count_errors(model: Path, images: np.ndarray, labels: np.ndarray) -> int:
    """The number of images, (N, 32, 32, 3) of bytes, that the model classifies wrongly."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    errors = 0
    for start in range(0, len(images), TEST_BATCH):
        part = slice(start, start + TEST_BATCH)
        (logits,) = session.run(["logits"], {"input": normalized(images[part])})
        errors += int((logits.argmax(axis=1) != labels[part]).sum())
    return errors


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=DEFAULT_FOLDER,
    help="Folder with CIFAR-10.  [default: .cifar10]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=HERE,
    help="Folder to write to.  [default: models]",
)
def main(data: Path, out: Path) -> None:
    """Train the network, write it as ONNX and print its test error."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    images, labels = read_split(data, "train")
    net = ResNet20()
    train(net, torch.from_numpy(normalized(images)), torch.from_numpy(labels))
    path = out / "resnet-20.onnx"
    export(net, (3, 32, 32), path)
    images, labels = read_split(data, "test")
    errors = count_errors(path, images, labels)
    click.echo(f"{path}: {errors} of {len(labels)} wrong, test error {errors / len(labels):.2%}")


if __name__ == "__main__":
    main()
