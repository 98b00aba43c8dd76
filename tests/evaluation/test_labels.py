"""The forms of labels: what each is taken for, and what it becomes."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from onnxprune.data.dataset import Dataset
from onnxprune.errors import DataError
from onnxprune.evaluation.fitting import fit_labels
from onnxprune.evaluation.forms import find_form
from onnxprune.evaluation.labels import IGNORED, LabelForm, label_forms
from tests.builders import normal

FOUR = normal(6, 4)
ONE = normal(6, 1)
RANDOM = np.random.default_rng(5)
NUMBERS = np.array([0, 3, 1, 2, 2, 0])


def normalized(labels, output, **wanted):
    form = find_form(labels, output, "samples", **wanted)
    return form, pickle.loads(pickle.dumps(form)).normalize(labels)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.int8, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_class_numbers_of_any_type_become_int64(dtype, shape):
    form, labels = normalized(NUMBERS.reshape(shape).astype(dtype), FOUR)
    assert form.kind == "classes" and form.classes == 4 and labels.dtype == np.int64
    np.testing.assert_array_equal(labels, NUMBERS)


def test_bools_are_the_classes_of_two_outputs():
    form, labels = normalized(np.array([True, False]), normal(2, 2))
    assert form.kind == "classes" and labels.tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [bool, int, np.float32])
def test_one_hot_rows_become_class_numbers(dtype):
    form, labels = normalized(np.eye(4, dtype=dtype)[NUMBERS], FOUR)
    assert form.kind == "classes" and labels.tolist() == NUMBERS.tolist()


@pytest.mark.parametrize("dtype", [bool, int, np.float32])
def test_several_ones_in_a_row_are_multi_label(dtype):
    given = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], dtype)
    form, labels = normalized(given, FOUR[:3])
    assert form.kind == "multi-label" and labels.dtype == np.int64 and form.threshold == 0
    np.testing.assert_array_equal(labels, given == 1)
    assert find_form(given, np.full((3, 4), 0.9, np.float32), "samples").threshold == 0.5


def test_one_hot_rows_are_multi_label_for_a_metric_of_several_classes():
    assert find_form(np.eye(4, dtype=int), FOUR[:4], "samples", {"multi-label"}).kind == "multi-label"


@pytest.mark.parametrize("dtype", [bool, int, np.float32])
@pytest.mark.parametrize("output", [ONE, ONE[:, 0]])
def test_0_and_1_for_one_unit_are_binary(dtype, output):
    form, labels = normalized(np.array([0, 1, 1, 0, 0, 1], dtype), output)
    assert form.kind == "binary" and labels.shape == output.shape and labels.dtype == np.int64
    assert labels.ravel().tolist() == [0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("labels", "output"),
    [(np.array([0, 3, 1, 2, 2, 0]), ONE), (normal(6), ONE), (normal(6, 4), FOUR), (normal(6, 4, 1), FOUR)],
)
def test_numbers_of_the_outputs_size_are_targets(labels, output):
    form, found = normalized(labels, output)
    assert form.kind == "targets" and found.shape == output.shape and found.dtype == np.float32
    np.testing.assert_array_equal(found.ravel(), labels.ravel().astype(np.float32))


def test_binary_labels_are_targets_for_a_metric_of_targets():
    assert find_form(np.array([0.0, 1.0]), ONE[:2], "samples", {"targets", "pairs"}).kind == "targets"


@pytest.mark.parametrize("labels", [(2, 5, 6), (2, 1, 5, 6), (2, 5, 6, 1)])
@pytest.mark.parametrize("output", [(2, 3, 5, 6), (2, 5, 6, 3)])
def test_masks_are_classes_by_position_with_ignored_pixels(labels, output):
    given = np.random.default_rng(0).integers(0, 3, labels).astype(np.uint8)
    given.ravel()[:4] = 255
    form, found = normalized(given, normal(*output))
    assert form.kind == "positions" and form.axis == output.index(3) and found.shape == (2, 5, 6)
    assert found.ravel()[:4].tolist() == [IGNORED] * 4
    np.testing.assert_array_equal(found.ravel()[4:], given.ravel()[4:])


def test_255_is_a_class_where_there_are_as_many():
    given = np.full((2, 5), 255)
    assert find_form(given, normal(2, 5, 256), "samples").normalize(given).max() == 255


def test_negative_positions_are_ignored_and_negative_classes_are_not():
    tokens = np.array([[-100, 2, -1], [0, 1, -100]])
    form, found = normalized(tokens, normal(2, 3, 4))
    assert form.axis == 2 and found.tolist() == [[IGNORED, 2, IGNORED], [0, 1, IGNORED]]
    with pytest.raises(DataError, match="the class -1, at sample 71"):
        find_form(np.array([0, -1]), FOUR[:2], "samples", numbers=[70, 71])


def test_one_hot_masks_become_class_numbers():
    masks = np.random.default_rng(0).integers(0, 3, (2, 5, 6))
    form, found = normalized(np.moveaxis(np.eye(3, dtype=np.uint8)[masks], -1, 1), normal(2, 3, 5, 6))
    assert form.kind == "positions"
    np.testing.assert_array_equal(found, masks)


def test_masks_of_0_and_255_are_binary_for_one_unit_and_ambiguous_for_two():
    given = np.array([[[0, 255], [255, 255]]], np.uint8)
    form, found = normalized(given, normal(1, 1, 2, 2))
    assert form.kind == "binary" and found.tolist() == [[[[0, 1], [1, 1]]]]
    with pytest.raises(DataError, match="255 may mean class 1 or ignored pixels: give 0 and 1"):
        find_form(given, normal(1, 2, 2, 2), "samples")


@pytest.mark.parametrize(
    ("void", "dtype"), [(255, np.int16), (255, np.float32), (-1, np.int16), (-100, np.int16)]
)
@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 1, 2, 2), (1, 2, 2, 1)])
def test_masks_of_one_unit_ignore_pixels_that_are_neither_0_nor_1(void, dtype, shape):
    given = np.array([0, 1, void, 1], dtype).reshape(shape)
    form, found = normalized(given, normal(1, 1, 2, 2))
    assert form.kind == "binary" and found.ravel().tolist() == [0, 1, IGNORED, 1]


def test_labels_of_one_unit_and_of_several_classes_ignore_minus_100_alone():
    form, found = normalized(np.array([0, 1, -100, 1, 0, 1]), ONE)
    assert form.kind == "binary" and found.ravel().tolist() == [0, 1, IGNORED, 1, 0, 1]
    several = np.array([[1, 1, 0, -100], [0, -100, 0, 1], [0, 0, 0, 0]])
    form, found = normalized(several, FOUR[:3])
    assert form.kind == "multi-label" and found.tolist() == several.tolist()
    with pytest.raises(DataError, match="are 0 or 1 in some samples, but -1 at sample 0"):
        form.normalize(np.array([[-1, 1, 0, 0]]), [0])
    form, found = normalized(np.array([0, -100, 3, 1, 2, 0]), FOUR)
    assert form.kind == "classes" and found.tolist() == [0, IGNORED, 3, 1, 2, 0]


@pytest.mark.parametrize("dtype", [int, np.float32])
def test_minus_1_and_1_mean_no_and_yes_unless_the_output_ends_in_tanh(dtype):
    given = np.array([-1, 1, 1, -1, -1, 1], dtype)
    form, found = normalized(given, ONE)
    assert (form.kind, form.low) == ("binary", -1) and found.ravel().tolist() == [0, 1, 1, 0, 0, 1]
    assert find_form(given, ONE, "samples", end="Tanh").kind == "targets"
    form, found = normalized(np.stack([given] * 4, 1), FOUR)
    assert form.kind == "multi-label" and found[:2].tolist() == [[0] * 4, [1] * 4]


def test_the_last_operator_tells_probabilities_from_logits_where_numbers_could_be_both():
    small = np.array([[0.1], [0.2]], np.float32)
    given = np.array([0, 1])
    for end, threshold in (("Sigmoid", 0.5), ("Gemm", 0), ("", 0.5), ("Mul", 0.5)):
        assert find_form(given, small, "samples", end=end).threshold == threshold
    shares = np.full((6, 4), 0.25, np.float32)
    for end, probable in (("Softmax", True), ("Gemm", False), ("Div", True)):
        assert find_form(NUMBERS, shares, "samples", end=end).probabilities == probable
    assert not find_form(NUMBERS, FOUR, "samples").probabilities


def test_one_1_in_each_row_is_multi_label_where_each_class_has_a_sigmoid():
    ones = np.eye(4, dtype=int)[NUMBERS]
    assert find_form(ones, FOUR, "samples", end="Gemm").kind == "classes"
    assert find_form(ones, FOUR, "samples", end="Sigmoid").kind == "multi-label"


@pytest.mark.parametrize("shape", [(6, 4), (6, 3, 4), (6, 4, 2, 2)])
def test_rows_that_add_up_to_1_are_probabilities_of_the_classes(shape):
    axis = shape.index(4)
    shares = np.exp(normal(*shape)) / np.exp(normal(*shape)).sum(axis, keepdims=True)
    form, found = normalized(shares, normal(*shape))
    assert (form.kind, form.axis, form.classes) == ("soft", axis, 4) and found.dtype == np.float32
    np.testing.assert_array_equal(found, shares)
    assert find_form(shares, normal(*shape), "samples", {"targets"}).kind == "targets"
    assert find_form(shares, normal(*shape), "samples", end="Sigmoid").kind == "targets"
    with pytest.raises(DataError, match=r"those of sample 7 do not add up to 1: .*--metric mse"):
        form.normalize(shares[:1] * 0.5, [7])


def test_float_masks_with_a_1_for_each_pixel_are_one_hot():
    masks = RANDOM.integers(0, 3, (2, 5, 6))
    given = np.moveaxis(np.eye(3, dtype=np.float32)[masks], -1, 1)
    form, found = normalized(given, normal(2, 3, 5, 6))
    assert form.kind == "positions" and (found == masks).all()
    given[0, :, 0, 0] = 1
    assert find_form(given, normal(2, 3, 5, 6), "samples").kind == "targets"
    assert find_form(given, normal(2, 3, 5, 6), "samples", end="Sigmoid").kind == "multi-label"


@pytest.mark.parametrize("output", [(6, 4, 1, 1), (6, 1, 1, 4)])
def test_class_numbers_fit_outputs_that_were_not_flattened(output):
    form, found = normalized(NUMBERS, normal(*output))
    assert form.classes == 4 and found.ravel().tolist() == NUMBERS.tolist()


@pytest.mark.parametrize(
    ("labels", "output"),
    [
        (np.array([1, 2, 2, 1, 1, 2]), ONE),
        (RANDOM.integers(0, 256, (2, 3, 4, 4)).astype(np.uint8), normal(2, 3, 4, 4)),
        (RANDOM.random((6, 4)) * 200, FOUR),
    ],
)
def test_numbers_that_a_sigmoid_cannot_give_are_refused(labels, output):
    with pytest.raises(DataError, match=r"which ends in Sigmoid and is from 0 to 1: .*--label-offset -1"):
        find_form(labels, output, "samples", end="Sigmoid")
    assert find_form(labels, output, "samples").kind == "targets"


def test_class_numbers_from_1_on_are_told_the_offset():
    with pytest.raises(DataError, match=r"shift them by --label-offset -1$"):
        find_form(NUMBERS + 1, FOUR, "samples")


def test_integers_for_an_output_of_class_numbers_are_compared_with_them():
    form, found = normalized(np.array([7, 1]), np.array([7, 2]))
    assert form.kind == "classes" and form.axis is None and found.tolist() == [7, 1]


@pytest.mark.parametrize("output", [normal(2, 300, 6), normal(2, 84, 200), normal(0, 4)])
def test_boxes_are_told_by_their_classes_and_relative_numbers(output):
    given = np.array([[[3, 0.5, 0.5, 0.2, 0.1], [-1, 0, 0, 0, 0]]] * 2, np.float32)
    form, found = normalized(given, output)
    assert form.kind == "boxes"
    np.testing.assert_array_equal(found, given)


@pytest.mark.parametrize(
    "texts", [np.array(["ab", "ü"]), np.array(["ab", "ü"], object), [b"ab", "ü".encode()]]
)
def test_texts_become_strings(texts):
    form, found = normalized(np.asarray(texts), normal(2, 9, 5))
    assert form.kind == "text" and found.tolist() == ["ab", "ü"]


def test_scores_of_pairs_are_taken_only_for_a_metric_of_pairs():
    scores = np.array([0.5, 0.5, 4.2, 4.2])
    assert find_form(scores, normal(4, 8), "samples", {"pairs"}).kind == "pairs"
    with pytest.raises(DataError, match="do not fit the output"):
        find_form(scores, normal(4, 8), "samples")


@pytest.mark.parametrize(
    ("labels", "output", "message"),
    [
        (np.zeros((6, 2), int), FOUR, r"fewer classes \(2\) than the output \(4\)"),
        (np.zeros((6, 9)), FOUR, r"more classes \(9\) than the output \(4\)"),
        (np.zeros((6, 3, 3)), FOUR, r"float64 \[6, 3, 3\], 0 to 0\) do not fit the output \[6, 4\]"),
        (np.array([{}] * 6), FOUR, "give integer classes, or float targets"),
    ],
)
def test_labels_of_no_form_are_refused(labels, output, message):
    with pytest.raises(DataError, match=message):
        find_form(labels, output, "samples")


@pytest.mark.parametrize("labels", [np.full(6, 999), np.zeros((6, 3, 3)), np.array([{}] * 6)])
def test_labels_of_no_form_are_left_as_they_are_for_users_metrics(labels):
    form = find_form(labels, FOUR, "samples", {"other"})
    assert form.kind == "other" and form.normalize(labels) is labels
    assert find_form(NUMBERS, FOUR, "samples", {"other"}).kind == "classes"


@pytest.mark.parametrize(
    ("labels", "span"),
    [
        (RANDOM.random((4, 9)), 1),
        (np.linspace(-1, 1, 36).reshape(4, 9), 2),
        (RANDOM.random((4, 9)) * 250 + 3, 255),
        (RANDOM.integers(0, 3, (4, 9)).astype(np.uint8), 255),
        (np.linspace(-3, 7, 36).reshape(4, 9), 10),
    ],
)
def test_the_range_of_targets(labels, span):
    assert find_form(labels, normal(4, 9), "samples", {"targets"}).span == pytest.approx(span)


@pytest.mark.parametrize(
    ("some", "later", "output", "message"),
    [
        (NUMBERS, np.array([1, 1001]), FOUR, "the class 1001, at sample 1, .* 0 to 3: .* --label-offset"),
        (np.eye(4)[NUMBERS], np.eye(4)[[1, 1]] * 0.9, FOUR, "one-hot in some samples, but sample 0 has not"),
        (np.array([0.0, 1.0]), np.array([1.0, 0.3]), ONE[:2], "0 or 1 in some samples, but 0.3 at sample 1"),
        (NUMBERS * 1.0, np.array([0.0, 1.5]), FOUR, "class numbers in some samples, but 1.5 at sample 1"),
        (normal(6), np.array([np.nan, 1]), ONE, "has nan in sample 0: give finite numbers"),
    ],
)
def test_later_labels_of_another_form_are_refused(some, later, output, message):
    with pytest.raises(DataError, match=message):
        find_form(some, output, "samples").normalize(later, np.arange(2))


def test_a_fitted_dataset_yields_normalized_labels_of_every_output():
    labels = {"": np.eye(4)[NUMBERS], "depth": np.arange(6)}
    data = Dataset.of({"x": normal(6, 3)}, labels)
    fitted = fit_labels(data, data.read(), {"y": FOUR, "depth": ONE})
    assert {key: form.kind for key, form in label_forms(fitted).items()} == {
        "": "classes",
        "depth": "targets",
    }
    (last,) = fitted.take(slice(4, 6)).batches(8)
    assert last.labels[""].tolist() == [2, 0] and last.labels["depth"].tolist() == [[4.0], [5.0]]
    with pytest.raises(DataError, match="labels of 'depth', which is no output: give one of y"):
        fit_labels(data, data.read(), {"y": FOUR})


def test_an_offset_is_added_to_class_numbers_of_any_type_but_not_to_ignored_pixels():
    for dtype in (np.uint8, np.int64, np.float32):
        form = find_form((NUMBERS + 1).astype(dtype), FOUR, "samples", offset=-1)
        assert form.normalize((NUMBERS + 1).astype(dtype)).tolist() == NUMBERS.tolist()
    masks = np.array([[[1, 2], [255, 0]]], np.uint8)
    form = find_form(masks, normal(1, 3, 2, 2), "samples", offset=-1)
    assert form.normalize(masks).tolist() == [[[0, 1], [IGNORED, IGNORED]]]
    ones = np.array([1, 2, 2, 1, 1, 2])
    form = find_form(ones, ONE, "samples", offset=-1)
    assert form.kind == "binary" and form.normalize(ones)[:, 0].tolist() == [0, 1, 1, 0, 0, 1]
    boxes = np.array([[[1, 0.5, 0.5, 0.2, 0.2], [-1, 0, 0, 0, 0]]], np.float32)
    form = find_form(boxes, normal(1, 7, 256), "samples", offset=1)
    assert form.normalize(boxes)[0, :, 0].tolist() == [2, -1]


@pytest.mark.parametrize("labels", [np.eye(4, dtype=int)[NUMBERS], (FOUR > 0).astype(int), FOUR])
def test_an_offset_is_refused_for_labels_that_are_no_class_numbers(labels):
    data = replace(Dataset.of({"x": FOUR}, labels), label_offset=1)
    with pytest.raises(DataError, match="--label-offset is for class numbers, but the labels of samples are"):
        fit_labels(data, data.read(), {"y": FOUR})


def test_the_first_output_comes_first_and_has_labels_once():
    labels = {"depth": ONE, "": NUMBERS}
    data = Dataset.of({"x": FOUR}, labels)
    assert list(label_forms(fit_labels(data, data.read(), {"y": FOUR, "depth": ONE}))) == ["", "depth"]
    data = Dataset.of({"x": FOUR}, {"": NUMBERS, "y": NUMBERS})
    with pytest.raises(DataError, match="twice"):
        fit_labels(data, data.read(), {"y": FOUR})


def test_masks_of_as_many_rows_and_columns_as_classes_have_the_classes_first():
    assert find_form(np.ones((2, 5, 5), int), normal(2, 5, 5, 5), "samples").axis == 1
    assert find_form(np.ones((2, 4), int), normal(2, 4, 4), "samples").axis == 2


def test_numbers_in_another_order_than_the_output_are_refused():
    output = normal(2, 5, 6, 5)
    assert find_form(normal(2, 150), output, "samples").kind == "targets"
    for labels in (normal(2, 6, 5, 5), np.eye(5, dtype=np.uint8)[np.ones((2, 6, 5), int)]):
        with pytest.raises(DataError, match="do not fit the output"):
            find_form(labels, output, "samples")


@pytest.mark.parametrize(
    ("names", "offset", "fits"), [("abcd", 0, True), ("abc", 0, False), ("abc", 1, True)]
)
def test_as_many_named_classes_as_outputs_are_needed(names, offset, fits):
    data = replace(Dataset.of({"x": FOUR}, NUMBERS.clip(0, 2)), label_offset=offset)
    data.source.class_names = tuple(names)
    if fits:
        assert label_forms(fit_labels(data, data.read(), {"y": FOUR}))[""].kind == "classes"
        return
    with pytest.raises(DataError, match=r"has 3 classes \(a to c\), but the output has 4"):
        fit_labels(data, data.read(), {"y": FOUR})


@pytest.mark.parametrize(
    ("shape", "given", "wanted"),
    [
        ((4, 6), (4, 6), (4, 6)),
        ((4, 6), (1, 4, 6), (4, 6)),
        # Masks of another size keep their own sides, also where they have as many pixels.
        ((4, 6), (6, 4), (6, 4)),
        ((4, 6), (1, 6, 4), (6, 4)),
        ((1, 4, 6), (6, 4), (1, 6, 4)),
        ((5,), (8,), (8,)),
        ((1,), (8,), (8,)),
        ((), (1,), ()),
        ((4, 6), (24,), (4, 6)),
        ((24,), (4, 6), (24,)),
    ],
)
def test_labels_of_samples_of_other_sizes_keep_their_sides(shape, given, wanted):
    labels = np.arange(2 * np.prod(given)).reshape(2, *given)
    made = LabelForm("targets", "d", shape).shaped(labels)
    assert made.shape == (2, *wanted) and made.ravel().tolist() == labels.ravel().tolist()


def test_labels_with_other_axes_in_some_samples_are_refused():
    with pytest.raises(DataError, match=r"have the shapes \[4, 6\] and \[5\] in two samples"):
        LabelForm("positions", "d", (4, 6)).shaped(np.zeros((2, 5)))
