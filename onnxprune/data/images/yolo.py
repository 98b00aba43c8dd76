"""Data sets of boxes as Ultralytics' tools have them: a YAML file, images, and a text file of labels for each image.

The YAML file has `path` (the root), `train`, `val` and `test` (a folder of images, several of them, or a .txt file
with a list), and `names` of the classes. The labels of `images/a.jpg` are in `labels/a.txt`, a line for each object:
`class cx cy w h`, relative to the image, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon, which becomes its box. An image
without such a file has no objects. Source: docs.ultralytics.com/datasets/detect
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data.dataset import LABELS
from onnxprune.data.images.files import EXTENSIONS, check_images, walk
from onnxprune.data.images.folder import ImageSource
from onnxprune.data.images.geometry import Size, boxes_of
from onnxprune.data.images.inputs import image_spec
from onnxprune.data.images.transforms import Transform
from onnxprune.data.request import Request
from onnxprune.data.source import Arrays
from onnxprune.errors import DataError, first_line, some
from onnxprune.system.packages import require_package

SUFFIXES = (".yaml", ".yml")
SPLITS = ("train", "val", "test")
# Class, center x, center y, width, height; a polygon has at least three corners.
BOX, LEAST_POLYGON = 5, 7
NO_BOX = np.array([-1, 0, 0, 0, 0], np.float32)
# What programs write for 1 after rounding.
LARGEST = 1.01


@dataclass(frozen=True)
class YoloFile:
    """What a YAML file of a data set says: its parts (lists of paths), the roots that they may start at, and classes.

    `points`: a line has keypoints after the box.
    """

    name: str
    roots: tuple[Path, ...]
    parts: dict[str, list[str]]
    names: tuple[str, ...]
    points: bool


class BoxSource(ImageSource):
    """Images with boxes: labels (n, M, 5), float32, as class, cx, cy, w, h, relative to the input's image.

    M is the largest number of boxes of an image; the others have class -1 in the rows that are left.
    """

    def __init__(
        self,
        files: Sequence[str],
        boxes: Sequence[np.ndarray],
        transform: Transform,
        name: str,
        class_names: Sequence[str],
        notes: Sequence[str] = (),
    ):
        super().__init__(files, transform, name, None, class_names, notes)
        self.classes = len(class_names)
        self.boxes = np.concatenate([*boxes, np.zeros((0, BOX), np.float32)])
        self.starts = np.cumsum([0, *map(len, boxes)])
        self.most = max(1, *map(len, boxes))

    def _labels(self, index: np.ndarray, sizes: Sequence[Size]) -> Arrays:
        labels = np.tile(NO_BOX, (len(index), self.most, 1))
        for row, (number, size) in enumerate(zip(index, sizes, strict=True)):
            boxes = self.boxes[self.starts[number] : self.starts[number + 1]]
            labels[row, : len(boxes)] = self.transform.boxes(boxes, size)
        return {LABELS: labels}


def is_yolo(text: str) -> bool:
    """Whether a text names the YAML file of a data set, with the name of a part or not: data.yaml, data.yaml:val."""
    return _split_name(text)[0].lower().endswith(SUFFIXES)


def read_yolo(text: str, request: Request) -> BoxSource:
    """A part of a data set: that of the text (data.yaml:val), or the one that the request is for.

    Raises:
        DataError: the YAML file, an image or a line of labels cannot be read.
        SettingError: the transform does not fit the input.
        MissingPackageError: pillow is not installed.
    """
    require_package("PIL", "reading images")
    name, part = _split_name(text)
    data = read_yaml(Path(name))
    spec = image_spec(request.row_specs, name)
    transform = Transform.parse(request.transform or "yolo", spec)
    part = part or request.split
    files = _images(data, part)
    kept, notes = check_images(files, transform, f"{part} of {name}")
    files = [files[number] for number in kept]
    labels = [label_file(file) for file in files]
    unlabeled = [file for file, label in zip(files, labels, strict=True) if not os.path.isfile(label)]
    if len(unlabeled) == len(files):
        raise DataError(
            f"no image of {part} of {name} has labels: the first, {files[0]}, should have them in {labels[0]}"
        )
    if unlabeled:
        named = some([os.path.basename(file) for file in unlabeled])
        notes = (
            *notes,
            f"{len(unlabeled)} of {len(files)} images of {part} of {name} have no labels, thus no objects: {named}.",
        )
    boxes = [read_boxes(label, data) for label in labels]
    return BoxSource(files, boxes, transform, text, data.names, notes)


def read_yaml(path: Path) -> YoloFile:
    """The YAML file of a data set.

    Raises:
        DataError: it cannot be read, or lacks what is needed.
    """
    import yaml

    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no data file {path}: check its path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is not the YAML file of a data set: it needs train, val and names")
    names = content.get("names")
    if isinstance(names, dict):
        try:
            numbers = sorted(int(number) for number in names)
        except (TypeError, ValueError):
            numbers = []
        if numbers != list(range(len(names))):
            raise DataError(
                f"{path} has names of other numbers than 0 to {len(names) - 1}: number them from 0"
            )
        names = [names.get(number, names.get(str(number))) for number in numbers]
    if names is None and isinstance(content.get("nc"), int):
        names = [str(number) for number in range(content["nc"])]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path} has no names of classes: add names, a list")
    return YoloFile(
        str(path),
        _roots(path, content.get("path")),
        {split: _paths(path, split, content[split]) for split in SPLITS if content.get(split)},
        tuple(map(str, names)),
        "kpt_shape" in content,
    )


def label_file(image: str) -> str:
    """The file of the labels of an image: the last folder `images` becomes `labels`."""
    *folders, name = Path(image).parts
    last = max((place for place, folder in enumerate(folders) if folder == "images"), default=None)
    if last is not None:
        folders[last] = "labels"
    return str(Path(*folders, name).with_suffix(".txt"))


def read_boxes(path: str, data: YoloFile) -> np.ndarray:
    """The boxes (M, 5), float32, of a file of labels, each once; none if there is no such file.

    Raises:
        DataError: a line is not well-formed.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except FileNotFoundError:
        return np.zeros((0, BOX), np.float32)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from None
    rows = [
        _read_line(line, f"{path}:{number}", data) for number, line in enumerate(lines, 1) if line.strip()
    ]
    return np.array(list(dict.fromkeys(rows)), np.float32).reshape(-1, BOX)


def _read_line(line: str, where: str, data: YoloFile) -> tuple[float, ...]:
    try:
        numbers = [float(part) for part in line.split()]
    except ValueError:
        numbers = []
    polygon = len(numbers) >= LEAST_POLYGON and len(numbers) % 2 == 1
    if len(numbers) != BOX and not polygon and not (data.points and len(numbers) > BOX):
        raise DataError(
            f"{where} is {line.strip()[:60]!r}: write class cx cy w h, or class and a polygon x1 y1 x2 y2 ..."
        )
    kind = int(numbers[0]) if np.isfinite(numbers[0]) else -1
    if kind != numbers[0] or not 0 <= kind < len(data.names):
        raise DataError(
            f"{where} has the class {numbers[0]:g}: {data.name} names {len(data.names)} classes, from 0"
        )
    places = np.array(numbers[1:BOX] if data.points else numbers[1:])
    # Not as > and <, which let NaN pass.
    if not ((places >= 0) & (places <= LARGEST)).all():
        raise DataError(f"{where} has numbers beyond 0 to 1: divide them by the image's width and height")
    if len(numbers) == BOX or data.points:
        return tuple(numbers[:BOX])
    corners = places.reshape(-1, 2)
    box = boxes_of(np.array([float(kind)]), np.concatenate([corners.min(0), corners.max(0)])[None])
    return tuple(box[0].tolist())


def _split_name(text: str) -> tuple[str, str | None]:
    """data.yaml:val -> data.yaml, val."""
    name, colon, part = text.rpartition(":")
    return (name, part) if colon and part in SPLITS else (text, None)


def _roots(path: Path, root: Any) -> tuple[Path, ...]:
    """Where the paths of the parts may start: as Ultralytics has it, and beside the YAML file."""
    if root is not None and not isinstance(root, str):
        raise DataError(f"{path} has the path {root!r}: give the root folder of the data set")
    beside = path.parent
    return (beside / root, Path(root), beside) if root else (beside,)


def _paths(path: Path, split: str, value: Any) -> list[str]:
    paths = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in paths):
        raise DataError(f"{path} has {split}: {value!r}: give a folder, a list of folders, or a .txt file")
    return paths


def _images(data: YoloFile, part: str) -> list[str]:
    """The images of a part, in order."""
    if part not in data.parts:
        known = ", ".join(data.parts) or "none"
        raise DataError(
            f"{data.name} has no part {part} (it has {known}): add {part} to it, or give {data.name}:PART"
        )
    files: list[str] = []
    for text in data.parts[part]:
        place = _find(data, part, text)
        files += walk(place) if place.is_dir() else _listed(place)
    if not files:
        raise DataError(f"{part} of {data.name} has no images: it was searched for {', '.join(EXTENSIONS)}")
    return files


def _find(data: YoloFile, part: str, text: str) -> Path:
    # Roboflow writes ../train/images for a folder beside the YAML file.
    texts = [text, text[3:]] if text.startswith("../") else [text]
    places = [root / option for root in data.roots for option in texts]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise DataError(
            f"{data.name} has {part}: {text}, but there is no {places[0]}: correct path or {part} in it"
        )
    return found


def _listed(path: Path) -> list[str]:
    """The images of a .txt file, a line each, from its folder unless the path is whole."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of images: {first_line(error)}") from None
    files = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            file = os.path.normpath(path.parent / line.strip())
            if not os.path.isfile(file):
                raise DataError(f"{path}:{number} names {file}, which is not there: correct the list")
            files.append(file)
    return files
