"""Scenes of simple shapes, small networks that detect, segment and clean them, and their training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.benchmarks.trained_models import module_of

CLASSES = ("circle", "square", "triangle")
DETECTOR_SIDE, MASK_SIDE = 96, 48
VOID = 255
STRIDES = (8, 16)

Loss = Callable[[Sequence[torch.Tensor], torch.Tensor], torch.Tensor]


def scene(
    rng: np.random.Generator, side: int, most: int, noise: float = 16
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shapes on a noisy background, which may hide half of each other, as pixels (side, side, 3) of uint8.

    Beside them boxes (M, 5): class, center x, center y, width and height as shares of the side; and a mask
    (side, side): 0 background, 1 + class, `VOID` along edges.
    """
    pillow, drawing = module_of("PIL.Image", "pillow"), module_of("PIL.ImageDraw", "pillow")
    coarse = rng.integers(48, 208, (side // 16, side // 16, 3), dtype=np.uint8)
    pixels = np.asarray(pillow.fromarray(coarse).resize((side, side), pillow.Resampling.BICUBIC), np.float32)
    owner, classes, boxes, areas = np.zeros((side, side), int), [], [], []
    for _ in range(rng.integers(1, most + 1)):
        size = rng.uniform(0.15, 0.45) * side
        kind, (x, y) = int(rng.integers(len(CLASSES))), rng.uniform(size / 2, side - size / 2, 2)
        angles = rng.uniform(0, 2 * np.pi) + np.arange({1: 4, 2: 3}.get(kind, 1)) * 2 * np.pi / (5 - kind)
        image = pillow.new("1", (side, side))
        if kind == 0:
            drawing.Draw(image).ellipse((x - size / 2, y - size / 2, x + size / 2, y + size / 2), fill=1)
        else:
            corners = np.stack([x + size / 2 * np.cos(angles), y + size / 2 * np.sin(angles)], 1)
            drawing.Draw(image).polygon([tuple(corner) for corner in corners], fill=1)
        shape = np.asarray(image)
        placed = np.where(shape, len(classes) + 1, owner)
        if any((placed == number + 1).sum() < area / 2 for number, area in enumerate(areas)):
            continue
        owner = placed
        pixels = np.where(shape[..., None], rng.uniform(0, 255, 3), pixels)
        (top, bottom), (left, right) = (np.flatnonzero(shape.any(axis))[[0, -1]] for axis in (1, 0))
        box = ((left + right + 1) / 2, (top + bottom + 1) / 2, right + 1 - left, bottom + 1 - top)
        classes.append(kind)
        boxes.append([kind, *np.array(box) / side])
        areas.append(shape.sum())
    noisy = np.clip(pixels + rng.normal(0, noise, pixels.shape), 0, 255).astype(np.uint8)
    mask = np.array([0, *(kind + 1 for kind in classes)])[owner].astype(np.uint8)
    edge = np.zeros(owner.shape, bool)
    edge[1:] |= owner[1:] != owner[:-1]
    edge[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    mask[edge] = VOID
    return noisy, np.array(boxes), mask


def channels_first(pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Pixels (N, H, W, 3) of uint8 as inputs (N, 3, H, W) in [0, 1]."""
    return np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.SiLU())


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(conv(width, width), conv(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Detector(nn.Module):
    """Anchor-free, of two scales; its output is that of YOLOv8: (N, 4 + C, A), boxes in pixels and probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            conv(3, 16, 3, 2), conv(16, 24, 3, 2), conv(24, 48, 3, 2), Residual(48), Residual(48)
        )
        self.coarse = nn.Sequential(conv(48, 72, 3, 2), Residual(72))
        self.fuse = nn.Sequential(conv(72 + 48, 48, 1), conv(48, 48))
        self.heads = nn.ModuleList(
            nn.Sequential(conv(width, 48), nn.Conv2d(48, 4 + len(CLASSES), 1)) for width in (48, 72)
        )
        for head in self.heads:
            nn.init.constant_(head[1].bias[4:], -4.0)
        points, strides = grid()
        self.register_buffer("points", points.T.contiguous())
        self.register_buffer("strides", strides)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        fine = self.fine(images)
        coarse = self.coarse(fine)
        fused = self.fuse(torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], 1))
        rows = [head(x).flatten(2) for head, x in zip(self.heads, (fused, coarse), strict=True)]
        x = torch.cat(rows, 2)
        near, far = (F.softplus(x[:, :4]) * self.strides).chunk(2, 1)
        return torch.cat([self.points + (far - near) / 2, near + far, x[:, 4:].sigmoid()], 1)


class UNet(nn.Module):
    """Of three scales; `add`: the output is added to the input."""

    def __init__(self, outputs: int, add: bool):
        super().__init__()
        self.add = add
        self.one = conv(3, 16)
        self.two = nn.Sequential(conv(16, 32, 3, 2), Residual(32))
        self.three = nn.Sequential(conv(32, 64, 3, 2), Residual(64))
        self.up = conv(64 + 32, 16)
        self.top = nn.Sequential(conv(16 + 16, 16), nn.Conv2d(16, outputs, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        one = self.one(images)
        two = self.two(one)
        up = self.up(torch.cat([F.interpolate(self.three(two), scale_factor=2.0), two], 1))
        top = self.top(torch.cat([F.interpolate(up, scale_factor=2.0), one], 1))
        return images + top if self.add else top


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    """The points (A, 2) that predict boxes, x and y in pixels, and their strides (A,)."""
    points, strides = [], []
    for stride in STRIDES:
        ticks = (torch.arange(DETECTOR_SIDE // stride) + 0.5) * stride
        y, x = torch.meshgrid(ticks, ticks, indexing="ij")
        points.append(torch.stack([x.flatten(), y.flatten()], 1))
        strides.append(torch.full((x.numel(),), float(stride)))
    return torch.cat(points), torch.cat(strides)


def corners(boxes: torch.Tensor) -> torch.Tensor:
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], -1)


def overlaps(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Intersection over union, and its generalization (Rezatofighi et al. 2019), of boxes by their corners."""
    shared = (
        torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])
    ).clamp(0)
    hull = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])
    both, around = shared.prod(-1), hull.prod(-1)
    union = sum((box[..., 2:] - box[..., :2]).prod(-1) for box in (one, other)) - both
    iou = both / union.clamp(1e-6)
    return iou, iou - (around - union) / around.clamp(1e-6)


def detection_loss(outputs: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """The loss of task-aligned assignment (Feng et al. 2021), for boxes (N, M, 5) with class -1 in unused rows.

    It takes the output as it is written to the file, so that it serves as --loss too.
    """
    rows = outputs[0]
    boxes, scores = corners(rows[:, :4].transpose(1, 2)), rows[:, 4:]
    points, _ = grid()
    used, classes = labels[..., 0] >= 0, labels[..., 0].clamp(0).long()
    truth = corners(labels[..., 1:] * DETECTOR_SIDE)
    with torch.no_grad():
        iou = overlaps(truth[:, :, None], boxes[:, None])[0] + 1e-9
        inside = ((points > truth[:, :, None, :2]) & (points < truth[:, :, None, 2:])).all(-1) & used[
            ..., None
        ]
        own = scores.gather(1, classes[..., None].expand(-1, -1, rows.shape[2]))
        alignment = own.sqrt() * iou**6 * inside
        chosen = (alignment >= alignment.topk(8).values[..., -1:]) & inside
        # A point of several boxes belongs to the one that it predicts best.
        owner = (iou * chosen).argmax(1)
        positive = chosen.any(1)
        chosen &= F.one_hot(owner, labels.shape[1]).transpose(1, 2).bool()
        alignment = alignment * chosen
        best = (iou * chosen).amax(2, keepdim=True)
        quality = (alignment / alignment.amax(2, keepdim=True).clamp(1e-12) * best).amax(1)
        kind = F.one_hot(classes.gather(1, owner), scores.shape[1]).transpose(1, 2)
        target = kind * (quality * positive)[:, None]
        total = target.sum().clamp(1.0)
    _, generalized = overlaps(truth.gather(1, owner[..., None].expand(-1, -1, 4)), boxes)
    right = F.binary_cross_entropy(scores.clamp(1e-7, 1 - 1e-7), target, reduction="sum")
    return (right + 4 * ((1 - generalized) * quality * positive).sum()) / total


def segmentation_loss(outputs: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs[0], labels.long(), ignore_index=VOID)


def restoration_loss(outputs: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(outputs[0], labels)


def train(
    network: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    loss: Loss,
    epochs: int,
    file: Path,
    size: int = 32,
) -> Path:
    """Train on images, half of them mirrored with their labels, and export with opset 17, unless the file is there."""
    if file.exists():
        return file
    torch.manual_seed(0)
    # A second one costs more than it brings for layers as small as these.
    torch.set_num_threads(1)
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = epochs * (len(inputs) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    start = time.monotonic()
    for epoch in range(epochs):
        losses = []
        for index in torch.randperm(len(inputs)).split(size)[: len(inputs) // size]:
            x, y = inputs[index], targets[index]
            if torch.rand(()) < 0.5:
                x, y = x.flip(-1), mirrored(y) if loss is detection_loss else y.flip(-1)
            value = loss([network(x)], y)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            losses.append(value.item())
        passed = time.monotonic() - start
        print(
            f"{file.parent.name}: epoch {epoch + 1}/{epochs}, loss {np.mean(losses):.4f}, {passed:.0f} s",
            flush=True,
        )
    torch.onnx.export(
        network.eval(),
        (inputs[:2],),
        str(file),
        input_names=["images"],
        output_names=["output0"],
        dynamic_axes={"images": {0: "N"}, "output0": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )
    return file


def mirrored(boxes: torch.Tensor) -> torch.Tensor:
    x = torch.where(boxes[..., 0] >= 0, 1 - boxes[..., 1], boxes[..., 1])
    return torch.cat([boxes[..., :1], x[..., None], boxes[..., 2:]], -1)
