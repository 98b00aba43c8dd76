"""A folder of images: a convolutional network, pruned by the command line that a user would type.

    python -m models.examples.image_folder [FOLDER]

The images are drawn: circles, squares and triangles in colors on a noisy background, as PNG files in a folder for each
class. Needs pillow (onnxprune[data]).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from models.examples import parts

CLASSES = ("circle", "square", "triangle")
SIDE, NOISE = 32, 15
IMAGES, TEST_IMAGES = 500, 100  # of each class


def drawn(kind: str, rng: np.random.Generator) -> Image.Image:
    """A bright shape of a random place, size and color on a dark, noisy background."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(rng.integers(96, size=3)))
    color = tuple(rng.integers(128, 256, size=3))
    radius = rng.uniform(8, 13)
    x, y = rng.uniform(radius, SIDE - radius, 2)
    if kind == "circle":
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    else:
        sides = 4 if kind == "square" else 3
        ImageDraw.Draw(image).regular_polygon((x, y, radius), sides, int(rng.integers(360)), fill=color)
    noisy = np.asarray(image) + rng.normal(0, NOISE, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def write_images(folder: Path, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Write folder/CLASS/NUMBER.png; return inputs (N, 3, 32, 32) float32 in [0, 1], and labels (N,)."""
    pixels, labels = [], []
    for label, kind in enumerate(CLASSES):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = drawn(kind, rng)
            image.save(folder / kind / f"{number:03}.png")
            pixels.append(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)
            labels.append(label)
    return np.stack(pixels), np.array(labels)


def network() -> nn.Sequential:
    """Images (N, 3, 32, 32) -> logits (N, 3)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(CLASSES)))


def main() -> None:
    torch.manual_seed(0)
    folder, rng = parts.work_folder(), np.random.default_rng(0)
    x, labels = write_images(folder / "shapes/train", IMAGES, rng)
    test, test_labels = write_images(folder / "shapes/test", TEST_IMAGES, rng)

    net = network()
    parts.train(net, torch.from_numpy(x), torch.from_numpy(labels), epochs=14)
    dense, pruned = folder / "shapes.onnx", folder / "shapes-pruned.onnx"
    parts.export(net, x, dense)

    # The folders are the classes; `unit` scales pixels to [0, 1], as the training above did.
    command = f"onnxprune {dense} {pruned} --rate 0.8 --time 20s --transform unit --augment flip,crop:2"
    data = f"--data {folder}/shapes/train --eval-data {folder}/shapes/test"
    print(f"$ {command} {data}")
    subprocess.run([sys.executable, "-m", *command.split(), *data.split()], check=True)
    for path in (dense, pruned):
        print(f"{path.name}: accuracy {parts.accuracy(path, test, test_labels):.1%}, {parts.kilobytes(path)}")


if __name__ == "__main__":
    main()
