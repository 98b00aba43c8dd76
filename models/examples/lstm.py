"""An LSTM: which gesture a sensor saw, by its samples over time; pruned in one step, then fine-tuned.

    python -m models.examples.lstm [FOLDER]

The sequences are generated: 40 readings of three axes, of one of four movements, each of its own speed, start, size
and noise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import onnxprune
from models.examples import parts

STEPS, AXES, CLASSES = 40, 3, 4
SEQUENCES, TEST_SEQUENCES = 3_000, 1_000
NOISE = 0.5
RATE = 0.8


class Gestures(nn.Module):
    """Readings (N, 40, 3) -> logits (N, 4), by the state after the last reading."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(AXES, 96, batch_first=True)
        self.head = nn.Linear(96, CLASSES)

    def forward(self, readings: Tensor) -> Tensor:
        states, _ = self.lstm(readings)
        return self.head(states[:, -1])


def sequences(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Readings (count, 40, 3) float32 and movements (count,): circle to the left, to the right, wave, tap."""
    labels = rng.integers(CLASSES, size=count)
    speed, start = rng.uniform(0.15, 0.3, (count, 1)), rng.uniform(0, 2 * np.pi, (count, 1))
    angle = speed * np.arange(STEPS) + start
    turn = np.where(labels == 0, 1, -1)[:, None]
    circle = np.stack([np.cos(angle), turn * np.sin(angle), 0 * angle], 2)
    wave = np.stack([np.cos(angle), 0 * angle, np.sin(2 * angle)], 2)
    tap = np.stack([0 * angle, 0 * angle, np.cos(angle) ** 8 * 2], 2)
    clean = np.where((labels < 2)[:, None, None], circle, np.where((labels == 2)[:, None, None], wave, tap))
    size = rng.uniform(0.5, 1.5, (count, 1, 1))
    return (size * clean + NOISE * rng.standard_normal(clean.shape)).astype(np.float32), labels


def main() -> None:
    torch.manual_seed(0)
    folder, rng = parts.work_folder(), np.random.default_rng(0)
    x, labels = sequences(SEQUENCES, rng)
    test, test_labels = sequences(TEST_SEQUENCES, rng)

    net = Gestures()
    parts.train(net, torch.from_numpy(x), torch.from_numpy(labels), epochs=14)
    dense, at_once, tuned = (folder / f"lstm{end}.onnx" for end in ("", "-at-once", "-fine-tuned"))
    parts.export(net, x, dense)

    onnxprune.prune(dense, at_once, rate=RATE, calibration_data={"input": x[:512]}, effort="fast")
    onnxprune.prune(dense, tuned, rate=RATE, data={"input": x, "labels": labels}, time="15s")
    for path in (dense, at_once, tuned):
        print(f"{path.name}: accuracy {parts.accuracy(path, test, test_labels):.1%}, {parts.kilobytes(path)}")


if __name__ == "__main__":
    main()
