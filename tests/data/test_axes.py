"""Batch axes: what dims make likely, and the way between a model's arrays and samples."""

import numpy as np
import pytest

from onnxprune.config.settings import PruneConfig
from onnxprune.data.axes import BatchAxes, sized
from onnxprune.data.axis_choice import candidates, check_asked, declared_axes, is_plain_batch
from onnxprune.data.specs import InputSpec
from onnxprune.errors import SettingError

FLOAT = np.dtype(np.float32)


def specs(**shapes):
    return [InputSpec(name, FLOAT, shape) for name, shape in shapes.items()]


LIKELY = {
    "one input": ({"x": ("N", 8)}, {"x": 0}, None),
    "nameless dims": ({"x": (None, None, 8)}, {"x": 0}, None),
    "a name for the batch behind the time": ({"x": ("T", "N", 6)}, {"x": 1}, None),
    "a name that several inputs share": ({"x": ("T", "n1", 6), "lens": ("n1",)}, {"x": 1, "lens": 0}, None),
    "states": ({"x": ("N", 10, 5), "h": (1, "N", 8)}, {"x": 0, "h": 1}, None),
    "a scale": ({"x": ("N", 5), "scale": (1,)}, {"x": 0, "scale": None}, None),
    "a scalar": ({"x": ("N", 5), "rate": ()}, {"x": 0, "rate": None}, None),
    "a token model": ({"ids": ("batch", "seq"), "mask": ("batch", "seq")}, {"ids": 0, "mask": 0}, None),
    "first axes with names of their own": ({"a": ("a0", 3), "b": ("b0", 4)}, {"a": 0, "b": 0}, None),
    "adjacency": ({"x": ("V", 5), "adj": ("V", "V")}, {"x": None, "adj": None}, 1),
    "a fixed batch": ({"x": (4, 10, 5), "h": (1, 4, 8)}, {"x": 0, "h": 1}, 4),
    "a fixed batch of one": ({"x": (1, 10, 5), "h": (1, 1, 8)}, {"x": 0, "h": 0}, 1),
    "one sequence": ({"x": (1, 4, 16)}, {"x": 0}, 1),
    "one image": ({"x": (1, 3, 8, 8)}, {"x": 0}, 1),
    "a row and a scale": ({"x": (4, 5), "scale": (1,)}, {"x": 0, "scale": None}, 4),
    "one sample of a time-major input": ({"x": (10, 1, 5), "h": (1, 1, 8)}, {"x": 1, "h": 0}, 1),
}


@pytest.mark.parametrize(("shapes", "axes", "size"), LIKELY.values(), ids=LIKELY.keys())
def test_the_likeliest_axes_follow_from_the_dims(shapes, axes, size):
    found = declared_axes(specs(**shapes))
    assert dict(found.inputs) == axes and found.size == size


def test_no_input_with_a_batch_axis_is_always_the_last_choice_and_given_axes_are_in_every_one():
    inputs = specs(x=(3, 20, 20), y=(None, 3))
    assert candidates(inputs, {})[-1].whole
    assert {axes.inputs["x"] for axes in candidates(inputs, {"x": 2})} == {2}


def test_only_what_says_itself_is_not_tried():
    assert is_plain_batch(specs(x=("batch_size", 3))) and is_plain_batch(specs(x=(1, 3), y=(1, 4)))
    assert is_plain_batch(specs(ids=("N", "T"), mask=("N", "T")))
    for shapes in (
        {"x": ("seq", 3)},
        {"x": (8, 3)},
        {"x": (None, 3), "y": (None, 3)},
        {"x": ("N", 3), "adj": ("N", "N")},
        {"x": ("T", "N", 3)},
    ):
        assert not is_plain_batch(specs(**shapes)), shapes


AXES = BatchAxes({"x": 1, "lens": 0, "scale": None}, {"y": 1}, {"labels": 1})
INPUTS = specs(x=("T", "N", 2), lens=("N",), scale=(1,))


def test_arrays_of_a_model_become_samples_and_back():
    rng = np.random.default_rng(0)
    given = {"x": rng.random((5, 7, 2)), "lens": np.arange(7), "scale": np.array([2.0])}
    rows = AXES.rows(given | {"labels": rng.random((5, 7))}, INPUTS)
    assert {name: array.shape for name, array in rows.items()} == {
        "x": (7, 5, 2),
        "lens": (7,),
        "scale": (7, 1),
        "labels": (7, 5),
    }
    np.testing.assert_array_equal(rows["x"][3], given["x"][:, 3])
    back = AXES.feeds({name: rows[name] for name in given})
    for name, array in given.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].flags.c_contiguous
    # Of one sample, and of samples along the first axis.
    assert AXES.rows({name: array[:, :1] for name, array in given.items() if name == "x"}, INPUTS)[
        "x"
    ].shape == (1, 5, 2)
    assert AXES.rows({"x": rng.random((7, 5, 2)), "lens": np.arange(7)}, INPUTS)["x"].shape == (7, 5, 2)


def test_the_rows_of_a_fixed_batch_of_one_are_found_along_any_axis_of_size_one():
    axes = BatchAxes({"x": 0, "h": 0, "scale": 0}, size=1)
    given = {"x": np.zeros((6, 10, 5)), "h": np.arange(48.0).reshape(1, 6, 8), "scale": np.array([3.0])}
    rows = axes.rows(given, specs(x=(1, 10, 5), h=(1, 1, 8), scale=(1,)))
    assert rows["h"].shape == (6, 1, 8) and rows["scale"].tolist() == [3.0] * 6
    np.testing.assert_array_equal(rows["h"][2, 0], given["h"][0, 2])


def test_outputs_have_samples_along_their_first_axis():
    output = np.arange(30).reshape(5, 6)
    assert AXES.samples("y", output, 6).shape == (6, 5)
    assert AXES.samples("other", output, 6).shape == (6, 5) and AXES.samples("other", output, 5) is output
    assert AXES.samples("mean", np.float32(3), 6) == 3
    assert BatchAxes({"x": None}, size=1).samples("y", output, 1).shape == (1, 5, 6)


def test_shapes_that_are_asked_for_leave_the_batch_open():
    (x, lens, _) = sized(INPUTS, {"x": (9, 4, 2), "lens": (4,)}, AXES)
    assert x.shape == (9, "N", 2) and lens.shape == ("N",)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"z": 0}, "--batch-axis z: the model has no such input or output; give one of x, h, y"),
        ({"x": 3}, r"--batch-axis x:3 does not fit the input, which has 3 axes \(4,10,5\): the first is 0"),
        ({"x": 1, "h": 1}, r"have different sizes \(x 10, h 4\)"),
    ],
)
def test_axes_that_the_model_does_not_have_are_refused(asked, words):
    with pytest.raises(SettingError, match=words):
        check_asked(asked, specs(x=(4, 10, 5), h=(1, 4, 8)), ["y"])


def test_axes_are_written_as_names_with_a_number_or_none():
    config = PruneConfig(rate=0.5, batch_axis=("input:0:1", "scale:none"))
    assert config.batch_axes == {"input:0": 1, "scale": None}
    assert config.to_dict()["batch_axis"] == ["input:0:1", "scale:none"]
    assert PruneConfig(rate=0.5, batch_axis={"x": None}).batch_axes == {"x": None}
    for text in ("x", "x:-1", "x:first", ":0"):
        with pytest.raises(SettingError, match="is not a name with an axis: write NAME:AXIS"):
            PruneConfig(rate=0.5, batch_axis=text)
