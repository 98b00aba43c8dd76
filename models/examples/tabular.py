"""A table: an MLP of 20 columns, pruned from a CSV file, scored by F1.

    python -m models.examples.tabular [FOLDER]

The table is generated: rare positives (a fifth), which depend on 6 of the 20 columns in a way that no line separates.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import onnxprune
from models.examples import parts

COLUMNS, INFORMATIVE, ROWS, TEST_ROWS = 20, 6, 6_000, 2_000
POSITIVES = 0.2
RATE = 0.9


def table(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Columns (rows, 20) float32, and labels (rows,) of 0 and 1: which rows score highest."""
    x = rng.standard_normal((rows, COLUMNS)).astype(np.float32)
    a, b, c, d, e, f = x[:, :INFORMATIVE].T
    score = a * b + np.sin(2 * c) + np.abs(d) - e * f
    return x, (score > np.quantile(score, 1 - POSITIVES)).astype(np.int64)


def write_csv(path: Path, x: np.ndarray, labels: np.ndarray) -> None:
    """One column for each feature, in the order of the input, and `label`."""
    header = ",".join([f"f{index}" for index in range(COLUMNS)] + ["label"])
    np.savetxt(path, np.column_stack([x, labels]), "%.6g", ",", header=header, comments="")


def main() -> None:
    torch.manual_seed(0)
    folder, rng = parts.work_folder(), np.random.default_rng(0)
    x, labels = table(ROWS + TEST_ROWS, rng)
    write_csv(folder / "train.csv", x[:ROWS], labels[:ROWS])
    write_csv(folder / "test.csv", x[ROWS:], labels[ROWS:])

    net = nn.Sequential(nn.Linear(COLUMNS, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    parts.train(net, torch.from_numpy(x[:ROWS]), torch.from_numpy(labels[:ROWS]), epochs=15)
    dense, pruned = folder / "tabular.onnx", folder / "tabular-pruned.onnx"
    parts.export(net, x, dense)

    report = onnxprune.prune(
        dense,
        pruned,
        rate=RATE,
        time="15s",
        data=folder / "train.csv",
        eval_data=folder / "test.csv",
        metric="f1",
    ).report
    assert report.evaluation is not None
    before, after = (report.evaluation[which]["value"] for which in ("baseline", "pruned"))
    print(f"F1 {before:.3f} -> {after:.3f}, {parts.kilobytes(dense)} -> {parts.kilobytes(pruned)}")


if __name__ == "__main__":
    main()
