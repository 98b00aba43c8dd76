"""The validation images are those that the network was not trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from models import idx, train_lenets, validation_split
from onnxprune.data.idx import read_idx

IMAGES, VALIDATION_IMAGES = 60, 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small MNIST of which every pixel of an image is the image's number, its label that modulo 10."""
    numbers = np.arange(IMAGES, dtype=np.uint8)
    for split in ("train", "t10k"):
        idx.write_gz(tmp_path / f"{split}-images-idx3-ubyte.gz", numbers.repeat(784).reshape(-1, 28, 28))
        idx.write_gz(tmp_path / f"{split}-labels-idx1-ubyte.gz", numbers % 10)
    return tmp_path


@pytest.mark.parametrize("name", list(train_lenets.RECIPES))
def test_validation_images_are_those_not_trained_on(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: set[int] = set()
    shift = train_lenets.shifted

    def seen(images, most):
        shown.update((images[:, 14, 14] * 255).round().int().tolist())
        return shift(images, most)

    for module in (train_lenets, validation_split):
        monkeypatch.setattr(module, "VALIDATION_IMAGES", VALIDATION_IMAGES)
    recipe = replace(train_lenets.RECIPES[name], epochs=1)
    monkeypatch.setitem(train_lenets.RECIPES, name, recipe)
    monkeypatch.setattr(train_lenets, "THREADS", torch.get_num_threads())
    monkeypatch.setattr(train_lenets, "shifted", seen)
    monkeypatch.setattr(train_lenets, "export", lambda net, shape, path: None)
    monkeypatch.setattr(train_lenets, "count_errors", lambda path, images, labels: 0)
    for command, words in (
        (train_lenets.main, [name, "--data", folder, "--out", folder]),
        (validation_split.main, [name, folder / "split", "--data", folder]),
    ):
        result = CliRunner().invoke(command, list(map(str, words)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
    images, labels = (
        {part: read_idx(folder / f"split/{part}-{kind}-ubyte.gz") for part in ("validation", "shown")}
        for kind in ("images-idx3", "labels-idx1")
    )
    numbers = {part: array[:, 0, 0] for part, array in images.items()}
    assert set(numbers["shown"].tolist()) == shown and len(shown) == IMAGES - VALIDATION_IMAGES
    assert set(numbers["validation"].tolist()) == set(range(IMAGES)) - shown
    for part in numbers:
        np.testing.assert_array_equal(labels[part], numbers[part] % 10)
