"""A detector of the form of YOLOv8, with data as Ultralytics users have it, scored by mAP.

    python -m models.examples.detector [FOLDER]

The images are drawn: one to three shapes on a noisy background. The pruned model is fine-tuned towards the outputs of
the input model, since labels of boxes are for the metric. Needs onnxprune[data,metrics].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

import onnxprune
from models.examples import parts

CLASSES = ("circle", "square", "triangle")
SIDE, STRIDE, NOISE = 64, 8, 10
CELLS = SIDE // STRIDE
IMAGES, TEST_IMAGES = 800, 150
# How far a box may reach from its cell; boxes are at most twice as large.
REACH = 32.0


def drawn(rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """An image, and its boxes (M, 5): class, center x, center y, width and height as fractions of the side."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(rng.integers(96, size=3)))
    boxes: list[list[float]] = []
    for _ in range(rng.integers(1, 4)):
        kind, radius = int(rng.integers(len(CLASSES))), rng.uniform(6, 13)
        x, y = rng.uniform(radius, SIDE - radius, 2)
        # Shapes that would cover others are left out.
        if any(np.hypot(x - SIDE * box[1], y - SIDE * box[2]) < 2 * radius + 4 for box in boxes):
            continue
        color, place = tuple(rng.integers(128, 256, size=3)), (x - radius, y - radius, x + radius, y + radius)
        corners = [(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)]
        draw = ImageDraw.Draw(image)
        if CLASSES[kind] == "circle":
            draw.ellipse(place, fill=color)
        elif CLASSES[kind] == "square":
            draw.rectangle(place, fill=color)
        else:
            draw.polygon(corners, fill=color)
        boxes.append([kind, x / SIDE, y / SIDE, 2 * radius / SIDE, 2 * radius / SIDE])
    noisy = np.asarray(image) + rng.normal(0, NOISE, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), np.array(boxes)


def write_part(folder: Path, part: str, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Write images/PART and labels/PART; return inputs (N, 3, 64, 64), and what each cell shall say (`targets`)."""
    for kind in ("images", "labels"):
        (folder / kind / part).mkdir(parents=True, exist_ok=True)
    inputs, wanted = [], []
    for number in range(count):
        image, boxes = drawn(rng)
        image.save(folder / "images" / part / f"{number:03}.png")
        lines = [f"{int(kind)} {' '.join(f'{value:.6f}' for value in box)}\n" for kind, *box in boxes]
        (folder / "labels" / part / f"{number:03}.txt").write_text("".join(lines))
        inputs.append(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)
        wanted.append(targets(boxes))
    return torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(wanted))


def targets(boxes: np.ndarray) -> np.ndarray:
    """(4 + C, A) as the network gives it: the cell of a box's center has the box and its class, others have zeros."""
    made = np.zeros((4 + len(CLASSES), CELLS, CELLS), np.float32)
    for kind, *box in boxes:
        column, row = (int(value * CELLS) for value in box[:2])
        made[:, row, column] = 0
        made[:4, row, column] = np.array(box) * SIDE
        made[4 + int(kind), row, column] = 1
    return made.reshape(len(made), -1)


class Detector(nn.Module):
    """Images (N, 3, 64, 64) -> (N, 4 + C, A): center, width and height in pixels, and probabilities of classes."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1), (64, 64, 1)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(64, 4 + len(CLASSES), 1))
        ticks = (torch.arange(CELLS) + 0.5) * STRIDE
        rows, columns = torch.meshgrid(ticks, ticks, indexing="ij")
        self.register_buffer("centers", torch.stack([columns, rows]).reshape(1, 2, -1))

    def forward(self, images: Tensor) -> Tensor:
        values = self.body(images).flatten(2)
        middle = self.centers + STRIDE * values[:, :2].tanh()
        return torch.cat([middle, REACH * values[:, 2:4].sigmoid(), values[:, 4:].sigmoid()], 1)


def loss(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy of the classes, and 1 - IoU of the boxes in the cells that have one."""
    has_box = wanted[:, 4:].sum(1)
    scores = F.binary_cross_entropy(outputs[:, 4:], wanted[:, 4:], reduction="sum")
    starts = [each[:, :2] - each[:, 2:4] / 2 for each in (outputs, wanted)]
    ends = [each[:, :2] + each[:, 2:4] / 2 for each in (outputs, wanted)]
    shared = (torch.minimum(*ends) - torch.maximum(*starts)).clamp(min=0).prod(1)
    areas = outputs[:, 2:4].prod(1) + wanted[:, 2:4].prod(1)
    overlap = shared / (areas - shared + 1e-6)
    distance = (outputs[:, :4] - wanted[:, :4]).abs().mean(1) / STRIDE
    return (scores + (has_box * (1 - overlap + distance)).sum()) / has_box.sum().clamp(min=1)


def main() -> None:
    torch.manual_seed(0)
    folder, rng = parts.work_folder(), np.random.default_rng(0)
    data = folder / "scenes"
    inputs, wanted = write_part(data, "train", IMAGES, rng)
    write_part(data, "val", TEST_IMAGES, rng)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    (data / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}")

    net = Detector()
    parts.train(net, inputs, wanted, epochs=30, loss=loss)
    dense, pruned = folder / "detector.onnx", folder / "detector-pruned.onnx"
    parts.export(net, inputs.numpy(), dense, "boxes")

    result = onnxprune.prune(
        dense,
        pruned,
        rate=0.7,
        time="20s",
        data=data / "data.yaml",  # its `train`
        eval_data=data / "data.yaml",  # its `val`
        transform="unit",
        metric="map",
    )
    evaluation = result.report.to_dict()["evaluation"]["scores"][0]
    for path, which in ((dense, "baseline"), (pruned, "pruned")):
        print(f"{path.name}: mAP {evaluation[which]['value']:.1%}, {parts.kilobytes(path)}")


if __name__ == "__main__":
    main()
