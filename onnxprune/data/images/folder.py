"""Images in folders: a sub-folder for each class, a table of labels beside them, or no labels."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from onnxprune.data.dataset import LABELS
from onnxprune.data.images.augment import Augmentation, augment
from onnxprune.data.images.files import EXTENSIONS, check_images, entries, is_image, walk
from onnxprune.data.images.geometry import Size
from onnxprune.data.images.inputs import check_takes_images, image_spec
from onnxprune.data.images.transforms import Transform
from onnxprune.data.labels import class_count, class_note, read_labels
from onnxprune.data.ragged import as_rows, by_shape
from onnxprune.data.request import Request
from onnxprune.data.source import Arrays, Source
from onnxprune.errors import DataError, first_line, some
from onnxprune.system.packages import require_package

TABLE = "labels.csv"
FILE_COLUMNS = ("file", "filename", "image", "path")
LABEL_COLUMNS = ("label", "class")
# Files of data that are given themselves, and not their folder.
OTHER_DATA = (".npz", ".csv", ".tsv", ".parquet", ".pq", ".yaml", ".yml")
# Folders of the parts of a data set, which are not classes.
PARTS = {"train", "training", "val", "valid", "validation", "test", "testing", "eval"}

Found = tuple[list[str], np.ndarray | None, Sequence[str], tuple[str, ...]]
"""Image files, labels, names of the classes, and notes."""


class ImageSource(Source):
    """Image files, decoded when they are read, and class numbers or targets of them.

    `labels`: (n,), in the files' order; None: there are none. `classes`: how many outputs the class numbers need; None:
    no classes. `class_names`: by number, where they have names. `notes`: for the summary of a job.
    """

    costly = True

    def __init__(
        self,
        files: Sequence[str],
        transform: Transform,
        name: str,
        labels: np.ndarray | None = None,
        class_names: Sequence[str] = (),
        notes: Sequence[str] = (),
    ):
        self.files = tuple(files)
        self.transform = transform
        self.name = name
        self.labels = labels
        self.class_names = tuple(class_names)
        self.classes = class_count(labels, self.class_names)
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: np.ndarray) -> Arrays:
        images, labels = self._pixels(index)
        return {self.transform.input: by_shape(self.transform.values, images), **labels}

    def read_alone(self, names: Collection[str], index: np.ndarray) -> Arrays | None:
        return None if self.labels is None else {LABELS: self.labels[index]}

    def read_augmented(
        self, index: np.ndarray, augmentation: Augmentation, seeds: Sequence[int] | np.ndarray
    ) -> Arrays:
        """The samples with these numbers, each changed at random by its seed before its values are scaled.

        Raises:
            DataError: one cannot be read, or the augmentation does not fit.
        """
        images, labels = self._pixels(index)
        images, labels = augment(augmentation, images, seeds, labels)
        return {self.transform.input: by_shape(self.transform.values, images), **labels}

    def _pixels(self, index: np.ndarray) -> tuple[np.ndarray, Arrays]:
        """Images (n, height, width, channels) after the geometry, uint8, ragged where sizes differ, and labels."""
        pictures, sizes = zip(
            *(read_image(self.files[number], self.transform) for number in index), strict=True
        )
        return as_rows(pictures), self._labels(index, sizes)

    def _labels(self, index: np.ndarray, sizes: Sequence[Size]) -> Arrays:
        """The labels of samples whose images have these sizes before the geometry."""
        return {} if self.labels is None else {LABELS: self.labels[index]}


def is_image_folder(text: str) -> bool:
    """Whether a text names a folder, which is read as one of images."""
    return os.path.isdir(text)


def read_image_folder(text: str, request: Request) -> ImageSource:
    """The images of a folder, with labels from its sub-folders' names or from the labels.csv in it, or without.

    Raises:
        DataError: there are no images, too many are broken, or labels are missing.
        SettingError: the transform does not fit the input.
        MissingPackageError: pillow is not installed.
    """
    require_package("PIL", "reading images")
    folder = Path(text)
    spec = image_spec(request.row_specs, text)
    # What a folder has comes first: there may be no images.
    files, labels, names, notes = _from_table(folder) if (folder / TABLE).is_file() else _from_folders(folder)
    check_takes_images(spec, text)
    transform = Transform.parse(request.transform, spec) if request.transform else Transform.default(spec)
    kept, broken = check_images(files, transform, text)
    labels = None if labels is None else labels[kept]
    return ImageSource([files[number] for number in kept], transform, text, labels, names, (*notes, *broken))


def read_image(file: str, transform: Transform) -> tuple[np.ndarray, Size]:
    """The pixels of an image file after the geometry, and its height and width before.

    Raises:
        DataError: it cannot be decoded, or does not fit the transform.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return transform.geometry(image), (image.height, image.width)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except Exception as error:
        # Decoders raise errors of all kinds on broken files.
        raise DataError(f"{file} cannot be decoded ({first_line(error)}): replace it or remove it") from None


def _from_folders(folder: Path) -> Found:
    inside = entries(folder)
    classes = {entry.name: list(walk(entry.path)) for entry in inside if entry.is_dir()}
    flat = [entry.path for entry in inside if is_image(entry)]
    full = [name for name, files in classes.items() if files]
    if not flat and not full:
        raise DataError(
            f"{folder} has no images: it was searched for {', '.join(EXTENSIONS)}{_instead(folder, inside)}"
        )
    if not full:
        return flat, None, (), ()
    if flat:
        raise DataError(
            f"{folder} has images beside the folder {full[0]} with images: put each image into the folder of its class"
        )
    if {name.lower() for name in classes} <= PARTS:
        raise DataError(
            f"{folder} has the parts of a data set ({', '.join(classes)}): give one of them, such as {folder / full[0]}"
        )
    empty = [name for name in classes if not classes[name]]
    other = next((name for name in empty if entries(folder / name)), None)
    if other is not None:
        raise DataError(
            f"{folder / other} has other files but no images: move it away, or add the images of its class"
        )
    numbers, notes = _class_numbers(list(classes), str(folder))
    counts = [len(files) for files in classes.values()]
    labels = np.repeat(np.array([numbers[name] for name in classes], np.int64), counts)
    if empty:
        notes.append(f"{len(empty)} classes of {folder} have no images: {some(empty)}.")
    named = () if all(map(str.isdecimal, classes)) else tuple(classes)
    return [file for files in classes.values() for file in files], labels, named, tuple(notes)


def _instead(folder: Path, inside: Sequence[os.DirEntry[str]]) -> str:
    """What a folder without images has that can be given."""
    if not inside:
        return "; it is empty: check its path"
    file = next((entry.name for entry in inside if Path(entry.name).suffix.lower() in OTHER_DATA), None)
    if file is None:
        return f"; it has {some([entry.name for entry in inside])}: give images, or a folder of .npy files"
    return f"; it has {file}: give {folder / file}"


def _class_numbers(names: Sequence[str], name: str) -> tuple[dict[str, int], list[str]]:
    """Numbers of classes, those that the sorted names are or their places, and a note that says which."""
    if not all(map(str.isdecimal, names)):
        return {text: place for place, text in enumerate(names)}, [class_note(names, name)]
    numbers = {text: int(text) for text in names}
    number, count = Counter(numbers.values()).most_common(1)[0]
    if count > 1:
        raise DataError(f"{name} has several folders for the class {number}: join them")
    return numbers, [f"The classes of {name} are the numbers that its folders are named by."]


def _from_table(folder: Path) -> Found:
    table = folder / TABLE
    rows = [(os.path.normpath(folder / file), label) for file, label in _rows(table)]
    file, count = Counter(file for file, _ in rows).most_common(1)[0]
    if count > 1:
        raise DataError(f"{table} names {file} {count} times: give one row for each image")
    labels = dict(rows)
    missing = next((file for file in labels if not os.path.isfile(file)), None)
    if missing is not None:
        raise DataError(f"{table} names {missing}, which is not there: remove the row or add the file")
    unlabeled = sorted({os.path.normpath(file) for file in walk(folder)} - set(labels))
    if unlabeled:
        raise DataError(
            f"{table} has labels for only some of the images, none for {len(unlabeled)} such as {unlabeled[0]}: add "
            "their rows"
        )
    files = sorted(labels)
    values, names = read_labels([labels[file] for file in files])
    return files, values, names, (class_note(names, str(table)),) if names else ()


def _rows(table: Path) -> list[tuple[str, str]]:
    """Files and labels of a labels.csv."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            header, *rows = [row for row in csv.reader(stream) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read ({first_line(error)}): write it as CSV in UTF-8") from None
    columns = [name.strip().lower() for name in header]
    places = []
    for kind, names in (("files", FILE_COLUMNS), ("labels", LABEL_COLUMNS)):
        place = next((columns.index(name) for name in names if name in columns), None)
        if place is None:
            raise DataError(
                f"{table} has the columns {', '.join(header) or '(none)'}: name that of the {kind} {' or '.join(names)}"
            )
        places.append(place)
    if not rows:
        raise DataError(f"{table} has no rows: add one for each image")
    for number, row in enumerate(rows, 1):
        if len(row) <= max(places) or not all(row[place].strip() for place in places):
            raise DataError(f"row {number} of {table} has no file or no label: fill it in")
    return [(row[places[0]].strip(), row[places[1]].strip()) for row in rows]
