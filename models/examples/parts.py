"""What the examples share: a short training, the export, a session, and where the files go."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.exporting import export_on

BATCH = 64
LEARNING_RATE = 2e-3


def work_folder() -> Path:
    """The folder that is named on the command line, else build/examples; made if it is not there."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train(
    net: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    epochs: int,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> None:
    """Train `net` in place by AdamW at one cycle of the learning rate; it is left in eval mode.

    inputs: (N, ...); targets: (N, ...), as `loss` takes them.
    """
    updates = epochs * -(-len(inputs) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, updates)
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            loss(net(inputs[batch]), targets[batch]).backward()
            optimizer.step()
            schedule.step()
    net.eval()


def export(net: nn.Module, inputs: np.ndarray, path: Path, output: str = "logits") -> None:
    """Write `net` as ONNX for batches of any size; two of `inputs` show their shape and type."""
    with warnings.catch_warnings(action="ignore"):  # torch's own, about its exporter
        export_on(net, torch.from_numpy(inputs[:2]), path, output)


def run(path: Path, inputs: np.ndarray) -> np.ndarray:
    """The first output of a model file in stock onnxruntime, which reads pruned files as any other."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]  # a number where the file has fixed shapes, else a name
    size = batch if isinstance(batch, int) else len(inputs)
    starts = range(0, len(inputs), size)
    return np.concatenate([session.run(None, {"input": inputs[start : start + size]})[0] for start in starts])


def accuracy(path: Path, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of inputs (N, ...) whose class by a model file is the label; labels: (N,) integers."""
    return float((run(path, inputs).argmax(1) == labels).mean())


def kilobytes(path: Path) -> str:
    return f"{path.stat().st_size / 1000:,.0f} kB"
