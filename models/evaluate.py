"""The test error of a model in onnxruntime, on MNIST or CIFAR-10.

    python -m models.evaluate models/lenet-5.onnx                               on the 10,000 test images of MNIST
    python -m models.evaluate --data models/mnist-sample models/lenet-5.onnx    on the 2,000 of the sample
    python -m models.evaluate --data .cifar10 models/resnet-20.onnx             on the 10,000 of CIFAR-10

The error is the fraction of images with a wrong class.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort

from models import cifar10, idx
from models.mnist import DEFAULT_FOLDER
from onnxprune.errors import DataError

BATCH = 1_000


def scaled(images: np.ndarray) -> np.ndarray:
    """MNIST's images, bytes, as float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def count_errors(
    model: Path,
    images: np.ndarray,
    labels: np.ndarray,
    inputs: Callable[[np.ndarray], np.ndarray] = scaled,
) -> int:
    """The number of images (N, ...), bytes, that the model classifies wrongly; `inputs` makes its input of them.

    Raises:
        DataError: the model takes samples of another size.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape[1:]
    if np.prod(shape) != np.prod(images.shape[1:]):
        raise DataError(f"{model} takes {shape} and not images {list(images.shape[1:])}: give their --data")
    errors = 0
    for start in range(0, len(images), BATCH):
        pixels = inputs(images[start : start + BATCH])
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
    help="Folder with the test images and labels of MNIST or CIFAR-10.  [default: .mnist]",
)
def main(models: tuple[Path, ...], data: Path) -> None:
    """Print the test error of each of MODELS."""
    # What is missing is named by the data set that the folder's name says.
    of_cifar10 = (data / "test.npz").exists() or data.name == cifar10.DEFAULT_FOLDER.name
    try:
        if of_cifar10:
            (images, labels), inputs = cifar10.read_split(data, "test"), cifar10.normalized
        else:
            (images, labels), inputs = idx.read_split(data, "t10k"), scaled
        for model in models:
            errors = count_errors(model, images, labels, inputs)
            click.echo(f"{model}: {errors} of {len(labels)} wrong, test error {errors / len(labels):.2%}")
    except DataError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
