"""A board: a small convolutional network on MNIST, for a microcontroller: whole channels, int8, fixed shapes.

    python -m models.examples.board [FOLDER]

The sample of MNIST in models/ is trained on. The report has the flash that the constants need, and the largest memory
that the activations need at once.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import onnxprune
from models import idx
from models.evaluate import scaled
from models.examples import parts

SAMPLE = Path("models/mnist-sample")
RATE = 0.6


def network() -> nn.Sequential:
    """Images (N, 1, 28, 28) -> logits (N, 10)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 10))


def main() -> None:
    torch.manual_seed(0)
    folder = parts.work_folder()
    (images, labels), (tests, test_labels) = (idx.read_split(SAMPLE, split) for split in ("train", "t10k"))
    x, test = scaled(images)[:, None], scaled(tests)[:, None]

    net = network()
    parts.train(net, torch.from_numpy(x), torch.from_numpy(labels).long(), epochs=6)
    dense, pruned = folder / "board.onnx", folder / "board-pruned.onnx"
    parts.export(net, x, dense)

    report = onnxprune.prune(
        dense,
        pruned,
        rate=RATE,
        target="mcu",
        data=SAMPLE / "train-images-idx3-ubyte.gz",
        eval_data=SAMPLE / "t10k-images-idx3-ubyte.gz",
        time="20s",
    ).report
    for path, file in ((dense, report.baseline), (pruned, report.pruned)):
        assert file.constant_bytes is not None
        assert file.peak_bytes is not None
        print(
            f"{path.name}: accuracy {parts.accuracy(path, test, test_labels):.1%}, "
            f"flash {file.constant_bytes / 1000:.1f} kB, activations {file.peak_bytes / 1000:.1f} kB"
        )


if __name__ == "__main__":
    main()
