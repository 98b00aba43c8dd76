"""Data sets of boxes as Ultralytics has them."""

import pickle

import numpy as np
import pytest
from PIL import Image

from onnxprune.data.images.augment import Augmentation
from onnxprune.data.images.yolo import is_yolo, label_file, read_yolo
from onnxprune.data.request import Request
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError, SettingError

SPEC = InputSpec("images", np.dtype(np.float32), (1, 3, 64, 64))
YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def data_set(folder, yaml=YAML, labels=None, size=(100, 50)):
    """Images of two parts; `labels`: texts by file, for those of `train`."""
    for part in ("train", "val"):
        (folder / "images" / part).mkdir(parents=True)
        (folder / "labels" / part).mkdir(parents=True)
    for name in ("train/a.jpg", "train/b.png", "val/c.png"):
        Image.new("RGB", size, (200, 100, 50)).save(folder / "images" / name)
    texts = {"train/a": "0 0.5 0.5 0.2 0.4\n1 0.25 0.25 0.5 0.5\n", "val/c": "1 0.5 0.5 1 1\n"}
    for name, text in (texts | (labels or {})).items():
        if text is not None:
            (folder / "labels" / f"{name}.txt").write_text(text)
    (folder / "data.yaml").write_text(yaml)
    return str(folder / "data.yaml")


def opened(text, split="train", transform=None, spec=SPEC):
    return read_yolo(text, Request([spec], transform, split=split))


def everything(source):
    return source.read(np.arange(len(source)))


def test_boxes_move_into_the_letterbox_and_are_padded_to_the_most(tmp_path):
    source = opened(data_set(tmp_path))
    arrays = everything(source)
    expected = [[[0, 0.5, 0.5, 0.2, 0.2], [1, 0.25, 0.375, 0.5, 0.25]], [[-1, 0, 0, 0, 0]] * 2]
    np.testing.assert_allclose(arrays["labels"], expected, atol=1e-6)
    assert arrays["labels"].dtype == np.float32 and arrays["images"].shape == (2, 3, 64, 64)
    np.testing.assert_allclose(arrays["images"][1, :, 32, 32], np.array([200, 100, 50]) / 255, rtol=1e-6)
    np.testing.assert_allclose(arrays["images"][1, :, 0, 0], 114 / 255, rtol=1e-6)
    assert source.class_names == ("cat", "dog") and source.classes == 2 and source.costly
    assert any("1 of 2 images of train" in note and "b.png" in note for note in source.notes)
    assert (everything(pickle.loads(pickle.dumps(source)))["labels"] == arrays["labels"]).all()


def test_the_part_is_that_of_the_text_or_of_the_request(tmp_path):
    path = data_set(tmp_path)
    assert is_yolo(path) and is_yolo(f"{path}:val") and not is_yolo("loading:val")
    for source in (opened(path, "val"), opened(f"{path}:val")):
        np.testing.assert_allclose(everything(source)["labels"], [[[1, 0.5, 0.5, 1, 0.5]]], atol=1e-6)


ROOTS = {
    "a root beside the YAML file": "path: set\ntrain: images/train\nval: images/val\nnames: {0: a, 1: b}",
    "the root of a list": "path: .\ntrain: [set/images/train]\nval: set/images/val\nnames: [a, b]",
    "one folder too high": "train: ../set/images/train\nval: ../set/images/val\nnames: [a, b]",
    "a list of files": "train: list.txt\nval: set/images/val\nnc: 2",
}


@pytest.mark.parametrize("yaml", ROOTS.values(), ids=ROOTS.keys())
def test_images_are_found_from_any_of_the_roots(tmp_path, yaml):
    data_set(tmp_path / "set")
    (tmp_path / "list.txt").write_text("./set/images/train/a.jpg\n\nset/images/train/b.png\n")
    (tmp_path / "my.yml").write_text(yaml)
    source = opened(str(tmp_path / "my.yml"))
    assert len(source) == 2 and len(source.class_names) == 2 and source.most == 2


def test_only_the_last_folder_of_images_becomes_labels(tmp_path):
    assert label_file("/images/x/images/a.b.jpg") == "/images/x/labels/a.b.txt"
    assert label_file("/images_old/a.jpg") == "/images_old/a.txt"
    assert label_file("images/a.jpg").endswith("labels/a.txt")


def test_a_polygon_becomes_its_box_and_a_line_given_twice_counts_once(tmp_path):
    lines = "0 0.2 0.2 0.6 0.4 0.4 0.8\n1 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n"
    source = opened(data_set(tmp_path, labels={"train/a": lines}, size=(64, 64)))
    np.testing.assert_allclose(
        everything(source)["labels"][0], [[0, 0.4, 0.5, 0.4, 0.6], [1, 0.5, 0.5, 0.5, 0.5]], atol=1e-6
    )


def test_keypoints_are_left_out(tmp_path):
    yaml = YAML + "kpt_shape: [2, 3]\n"
    source = opened(
        data_set(tmp_path, yaml, {"train/a": "0 0.5 0.5 0.2 0.4 0.5 0.5 2 0.4 0.4 1\n"}, size=(64, 64))
    )
    np.testing.assert_allclose(everything(source)["labels"][0], [[0, 0.5, 0.5, 0.2, 0.4]], atol=1e-6)


def test_boxes_follow_the_augmentation(tmp_path):
    source = opened(data_set(tmp_path))
    arrays = source.read_augmented(np.array([0]), Augmentation.parse("flip:1"), [0])
    np.testing.assert_allclose(
        arrays["labels"], [[[0, 0.5, 0.5, 0.2, 0.2], [1, 0.75, 0.375, 0.5, 0.25]]], atol=1e-6
    )
    assert (arrays["images"] == everything(source)["images"][:1, ..., ::-1]).all()


WRONG_LINES = {
    "words": "0 a b c d",
    "too few": "0 0.5 0.5 0.2",
    "an even number of places": "0 0.1 0.1 0.2 0.2 0.3",
    "no such class": "2 0.5 0.5 0.1 0.1",
    "half a class": "0.5 0.5 0.5 0.1 0.1",
    "no class": "nan 0.5 0.5 0.1 0.1",
    "pixels": "0 50 20 10 10",
    "below 0": "0 0.5 0.5 -0.1 0.1",
    "not a number": "0 nan 0.5 0.1 0.1",
}


@pytest.mark.parametrize("line", WRONG_LINES.values(), ids=WRONG_LINES.keys())
def test_a_wrong_line_is_named(tmp_path, line):
    path = data_set(tmp_path, labels={"train/a": f"0 0.5 0.5 0.2 0.2\n\n{line}\n"})
    with pytest.raises(DataError, match=r"labels/train/a\.txt:3 (is|has) ") as caught:
        opened(path)
    assert "\n" not in str(caught.value)


WRONG_FILES = {
    "no mapping": ("- train", "is not the YAML file of a data set"),
    "no YAML": ("train: [", "cannot be read as YAML"),
    "no names": ("train: images/train", "has no names of classes"),
    "names from 1": ("train: images/train\nnames: {1: a, 2: b}", "other numbers than 0 to 1"),
    "no such part": ("val: images/val\nnames: [a]", r"has no part train \(it has val\)"),
    "no such folder": ("train: pictures\nnames: [a]", "has train: pictures, but there is no .*pictures"),
    "a part that is a number": ("train: 3\nnames: [a]", "has train: 3: give a folder"),
    "a list that names no file": ("train: data.yaml\nnames: [a]", "data.yaml:1 names .*, which is not there"),
    "no images": ("train: labels\nnames: [a]", "train of .* has no images"),
}


@pytest.mark.parametrize(("yaml", "words"), WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_files_that_cannot_be_read_are_refused_in_one_line(tmp_path, yaml, words):
    path = data_set(tmp_path, yaml)
    with pytest.raises(DataError, match=words) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


def test_a_set_without_any_labels_and_an_input_of_any_size_are_refused(tmp_path):
    path = data_set(tmp_path, labels={"train/a": None})
    with pytest.raises(DataError, match=r"no image of train .* should have them in .*labels/train/a\.txt"):
        opened(path)
    with pytest.raises(SettingError, match="letterbox:640"):
        opened(path, spec=InputSpec("images", np.dtype(np.float32), (1, 3, "h", "w")))
    with pytest.raises(DataError, match="there is no data file"):
        opened(str(tmp_path / "other.yaml"))
