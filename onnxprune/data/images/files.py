"""Image files in folders: which there are, and whether each is whole, from its header and its end alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from onnxprune.data.images.geometry import Size
from onnxprune.data.images.transforms import Transform
from onnxprune.errors import DataError, first_line, some

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".tga"),
)
# What archives and servers leave behind.
LEFTOVERS = ("__MACOSX", "@eaDir")
# Beyond this share of broken images something else is wrong, such as a download that was cut short.
BROKEN_SHARE = 0.01
# Where the end marker of a format is looked for, in bytes from the end; some programs write a little after it.
END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
TAIL = 4096
# EXIF: how a camera was held, and the values with height and width swapped.
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
# So many are named in a note.
NAMED = 3


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, without hidden files and leftovers, by name.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            visible = [
                entry for entry in found if not entry.name.startswith(".") and entry.name not in LEFTOVERS
            ]
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed ({error.strerror}): check its path and permissions"
        ) from None
    return sorted(visible, key=lambda entry: entry.name)


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file with the extension of an image."""
    return os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file()


def walk(folder: str | Path, above: tuple[str, ...] = ()) -> Iterator[str]:
    """The image files in a folder and the folders in it, by name; a link to a folder above is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in entries(folder):
        if entry.is_dir():
            yield from walk(entry.path, (*above, real))
        elif is_image(entry):
            yield entry.path


def check_images(files: Sequence[str], transform: Transform, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The numbers of the files that are whole images, and notes; only headers and ends are read.

    Raises:
        DataError: too many are broken, or one does not get the input's size.
    """
    kept: list[int] = []
    broken: list[str] = []
    sizes: set[Size] = set()
    for number, file in enumerate(files):
        size = image_size(file)
        if size is None:
            broken.append(file)
            continue
        kept.append(number)
        try:
            sizes.add(transform.output_size(size))
        except DataError as error:
            raise DataError(f"{file}: {error}") from None
    if len(broken) > BROKEN_SHARE * len(files):
        raise DataError(
            f"{len(broken)} of {len(files)} images in {name} are broken or cut short, first {broken[0]}: replace them "
            "or remove them"
        )
    named = some([os.path.basename(file) for file in broken])
    notes = [f"{len(broken)} broken images of {name} were skipped: {named}."] if broken else []
    if len(sizes) > 1:
        notes.append(
            f"The images of {name} are of {len(sizes)} sizes and stay so, in runs of one size each; --transform with "
            "resize and crop, or letterbox, makes them one."
        )
    return np.array(kept, np.int64), tuple(notes)


def image_size(file: str) -> Size | None:
    """Height and width of an image file, upright, from its header; None if it is broken or cut short.

    Raises:
        DataError: it has more pixels than PIL decodes.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            marker = END_MARKERS.get(image.format or "")
            if marker is not None and not _ends_with(file, marker):
                # It may have a long trailer: decoding tells.
                image.load()
            turned = "exif" in image.info and image.getexif().get(ORIENTATION) in TURNED
            return image.size if turned else (image.height, image.width)
    except Image.DecompressionBombError as error:
        raise DataError(f"{file} is too large ({first_line(error)}): give a smaller one") from None
    except Exception:
        # Decoders raise errors of all kinds on broken files.
        return None


def _ends_with(file: str, marker: bytes) -> bool:
    with open(file, "rb") as stream:
        length = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, length - TAIL))
        return marker in stream.read()
