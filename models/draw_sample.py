"""Draws models/mnist-sample from MNIST: 6,000 training and 2,000 test images, at random, seeded.

    python -m models.draw_sample

The images of a split are drawn without regard to their class.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from models import idx
from models.mnist import DEFAULT_FOLDER

SIZES = {"train": 6_000, "t10k": 2_000}
SEED = 2015
HERE = Path(__file__).parent


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=DEFAULT_FOLDER,
    help="Folder with MNIST.  [default: .mnist]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=HERE / "mnist-sample",
    help="Folder to write to.  [default: models/mnist-sample]",
)
def main(data: Path, out: Path) -> None:
    """Draw the MNIST sample; the same MNIST gives the same bytes."""
    out.mkdir(parents=True, exist_ok=True)
    for split, size in SIZES.items():
        images, labels = idx.read_split(data, split)
        # RandomState, not default_rng: numpy guarantees that its stream never changes.
        drawn = np.random.RandomState(SEED).permutation(len(labels))[:size]
        idx.write_gz(out / f"{split}-images-idx3-ubyte.gz", images[drawn])
        idx.write_gz(out / f"{split}-labels-idx1-ubyte.gz", labels[drawn])


if __name__ == "__main__":
    main()
