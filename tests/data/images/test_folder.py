"""Folders of images: classes from sub-folders or a table, and files that are broken."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from onnxprune.data.images.augment import Augmentation
from onnxprune.data.images.folder import read_image_folder
from onnxprune.data.images.reading import read_augmented
from onnxprune.data.images.transforms import Transform
from onnxprune.data.request import Request
from onnxprune.data.sources import load_data
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError, SettingError

SPEC = InputSpec("x", np.dtype(np.float32), ("N", 3, 16, 16))


def picture(seed, height=16, width=16):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def write(path, seed=0, **size):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, **size).save(path)
    return path


def opened(folder, transform="unit", specs=(SPEC,)):
    return read_image_folder(str(folder), Request(list(specs), transform))


def everything(source):
    return source.read(np.arange(len(source)))


def test_folders_are_classes_in_the_order_of_their_names(tmp_path):
    for seed, name in enumerate(["dog/b.png", "dog/deep/a.png", "cat/a.PNG", "emu/x.bmp"]):
        write(tmp_path / name, seed)
    for name in (".DS_Store", "dog/.hidden.png", "dog/notes.txt"):
        (tmp_path / name).write_bytes(b"no image")
    source = opened(tmp_path)
    arrays = everything(source)
    expected = [np.asarray(picture(seed)).transpose(2, 0, 1) / np.float32(255) for seed in (2, 0, 1, 3)]
    np.testing.assert_allclose(arrays["x"], expected, rtol=1e-6)
    assert arrays["labels"].tolist() == [0, 1, 1, 2] and arrays["labels"].dtype == np.int64
    assert source.class_names == ("cat", "dog", "emu") and source.classes == 3 and source.costly
    assert source.read(np.array([3, 0]))["labels"].tolist() == [2, 0]
    assert "cat is 0, emu is 2" in source.notes[0]


def test_folders_named_by_numbers_are_the_classes_with_these_numbers(tmp_path):
    for name in ("0002", "0010", "0000"):
        write(tmp_path / name / "a.png")
    source = opened(tmp_path)
    assert source.labels.tolist() == [0, 2, 10] and source.classes == 11 and source.class_names == ()


def test_an_empty_folder_keeps_the_number_of_its_class(tmp_path):
    write(tmp_path / "a" / "1.png")
    write(tmp_path / "c" / "1.png")
    (tmp_path / "b").mkdir()
    source = opened(tmp_path)
    assert source.labels.tolist() == [0, 2] and any("have no images: b" in note for note in source.notes)


def test_a_folder_without_folders_has_no_labels(tmp_path):
    write(tmp_path / "b.png", 1)
    write(tmp_path / "a.png", 0)
    source = opened(tmp_path)
    assert set(everything(source)) == {"x"} and [os.path.basename(file) for file in source.files] == [
        "a.png",
        "b.png",
    ]
    assert source.labels is None and source.classes is None and len(source) == 2


TABLES = {
    "numbers": ("file,label\nb.png,7\nsub/a.png,2\n", [7, 2], np.int64, 8),
    "names": ("class,Image\nzebra,b.png\nant,sub/a.png\n", [1, 0], np.int64, 2),
    "targets": ("filename,split,label\nb.png,t,0.5\nsub/a.png,t,-1\n", [0.5, -1], np.float32, None),
    "a byte order mark": ("\ufefffile,label\nb.png,1\nsub/a.png,0\n", [1, 0], np.int64, 2),
}


@pytest.mark.parametrize(("text", "labels", "dtype", "classes"), TABLES.values(), ids=TABLES.keys())
def test_labels_come_from_the_table_beside_the_images(tmp_path, text, labels, dtype, classes):
    write(tmp_path / "b.png")
    write(tmp_path / "sub" / "a.png")
    (tmp_path / "labels.csv").write_text(text)
    source = opened(tmp_path)
    assert source.labels.tolist() == labels and source.labels.dtype == dtype and source.classes == classes


def test_photos_are_turned_upright(tmp_path):
    image = picture(3, 20, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    any_size = InputSpec("x", np.dtype(np.float32), ("N", 3, "h", "w"))
    turned = everything(opened(tmp_path, "raw", [any_size]))["x"][0]
    assert (turned.transpose(1, 2, 0) == np.rot90(np.asarray(image), -1)).all()


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "store" / "a.png")
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "linked.png").symlink_to(tmp_path / "store" / "a.png")
    (tmp_path / "set" / "cat" / "again").symlink_to(tmp_path / "set" / "cat")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "store")
    assert opened(tmp_path / "set").labels.tolist() == [0, 1]


def test_the_guess_is_taken_without_a_transform(tmp_path):
    write(tmp_path / "a.png", height=32, width=32)
    spec = InputSpec("x", np.dtype(np.float32), ("N", 3, 32, 32))
    assert opened(tmp_path, None, [spec]).transform == Transform.parse("cifar10", spec)


def test_augmentation_comes_before_the_values_are_scaled(tmp_path):
    for number in range(4):
        write(tmp_path / "cat" / f"{number}.png", number)
    source = opened(tmp_path, "imagenet")
    augmentation = Augmentation.parse("flip,color:0.3")
    arrays = source.read_augmented(np.arange(4), augmentation, [4, 5, 6, 7])
    pixels = np.stack([np.asarray(picture(seed)) for seed in range(4)])
    expected = source.transform.values(augmentation.images(pixels, [4, 5, 6, 7])[0])
    assert (arrays["x"] == expected).all() and arrays["labels"].tolist() == [0] * 4


def test_a_source_can_be_sent_to_workers(tmp_path):
    write(tmp_path / "cat" / "a.png")
    source = opened(tmp_path)
    sent = pickle.loads(pickle.dumps(source))
    assert (everything(sent)["x"] == everything(source)["x"]).all() and sent.identity() == source.identity()


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_few_broken_images_are_skipped_with_a_note(tmp_path):
    for number in range(300):
        write(tmp_path / "ab"[number % 2] / f"{number:03}.jpg", number)
    cut(tmp_path / "a" / "000.jpg")
    (tmp_path / "b" / "001.jpg").write_bytes(b"")
    source = opened(tmp_path)
    assert len(source) == 298 and source.labels.tolist() == [0] * 149 + [1] * 149
    assert any("2 broken images" in note and "000.jpg, 001.jpg" in note for note in source.notes)
    assert len(everything(source)["x"]) == 298


def test_many_broken_images_are_refused_with_the_first(tmp_path):
    for number in range(9):
        write(tmp_path / f"{number}.png", number)
    cut(tmp_path / "4.png")
    with pytest.raises(DataError, match=r"1 of 9 images in .* cut short, first .*4\.png"):
        opened(tmp_path)


def test_a_trailer_after_the_end_marker_does_no_harm(tmp_path):
    path = write(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + bytes(10_000))
    assert len(opened(tmp_path)) == 1


def test_a_file_that_breaks_later_is_named(tmp_path):
    path = write(tmp_path / "a.png")
    source = opened(tmp_path)
    cut(path)
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        everything(source)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.png cannot be decoded .*No such file"):
        everything(source)


@pytest.mark.parametrize("step", range(0, 700, 23))
def test_broken_bytes_never_end_in_another_error(tmp_path, step):
    path = write(tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[step % len(content)] ^= 0x5A
    path.write_bytes(content)
    try:
        assert everything(opened(tmp_path))["x"].shape == (1, 3, 16, 16)
    except DataError as error:
        assert "a.png" in str(error) and "\n" not in str(error)


WRONG = {
    "no images": (
        {"a.txt": None},
        r"has no images: it was searched for .jpg.*; it has a.txt: give images, or a folder of .npy files",
    ),
    "arrays": ({"a.txt": None, "b.npz": None}, r"has no images: .*; it has b.npz: give .*b\.npz"),
    "nothing": ({}, "has no images: .*; it is empty: check its path"),
    "images beside folders": ({"a.png": {}, "cat/b.png": {}}, "beside the folder cat"),
    "parts": ({"train/a.png": {}, "val/b.png": {}}, r"parts of a data set \(train, val\): give one of .*train"),
    "one class, two folders": ({"1/a.png": {}, "01/b.png": {}}, "several folders for the class 1"),
    "a folder of other files": ({"cat/a.png": {}, "masks/b.txt": None}, "masks has other files but no images"),
    "a table with a missing file": ({"a.png": {}, "labels.csv": "file,label\nb.png,1"}, "b.png, which is not there"),
    "a table that is too short": (
        {"a.png": {}, "b.png": {}, "labels.csv": "file,label\na.png,1"},
        "labels for only some of the images, none for 1 such as .*b.png",
    ),
    "a file twice": ({"a.png": {}, "labels.csv": "file,label\na.png,1\n./a.png,2"}, "a.png 2 times"),
    "no column of labels": ({"a.png": {}, "labels.csv": "file,kind\na.png,1"}, "columns file, kind: name that of"),
    "an empty table": ({"a.png": {}, "labels.csv": ""}, r"columns \(none\)"),
    "no rows": ({"a.png": {}, "labels.csv": "file,label\n"}, "has no rows"),
    "a row without a label": ({"a.png": {}, "labels.csv": "file,label\na.png,"}, "row 1 of .* no label"),
    "a table of bytes": ({"a.png": {}, "labels.csv": b"\xff\xfe\x00\x81"}, "labels.csv cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "words"), WRONG.values(), ids=WRONG.keys())
def test_folders_that_cannot_be_read_are_refused_in_one_line(tmp_path, files, words):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, dict):
            write(path, **content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else (content or "").encode())
    with pytest.raises(DataError, match=words) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


def test_images_of_several_sizes_stay_so_where_nothing_resizes_and_the_input_is_open(tmp_path):
    any_size = InputSpec("x", np.dtype(np.float32), ("N", 3, "h", "w"))
    write(tmp_path / "a.png", height=20)
    write(tmp_path / "b.png", width=30)
    data = load_data(tmp_path, Request([any_size], "unit"))
    assert [batch.inputs["x"].shape for batch in data.batches(8)] == [(1, 3, 20, 16), (1, 3, 16, 30)]
    assert any("are of 2 sizes and stay so" in note for note in data.notes)
    flipped = read_augmented(data, np.arange(2), Augmentation.parse("flip:1"), [0, 1], [any_size])
    for plain, changed in zip(data.read().inputs["x"], flipped.inputs["x"], strict=True):
        np.testing.assert_array_equal(changed, plain[..., ::-1])
    assert everything(opened(tmp_path, "unit,resize:8x8", [any_size]))["x"].shape == (2, 3, 8, 8)
    with pytest.raises(DataError, match=r"a.png: an image of 20x16 becomes 20x16, the input 'x' takes 16x16"):
        opened(tmp_path, "unit,resize:16")
    with pytest.raises(DataError, match=r"a.png: an image of 20x16 is smaller than crop:64x64"):
        opened(tmp_path, "unit,crop:64", [any_size])


def test_models_with_other_inputs_are_refused(tmp_path):
    write(tmp_path / "a.png")
    with pytest.raises(DataError, match="images for one input, the model has 2"):
        opened(tmp_path, "unit", [SPEC, SPEC])
    with pytest.raises(SettingError, match="--transform mnist: channels:gray"):
        opened(tmp_path, "mnist")


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec("x", np.dtype(np.int64), ("N", "T")),
        InputSpec("x", np.dtype(np.int64), ("N", 16)),
        InputSpec("x", np.dtype(np.float32), ("N", 10)),
    ],
)
def test_an_input_of_tokens_or_features_takes_no_images(tmp_path, spec):
    write(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"is a folder of images, the input 'x' .* takes rows of numbers: give"
    ):
        opened(tmp_path, None, [spec])
