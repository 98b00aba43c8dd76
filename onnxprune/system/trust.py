"""What the user of a command trusts: folders that links of a model may lead to, and libraries of custom operators.

Each command says so anew, so that what one of them trusts is no other's. Worker processes are given what their owner
trusts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxprune.errors import SettingError

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Trust:
    """Folders of --allow-links, without links in their paths, and libraries of --custom-ops."""

    folders: tuple[Path, ...] = ()
    libraries: tuple[Path, ...] = ()


_trusted = Trust()


def trust(allow_links: Paths = (), custom_ops: Paths = ()) -> None:
    """Trust these folders and libraries, and no others, until the next call in this process.

    Raises:
        SettingError: there is no such folder or library.
    """
    global _trusted
    folders, libraries = _paths(allow_links), _paths(custom_ops)
    for folder in folders:
        if not folder.is_dir():
            raise SettingError(
                f"--allow-links {folder}: there is no such folder; give one that links may lead to"
            )
    for library in libraries:
        if not library.is_file():
            raise SettingError(
                f"--custom-ops {library}: there is no such file; give a shared library (.so, .dll)"
            )
    _trusted = Trust(tuple(folder.resolve() for folder in folders), libraries)


def trusted() -> Trust:
    """What the last `trust` of this process said."""
    return _trusted


def texts(given: Paths) -> tuple[str, ...]:
    """One path or several, as texts."""
    return tuple(os.fspath(path) for path in ((given,) if isinstance(given, str | os.PathLike) else given))


def _paths(given: Paths) -> tuple[Path, ...]:
    # A worker may have another current folder.
    return tuple(Path(os.path.abspath(path)) for path in texts(given))
