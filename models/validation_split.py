"""Writes the validation and the training images of a network of train_lenets.py as IDX files.

    python -m models.validation_split lenet-5 build/lenet-5

For --validation-data, use images that the network was not trained on: its error on training images is too low. The
split is that of the training, from the same seed.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from models import idx
from models.mnist import DEFAULT_FOLDER
from models.train_lenets import RECIPES, SEED, VALIDATION_IMAGES


@click.command()
@click.argument("name", type=click.Choice(list(RECIPES)))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=DEFAULT_FOLDER,
    help="Folder with MNIST.  [default: .mnist]",
)
def main(name: str, folder: Path, data: Path) -> None:
    """Write FOLDER/validation-... and FOLDER/shown-..., images and labels, of the network NAME."""
    images, labels = idx.read_split(data, "train")
    torch.manual_seed(SEED)
    # The initialization of the network uses the same random stream.
    RECIPES[name].net()
    order = torch.randperm(len(labels)).numpy()
    folder.mkdir(parents=True, exist_ok=True)
    for part, places in (("validation", order[:VALIDATION_IMAGES]), ("shown", order[VALIDATION_IMAGES:])):
        idx.write_gz(folder / f"{part}-images-idx3-ubyte.gz", images[places])
        idx.write_gz(folder / f"{part}-labels-idx1-ubyte.gz", labels[places])


if __name__ == "__main__":
    main()
