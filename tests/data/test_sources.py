"""Data from files, functions and Python, checked against the inputs of a model."""

import re
import sys

import numpy as np
import pytest

from onnxprune.data.axes import BatchAxes
from onnxprune.data.axis_choice import declared_axes
from onnxprune.data.random import random_data
from onnxprune.data.request import Request
from onnxprune.data.sources import load_data, other_transforms
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError

SPECS = [InputSpec("x", np.dtype(np.float32), ("N", 8))]


def write_idx(path, array, code=8):
    header = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.tobytes())
    return path


def samples(count=10):
    return np.random.default_rng(0).random((count, 8), dtype=np.float32)


def test_npz_gives_inputs_and_labels(tmp_path):
    np.savez(tmp_path / "d.npz", x=samples(), labels=np.arange(10) % 4)
    data = load_data(tmp_path / "d.npz", Request(SPECS))
    assert len(data) == 10 and data.labeled and (data.read().inputs["x"] == samples()).all()


def test_double_data_is_taken_for_a_float_input():
    assert (
        load_data({"x": samples().astype(np.float64)}, Request(SPECS)).read().inputs["x"].dtype == np.float32
    )


def test_idx_images_are_scaled_flattened_and_paired_with_the_labels_beside_them(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 2, 4)
    write_idx(tmp_path / "train-images-idx3-ubyte", pixels)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(6, dtype=np.uint8))
    for source in (
        tmp_path / "train-images-idx3-ubyte",
        f"{tmp_path}/train-images-idx3-ubyte,{tmp_path}/train-labels-idx1-ubyte",
    ):
        data = load_data(source, Request(SPECS))
        np.testing.assert_allclose(data.read().inputs["x"], pixels.reshape(6, 8) / 255, rtol=1e-6)
        assert data.read().labels[""].tolist() == [0, 1, 2, 3, 4, 5]


def test_batches_come_from_any_iterable_and_from_a_named_function(tmp_path, monkeypatch):
    batches = [
        {"x": samples(4), "labels": np.zeros(4, np.int64)},
        {"x": samples(2), "labels": np.ones(2, np.int64)},
    ]
    assert len(load_data(iter(batches), Request(SPECS))) == 6
    (tmp_path / "my_data.py").write_text(
        "import numpy as np\ndef batches():\n    for n in (3, 5):\n        yield {'x': np.zeros((n, 8), np.float32)}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    data = load_data("my_data:batches", Request(SPECS))
    assert len(data) == 8 and not data.labeled


BAD = {
    "missing array": ({"y": samples()}, "no array 'x'"),
    "wrong width": ({"x": samples()[:, :7]}, r"\[N, 7\].*\[N, 8\]"),
    "wrong rank": ({"x": samples()[:, 0]}, r"takes \[N, 8\]"),
    "whole numbers for floats": (
        {"x": np.ones((4, 8), np.int64)},
        "has the type int64, the input takes float32",
    ),
    "labels of another length": ({"x": samples(), "labels": np.zeros(3, np.int64)}, "have different lengths"),
    "labels that are no numbers": (
        {"x": samples(), "labels": np.ones(10, complex)},
        "the labels of <dict> have the type complex128",
    ),
    "no samples": ({"x": samples(0)}, "no samples"),
    "no batches": ([], "no batch"),
    "batches that are no mappings": ([samples()], "must be a dict"),
    "batches of other names": (
        [{"x": samples()}, {"z": samples()}],
        r"has the names \['z'\], the first batch \['x'\]",
    ),
    "a number": (7, "data of type int cannot be read"),
    "no such file": ("nothing-here.npz", "no data file nothing-here.npz"),
    "no such module": ("no_such_module_here:batches", "No module named 'no_such_module_here'"),
    "no such function": ("json:no_such", "module json has no no_such"),
    "a function that fails": ("json:loads", "json:loads failed: TypeError"),
}


@pytest.mark.parametrize(("source", "words"), BAD.values(), ids=BAD.keys())
def test_data_that_does_not_fit_is_refused_in_words(source, words):
    with pytest.raises(DataError, match=words):
        load_data(source, Request(SPECS))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\0\0\x08\x03\0\0\0\x0a\0\0"])
@pytest.mark.parametrize("name", ["d.npz", "d-idx3-ubyte", "d.gz"])
def test_broken_data_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        load_data(tmp_path / name, Request(SPECS))


def test_pickled_arrays_are_never_loaded(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="plain arrays"):
        load_data(tmp_path / "d.npz", Request(SPECS))


def test_samples_lie_along_the_axis_that_inputs_share_by_name():
    float32 = np.dtype(np.float32)
    specs = [
        InputSpec("x", float32, ("N", 8)),
        InputSpec("state", float32, (2, "N", 4)),
        InputSpec("rate", np.dtype(np.int64), ()),
    ]
    data = random_data(specs, declared_axes(specs), 4, seed=0)
    given = data.read().feeds()
    assert len(data) == 16 and {name: array.shape for name, array in given.items()} == {
        "x": (16, 8),
        "state": (2, 16, 4),
        "rate": (),
    }
    # Arrays as the model takes them, or with samples along the first axis.
    for state in (given["state"], np.moveaxis(given["state"], 1, 0)):
        some = load_data(given | {"state": state}, Request(specs)).take(np.array([3, 5])).read().feeds()
        np.testing.assert_array_equal(some["state"], given["state"][:, [3, 5]])
        np.testing.assert_array_equal(some["x"], given["x"][[3, 5]])


def test_inputs_without_a_batch_axis_are_one_sample():
    float32 = np.dtype(np.float32)
    specs = [InputSpec("x", float32, (5, 8)), InputSpec("neighbors", float32, (5, 5))]
    axes = BatchAxes({"x": None, "neighbors": None}, size=1)
    graph = {"x": samples(5), "neighbors": samples(5)[:, :5], "labels": np.arange(5)}
    data = load_data(graph, Request(specs, axes=axes))
    assert len(data) == 1 and data.read().labels[""].tolist() == [[0, 1, 2, 3, 4]]
    np.testing.assert_array_equal(data.read().feeds()["x"], graph["x"])
    with pytest.raises(DataError, match="has 1 sample: give at least 2"):
        data.split(0.1, seed=0)
    several = load_data([graph, graph, graph], Request(specs, axes=axes))
    assert [len(run) for run in several.batches(8)] == [1, 1, 1]


def test_an_input_without_axes_goes_with_every_sample():
    specs = [*SPECS, InputSpec("rate", np.dtype(np.int64), ())]
    batches = [{"x": samples(4), "rate": np.array(16000)}, {"x": samples(2), "rate": np.array(16000)}]
    part = load_data(batches, Request(specs)).take(slice(0, 5))
    assert len(part) == 5 and part.read().feeds()["rate"] == 16000


def test_bytes_that_are_images_go_through_the_transform_and_labels_are_read_without_them():
    spec = InputSpec("image", np.dtype(np.float32), ("N", 3, 8, 8))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    given = {"image": pixels, "labels": np.arange(6)}
    with pytest.raises(DataError, match=r"type uint8, the input takes float32: give --transform, or "):
        load_data(given, Request([spec]))
    data = load_data(given, Request([spec], transform="unit"))
    expected = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_allclose(data.read().inputs["image"], expected, rtol=1e-6)
    assert [labels[""].tolist() for _, labels in data.labels_alone(4)] == [[0, 1, 2, 3], [4, 5]]
    others = dict(other_transforms(data, [spec]))
    assert "unit" not in others
    np.testing.assert_allclose(others["raw"].read().inputs["image"], 255 * expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.png", "is a single image: give the folder that it is in"),
        ("a.pt", ".pt files are not read; write its arrays with numpy.savez, or give MODULE:FUNCTION"),
        ("a.json", ".json files are not read"),
        ("folder.npz", "is a folder, and no .npz file"),
    ],
)
def test_files_of_other_kinds_are_told_what_to_give_instead(tmp_path, name, words):
    path = tmp_path / name
    if name.startswith("folder"):
        path.mkdir()
    else:
        path.write_bytes(b"anything")
    with pytest.raises(DataError, match=re.escape(words)):
        load_data(path, Request(SPECS))


def test_arrays_of_other_names_are_told_the_line_that_saves_them():
    with pytest.raises(
        DataError, match=re.escape("no array 'x' but 'arr_0': name the arrays like the model's")
    ) as caught:
        load_data({"arr_0": samples()}, Request(SPECS))
    assert "numpy.savez('data.npz', **{'x': ..., 'labels': ...})" in str(caught.value)
