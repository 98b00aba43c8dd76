"""Random changes of images: fixed by the seed of each sample, and followed by masks and boxes."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from onnxprune.data.batch import IGNORED
from onnxprune.data.images.augment import AUGMENTATIONS, Augmentation
from onnxprune.errors import DataError, SettingError
from onnxprune.system.packages import import_torchvision

NUMBERS = {name: 4 if kind.most >= 4 else kind.number for name, kind in AUGMENTATIONS.items()}
NUMBERS |= {"resized-crop": 0.5, "shear": 30}
MOVING = [name for name, kind in AUGMENTATIONS.items() if kind.moves]


def pixels(count=6, height=32, width=32, channels=3):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, height, width, channels), np.uint8)


def augmented(text, images, seeds=range(6), labels=None):
    return Augmentation.parse(text).images(images, list(seeds), labels)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 40, 1)])
def test_every_augmentation_keeps_the_shape_and_changes_some_image(name, shape):
    images = pixels(20, *shape)
    text = f"{name}:{NUMBERS[name]:g}"
    changed, _ = augmented(text, images, range(20))
    assert changed.shape == images.shape and changed.dtype == np.uint8
    assert name == "gray" or (changed != images).any()
    assert Augmentation.parse(Augmentation.parse(text).text()) == Augmentation.parse(text)


@pytest.mark.parametrize(
    "text", ["flip,crop:4", "resized-crop,color,erase", "trivial", "rand", "rotate:20,erase:1"]
)
def test_a_sample_is_changed_by_its_seed_alone(text):
    images = pixels()
    together, _ = augmented(text, images, [5, 3, 8, 2**63 + 1, 0, 7])
    import torch

    torch.manual_seed(1)
    state = torch.get_rng_state()
    for index, seed in ((3, 2**63 + 1), (0, 5)):
        alone, _ = augmented(text, images[index : index + 1], [seed])
        assert (alone[0] == together[index]).all()
    assert (torch.get_rng_state() == state).all()
    other, _ = augmented(text, images, range(10, 16))
    assert (other != together).any()


def test_it_does_what_torchvision_does_with_the_same_seed():
    import_torchvision("the test")
    import torch
    from torchvision.transforms import v2

    images = pixels()
    changed, _ = augmented("flip,crop:4,color:0.2", images)
    steps = v2.Compose(
        [v2.RandomHorizontalFlip(), v2.RandomCrop(32, padding=4), v2.ColorJitter(0.2, 0.2, 0.2, 0.05)]
    )
    for seed, image in enumerate(images):
        torch.manual_seed(seed)
        expected = steps(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0)
        assert (expected.numpy() == changed[seed]).all()


@pytest.mark.parametrize("name", MOVING)
def test_masks_move_with_their_images(name):
    squares = np.zeros((6, 32, 40), np.int64)
    squares[:, 8:20, 6:24] = 1
    images = np.repeat((squares * 200).astype(np.uint8)[..., None], 3, 3)
    labels = {"labels": squares, "labels.kind": np.arange(6)}
    changed, moved = augmented(f"{name}:{NUMBERS[name]:g}", images, labels=labels)
    assert (moved["labels"] != squares).any() and moved["labels"].dtype == np.int64
    # The images' edges are interpolated.
    known = moved["labels"] != IGNORED
    assert ((changed[..., 0] > 100) != moved["labels"])[known].mean() < 0.03
    # What moves in from beyond the border is black, and of no class.
    assert not changed[~known].any() and known.all() == (name in ("flip", "vflip", "resized-crop"))
    assert moved["labels.kind"].tolist() == [0, 1, 2, 3, 4, 5] and squares[0, 8, 6] == 1


@pytest.mark.parametrize("name", ["flip", "vflip", "crop", "translate", "zoom", "resized-crop"])
def test_boxes_move_with_their_images(name):
    images = np.zeros((6, 40, 80, 3), np.uint8)
    images[:, 10:20, 10:50] = 255
    boxes = np.array([[[7, 0.375, 0.375, 0.5, 0.25], [-1, 0, 0, 0, 0]]] * 6, np.float32)
    changed, moved = augmented(f"{name}:{NUMBERS[name]:g}", images, labels={"labels": boxes})
    for image, (box, none) in zip(changed, moved["labels"], strict=True):
        white = np.argwhere(image[..., 0] > 127)
        (top, left), (bottom, right) = white.min(0), white.max(0) + 1
        corners = np.array(
            [box[1] - box[3] / 2, box[2] - box[4] / 2, box[1] + box[3] / 2, box[2] + box[4] / 2]
        )
        np.testing.assert_allclose(corners * (80, 40, 80, 40), [left, top, right, bottom], atol=1.5)
        assert box[0] == 7 and none.tolist() == [-1, 0, 0, 0, 0]
    assert (moved["labels"] != boxes).any()


def test_a_box_that_left_its_image_is_none():
    boxes = np.tile(np.float32([3, 0.02, 0.02, 0.03, 0.03]), (20, 1, 1))
    _, moved = augmented("crop:8", pixels(20), range(20), {"labels": boxes})
    classes = moved["labels"][:, 0, 0]
    assert set(classes) == {-1, 3} and (moved["labels"][classes == -1, 0, 1:] == 0).all()


def test_scaled_floats_may_be_moved():
    images = pixels().astype(np.float32) / 255 - 0.5
    expected, _ = augmented("flip", pixels())
    changed, _ = augmented("flip", images)
    np.testing.assert_allclose(changed, expected / np.float32(255) - 0.5, atol=1e-6)
    assert augmented("flip,crop:2", images.astype(np.float16))[0].dtype == np.float16


def test_it_can_be_sent_to_workers():
    augmentation = Augmentation.parse("flip,crop:4")
    assert pickle.loads(pickle.dumps(augmentation)) == augmentation
    assert augmentation.text() == "flip:0.5,crop:4"


def test_a_text_is_checked_without_torch():
    code = (
        "import sys; from onnxprune.data.images.augment import Augmentation; Augmentation.parse('flip,rand:5'); "
        "sys.exit(bool({'torch', 'torchvision', 'PIL'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


WRONG = {
    "no such name": ("flip,mixup", "no augmentation 'mixup'; give some of flip, vflip"),
    "nothing": ("", "no augmentation ''"),
    "no number": ("crop", "crop takes a whole number from 1 to 1024, for example crop:4"),
    "a fraction of a pixel": ("crop:1.5", "crop takes a whole number"),
    "words": ("rotate:lots", "rotate takes a number from 0 to 180"),
    "beyond": ("flip:2", "flip takes a number from 0 to 1, for example flip:0.5"),
    "not a number": ("flip:nan", "flip takes a number"),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_texts_that_are_wrong_are_refused(text, words):
    with pytest.raises(SettingError, match=words):
        Augmentation.parse(text)


UNFIT = {
    "scaled": ("color", pixels().astype(np.float32), None, "needs pixels from 0 to 255"),
    "masks": ("trivial", pixels(), np.zeros((6, 32, 32), np.int64), "cannot move the masks of 'labels'"),
    "boxes": ("rand", pixels(), np.zeros((6, 3, 5), np.float32), "cannot move the boxes of 'labels'"),
    "masks of another size": (
        "flip",
        pixels(),
        np.zeros((6, 8, 8), np.int64),
        "cannot move 'labels' of shape",
    ),
    "a crop beyond": ("color", pixels(channels=4), None, "--augment color fails on an image of 32x32 with 4"),
}


@pytest.mark.parametrize(("text", "images", "labels", "words"), UNFIT.values(), ids=UNFIT.keys())
def test_images_and_labels_that_do_not_fit_are_refused(text, images, labels, words):
    with pytest.raises(DataError, match=words) as caught:
        augmented(text, images, labels=None if labels is None else {"labels": labels})
    assert "\n" not in str(caught.value)
