"""What images become before a model's input, against torchvision and PIL."""

import pickle

import numpy as np
import pytest
from PIL import Image

from onnxprune.data.images.transforms import PRESETS, Transform, candidates
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError, SettingError
from onnxprune.system.packages import import_torchvision

IMAGENET = "resize:256,crop:224,scale:1/255,mean:0.485,0.456,0.406,std:0.229,0.224,0.225"


def spec(*dims, dtype=np.float32):
    return InputSpec("x", np.dtype(dtype), ("N", *dims))


NCHW, NHWC = spec(3, 224, 224), spec(224, 224, 3)


def picture(height, width, mode="RGB"):
    """Smooth enough that an interpolation can be compared, with noise that a wrong one would show."""
    generator = np.random.default_rng(height * width)
    slopes = np.linspace(0, 160, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    pixels = slopes + generator.integers(0, 30, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def run(text, where, image):
    transform = Transform.parse(text, where) if text else Transform.default(where)
    return transform.values(transform.geometry(image)[None])[0]


def torchvision_imagenet(image):
    import_torchvision("the test")
    import torch
    from torchvision.transforms import v2

    steps = v2.Compose(
        [
            v2.Resize(256),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return steps(image).numpy()


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (480, 480), (200, 611)])
@pytest.mark.parametrize("text", [IMAGENET, "imagenet", None])
def test_imagenet_is_that_of_torchvision(size, text):
    image = picture(*size)
    np.testing.assert_allclose(run(text, NCHW, image), torchvision_imagenet(image), atol=2e-6)


@pytest.mark.parametrize("text", [IMAGENET, "tf", "raw,resize:224x224"])
def test_a_channels_last_input_gets_the_same_values(text):
    image = picture(300, 400)
    assert (run(text, NHWC, image) == run(text, NCHW, image).transpose(1, 2, 0)).all()


def test_images_hardly_larger_than_the_input_are_only_cropped():
    image = picture(227, 227)
    middle = np.asarray(image)[1:225, 1:225].astype(np.float32)
    assert (run("tf", NHWC, image) == (middle - 128) / 128).all()
    assert (
        run("raw", NHWC, picture(256, 300)).tolist() == np.asarray(picture(256, 300))[16:240, 38:262].tolist()
    )


def test_images_of_the_size_of_a_small_input_are_not_touched():
    image = picture(32, 32)
    expected = (np.asarray(image) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(run("imagenet", spec(32, 32, 3), image), expected, atol=1e-6)
    whole = np.asarray(picture(64, 96).resize((48, 32), Image.Resampling.BILINEAR))[:, 8:40]
    assert (run("raw", spec(32, 32, 3), picture(64, 96)) == whole).all()


@pytest.mark.parametrize("size", [(100, 300), (300, 100), (90, 160), (91, 160), (40, 70)])
def test_an_input_that_is_not_square_is_filled_from_the_middle(size):
    assert run("raw", spec(3, 90, 160), picture(*size)).shape == (3, 90, 160)


GUESSES = {
    "mnist": spec(1, 28, 28),
    "cifar10": spec(3, 32, 32),
    "yolo": spec(3, 640, 640),
    "imagenet": NCHW,
    "unit": spec(1, 64, 64),
    "raw": spec(224, 224, 3, dtype=np.uint8),
}


@pytest.mark.parametrize(("name", "where"), GUESSES.items())
def test_the_guess_follows_from_the_input_and_comes_first_of_the_candidates(name, where):
    assert Transform.default(where) == Transform.parse(name, where)
    found = candidates(where)
    assert next(iter(found)) == name and len(set(found.values())) == len(found)
    assert name == "raw" or len(found) > 1


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    "where", [*GUESSES.values(), spec(784), spec(3072), spec(3, None, "w"), spec(28, 28)]
)
def test_the_text_of_a_transform_gives_it_again(name, where):
    for text in (name, f"{name},channels:bgr", f"{name},scale:0.5"):
        try:
            transform = Transform.parse(text, where)
        except SettingError:
            continue
        assert Transform.parse(transform.text(), where) == transform
        assert pickle.loads(pickle.dumps(transform)) == transform


def test_mean_and_std_of_a_preset_follow_the_order_of_the_channels():
    image = picture(224, 224)
    assert (run("imagenet,channels:bgr", NCHW, image) == run("imagenet", NCHW, image)[::-1]).all()
    caffe = np.asarray(image)[..., ::-1] - np.array([103.939, 116.779, 123.68])
    np.testing.assert_allclose(run("caffe", NHWC, image), caffe, atol=1e-4)
    explicit = run("channels:bgr,scale:1,mean:1,2,3", NHWC, image)
    assert (explicit == np.asarray(image)[..., ::-1].astype(int) - (1, 2, 3)).all()


def test_gray_flat_and_double_inputs_take_what_they_are_made_for():
    image = picture(28, 28)
    gray = np.asarray(image.convert("L"))
    np.testing.assert_allclose(run(None, spec(784), image), gray.reshape(-1) / 255, rtol=1e-6)
    assert (run("raw", spec(28, 28), image) == gray).all()
    assert run(None, spec(3, 224, 224, dtype=np.float16), picture(224, 224)).dtype == np.float16
    colored = run("raw", spec(3 * 1024), picture(32, 32))
    assert (colored.reshape(3, 32, 32).transpose(1, 2, 0) == np.asarray(picture(32, 32))).all()


def test_bytes_stay_bytes_and_signed_ones_are_shifted():
    pixels = np.asarray(picture(224, 224))
    for text in (None, "imagenet"):
        bytes_ = run(text, spec(224, 224, 3, dtype=np.uint8), picture(224, 224))
        assert bytes_.dtype == np.uint8 and (bytes_ == pixels).all()
    signed = run("mean:128", spec(224, 224, 3, dtype=np.int8), picture(224, 224))
    assert (signed == pixels.astype(int) - 128).all()


def test_images_of_other_modes_are_converted():
    sixteen = Image.fromarray((np.arange(784, dtype=np.uint16) * 83).reshape(28, 28))
    assert run("raw", spec(28, 28), sixteen).tolist() == (np.arange(784) * 83 // 256).reshape(28, 28).tolist()
    for mode in ("RGBA", "P", "LA", "CMYK", "1"):
        image = picture(32, 32).convert(mode)
        assert (run("raw", spec(32, 32, 3), image) == np.asarray(image.convert("RGB"))).all()


def test_a_letterbox_keeps_the_whole_image_and_moves_boxes_with_it():
    image = Image.new("RGB", (200, 100))
    image.paste((255, 0, 0), (50, 25, 150, 75))
    transform = Transform.parse("yolo", spec(3, 640, 640))
    pixels = transform.geometry(image)
    assert (pixels[:160] == 114).all() and (pixels[480:] == 114).all() and not (pixels[161:479] == 114).any()
    boxes = transform.boxes(np.array([[3, 0.5, 0.5, 0.5, 0.5], [-1, 0, 0, 0, 0]]), (100, 200))
    np.testing.assert_allclose(boxes, [[3, 0.5, 0.5, 0.5, 0.25], [-1, 0, 0, 0, 0]], atol=1e-6)
    red = np.argwhere(pixels[..., 0] > 200) / 640
    np.testing.assert_allclose([red.min(0), red.max(0)], [[0.375, 0.25], [0.625, 0.75]], atol=0.005)


def test_boxes_are_cut_by_a_crop_and_are_gone_beyond_it():
    transform = Transform.parse("unit,crop:100", spec(3, 100, 100))
    boxes = transform.boxes(np.array([[1, 0.25, 0.5, 0.2, 0.5], [2, 0.05, 0.5, 0.1, 0.1]]), (100, 200))
    np.testing.assert_allclose(boxes, [[1, 0.1, 0.5, 0.2, 0.5], [-1, 0, 0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("where", [NCHW, NHWC, spec(28, 28), spec(784), spec(3, 32, 32)])
@pytest.mark.parametrize("size", [(224, 224), (28, 28), (230, 240), (300, 500)])
def test_arrays_of_images_become_what_the_images_become(where, size):
    images = [picture(*size), picture(*size).rotate(180)]
    transform = Transform.default(where)
    expected = transform.values(np.stack([transform.geometry(image) for image in images]))
    last = np.stack([np.asarray(image) for image in images])
    for array in (last, last.transpose(0, 3, 1, 2), last.astype(np.int64)):
        np.testing.assert_array_equal(transform.arrays(array), expected)


def test_gray_arrays_are_repeated_for_colored_inputs_and_floats_are_scaled_too():
    gray = np.asarray(picture(32, 32, "L"))[None]
    repeated = np.repeat(gray[..., None], 3, 3)
    assert (Transform.parse("raw", spec(32, 32, 3)).arrays(gray) == repeated).all()
    unit = Transform.parse("unit", spec(32, 32, 3))
    np.testing.assert_array_equal(unit.arrays(repeated.astype(np.float32)), unit.arrays(repeated))


def test_an_input_of_any_size_leaves_the_size():
    assert run("imagenet", spec(3, "h", "w"), picture(50, 70)).shape == (3, 50, 70)
    assert run("imagenet,crop:40", spec(3, "h", "w"), picture(50, 70)).shape == (3, 40, 40)


WRONG = {
    "no such step": ("blur:3", NCHW, "no step 'blur:3'"),
    "no value": ("resize", NCHW, "no step 'resize'"),
    "an empty value": ("imagenet,mean:", NCHW, "no step 'mean:'"),
    "a preset late": ("scale:1,imagenet", NCHW, "must come first"),
    "no number": ("scale:half", NCHW, "scale:half is no number"),
    "a division by zero": ("scale:1/0", NCHW, "scale:1/0 is no number"),
    "no size": ("unit,crop:0", NCHW, "crop:0 is no size"),
    "two sizes too many": ("unit,resize:1x2x3", NCHW, "is no size"),
    "a step twice": ("scale:1,scale:2", NCHW, "scale is given twice"),
    "two means": ("scale:1,mean:1,2", NCHW, "mean has 2 numbers, the channels are 3"),
    "a std of zero": ("std:0", NCHW, "must not be 0"),
    "another size": ("unit,resize:256,crop:256", NCHW, "crop:256 does not fit .* takes 224x224"),
    "no crop": ("unit,resize:256", NCHW, "add crop:224x224"),
    "gray for colors": ("mnist", NCHW, "channels:gray are 1, the input 'x' takes 3"),
    "no such channels": ("unit,channels:hsv", NCHW, "no channels hsv"),
    "no such layout": ("unit,layout:hwc", NCHW, "no layout hwc"),
    "layout of another rank": ("unit,layout:flat", NCHW, "give nchw or nhwc"),
    "no scale": ("resize:256,crop:224", NCHW, "how values are scaled"),
    "fractions as bytes": ("scale:1/255", spec(224, 224, 3, dtype=np.uint8), "from 0 to 1 do not fit"),
    "negative bytes": ("mean:128", spec(224, 224, 3, dtype=np.uint8), "from -128 to 127 do not fit"),
    "five dims": ("unit", spec(3, 8, 8, 8), "has 5 dims"),
    "no channels": ("unit", spec(7, 8, 9), "do not tell its layout"),
    "text": ("unit", spec(3, 8, 8, dtype=object), "images go into numbers"),
    "letterbox of any size": ("yolo", spec(3, None, None), "letterbox:640"),
}


@pytest.mark.parametrize(("text", "where", "words"), WRONG.values(), ids=WRONG.keys())
def test_texts_that_do_not_fit_are_refused_in_one_line(text, where, words):
    with pytest.raises(SettingError, match=words) as caught:
        Transform.parse(text, where)
    assert str(caught.value).startswith("--transform ") and "\n" not in str(caught.value)


BAD_IMAGES = {
    "smaller than the crop": ("unit,crop:224", picture(100, 300), "100x300 is smaller than crop:224x224"),
    "not square": ("unit,resize:224", picture(100, 300), "becomes 224x672, the input 'x' takes 224x224"),
    "floats": ("unit", Image.fromarray(np.zeros((224, 224), np.float32)), "no known range"),
}


@pytest.mark.parametrize(("text", "image", "words"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_images_that_do_not_fit_are_refused(text, image, words):
    with pytest.raises(DataError, match=words):
        run(text, NCHW, image)


BAD_ARRAYS = {
    "no images": (np.zeros((4, 10), np.uint8), "has no images"),
    "odd channels": (np.zeros((4, 10, 10, 2), np.uint8), "has no images"),
    "beyond bytes": (np.full((4, 32, 32, 3), 300), "beyond 0 to 255"),
    "scaled before": (np.full((4, 32, 32, 3), 0.5, np.float32), "would scale again"),
    "floats to resize": (np.full((4, 48, 48, 3), 90, np.float32), "cannot be resized"),
}


@pytest.mark.parametrize(("array", "words"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_arrays_that_do_not_fit_are_refused(array, words):
    with pytest.raises(DataError, match=words):
        Transform.default(spec(3, 32, 32)).arrays(array)


def test_rows_of_another_length_are_refused():
    transform = Transform.parse("unit", spec(8))
    assert transform.arrays(np.zeros((5, 2, 4), np.uint8)).shape == (5, 8)
    with pytest.raises(DataError, match="an image of 3x4 has 12 values, the input 'x' takes 8"):
        transform.arrays(np.zeros((5, 3, 4), np.uint8))
