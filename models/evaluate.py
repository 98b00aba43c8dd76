"""The test error of an MNIST model in onnxruntime.

    python -m models.evaluate models/lenet-5.onnx                               on the 10,000 test images
    python -m models.evaluate --data models/mnist-sample models/lenet-5.onnx    on the 2,000 of the sample

The error is the fraction of images with a wrong class.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import onnxruntime as ort

from models import idx
from models.mnist import DEFAULT_FOLDER
from onnxprune.errors import DataError

BATCH = 1_000


def count_errors(model: Path, images: np.ndarray, labels: np.ndarray) -> int:
    """The number of images, (N, 28, 28) of bytes, that the model classifies wrongly."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape[1:]
    errors = 0
    for start in range(0, len(images), BATCH):
        pixels = images[start : start + BATCH].astype(np.float32) / np.float32(255)
        (logits,) = session.run(["logits"], {"input": pixels.reshape(-1, *shape)})
        errors += int((logits.argmax(axis=1) != labels[start : start + BATCH]).sum())
    return errors


@click.command()
@click.argument(
    "models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=DEFAULT_FOLDER,
    help="Folder with MNIST's test images and labels.  [default: .mnist]",
)
def main(models: tuple[Path, ...], data: Path) -> None:
    """Print the test error of each of MODELS."""
    try:
        images, labels = idx.read_split(data, "t10k")
    except DataError as error:
        raise click.ClickException(str(error)) from error
    for model in models:
        errors = count_errors(model, images, labels)
        click.echo(f"{model}: {errors} of {len(labels)} wrong, test error {errors / len(labels):.2%}")


if __name__ == "__main__":
    main()
