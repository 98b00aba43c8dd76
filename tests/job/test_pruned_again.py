"""A file that onnxprune wrote is pruned again: what stays of its form, and what the summary says is lost."""

import json

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import SettingError
from onnxprune.job.earlier import TUNED
from onnxprune.model.files.io import load
from onnxprune.reports.record import record_of_annotations
from tests.sparse.graphs import parse, run, sparse_array

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 128)).astype(np.float32)
LABELED = {"x": RNG.normal(size=(64, 128)).astype(np.float32), "labels": np.arange(64) % 10}
TRAINED = {"epochs": 1, "learning_rate": 1e-2, "schedule": "one-shot", "allocation": "uniform", "distill": 0}
# On them a training always has something to learn.
TRAINED |= {"data": LABELED, "validation_data": LABELED}


def network(opset=20):
    text = "g (float[n, 128] x) => (float[n, 10] y) { h = MatMul (x, w1) r = Relu (h) y = MatMul (r, w2) }"
    return parse(
        text,
        opset=opset,
        w1=sparse_array(128, 256, density=0.9),
        w2=sparse_array(256, 10, density=0.9, seed=1),
    )


def again(tmp_path, first, then):
    """The files of two jobs, one on the other's, and the notes of the second."""
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    uniform = {} if first.get("pattern") == "2:4" else {"allocation": "uniform"}
    onnxprune.prune(network(), one, **{"rate": 0.5} | uniform | first)
    result = onnxprune.prune(one, two, **then)
    return one, two, result.report


def types(report):
    return [layer.values for layer in report.layers]


@pytest.mark.parametrize("values", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("rate", [0, 0.7])
def test_rounded_values_stay_as_they_are_where_a_job_leaves_them(tmp_path, values, rate):
    one, two, report = again(tmp_path, {"values": values}, {"rate": rate, "allocation": "uniform"})
    assert types(report) == [values, values]
    assert report.settings["values"] == "fp32"
    assert two.stat().st_size <= one.stat().st_size + 512
    assert not any("were " + values in note for note in report.notes)
    if rate == 0:
        assert run(onnx.load(two), x=X)[0].tobytes() == run(onnx.load(one), x=X)[0].tobytes()


@pytest.mark.parametrize("values", ["fp16", "int8", "int4"])
def test_values_that_a_training_changes_are_floats_with_a_note_of_the_flag_that_rounds_them(tmp_path, values):
    one, two, report = again(tmp_path, {"values": values}, {"rate": 0.6, **TRAINED})
    assert types(report) == ["", ""]
    size = two.stat().st_size
    assert size > one.stat().st_size
    assert (
        f"The values of w1, w2 were {values} in the input file, and are stored in floats, because the job changed "
        f"them: --values {values} rounds them again." in report.notes
    )
    _, small, report = again(tmp_path, {"values": values}, {"rate": 0.6, "values": values, **TRAINED})
    assert types(report) == [values, values] and small.stat().st_size < size
    assert not any("were " + values in note for note in report.notes)


def test_values_in_floats_are_not_rounded_because_another_weight_is(tmp_path):
    *_, report = again(tmp_path, {}, {"rate": 0})
    assert types(report) == ["", ""]


LOST = {
    "dense": (
        {"format": "dense"},
        {"rate": 0.6},
        "The input file was written with --format dense, this one with --format ops: --format dense keeps it.",
    ),
    "coo": (
        {"format": "coo"},
        {"rate": 0.6},
        "The input file was written with --format coo, this one with --format ops: --format coo keeps it.",
    ),
    "1x4": (
        {"pattern": "1x4"},
        {"rate": 0.6},
        "The input model was pruned with --pattern 1x4, and further with --pattern unstructured: --pattern 1x4 keeps "
        "it.",
    ),
    "2:4": (
        {"pattern": "2:4"},
        {"rate": 0.5, "allocation": "auto"},
        "The input model was pruned with --pattern 2:4, and further with --pattern unstructured: --pattern 2:4 --rate "
        "0.5 keeps it.",
    ),
}


@pytest.mark.parametrize(("first", "then", "note"), LOST.values(), ids=LOST)
def test_what_is_lost_is_told_with_the_flag_that_keeps_it(tmp_path, first, then, note):
    _, _, report = again(tmp_path, first, then)
    assert note in report.notes
    _, _, kept = again(tmp_path, first, then | first)
    assert note not in kept.notes and not any("keeps it" in each for each in kept.notes)


def test_nothing_is_told_of_a_pattern_that_nothing_is_pruned_out_of(tmp_path):
    _, _, report = again(tmp_path, {"pattern": "1x4"}, {"rate": 0})
    assert not any("keeps it" in note for note in report.notes)


@pytest.mark.parametrize(("kernels", "told"), [("estimated", True), ("all", False)])
def test_kernels_that_tune_chose_are_told_to_be_chosen_anew(tmp_path, kernels, told):
    one = tmp_path / "one.onnx"
    onnxprune.prune(network(), one, rate=0.5)
    tuned = onnx.load(one)
    tuned.metadata_props.add(key=TUNED, value=json.dumps({"threads": 1}))
    report = onnxprune.prune(tuned, rate=0.6, kernels=kernels).report
    assert any("tune` chose for the input file" in note for note in report.notes) is told


def test_a_dense_file_of_another_program_says_nothing():
    assert not any("input file" in note for note in onnxprune.prune(network(), rate=0.6).report.notes)


@pytest.mark.parametrize("opset", [13, 20])
def test_the_opset_and_external_data_stay(tmp_path, opset):
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    onnxprune.prune(network(opset), one, rate=0.5, external_data="always")
    onnxprune.prune(one, two, rate=0.6)
    versions = {each.domain: each.version for each in onnx.load(two, load_external_data=False).opset_import}
    assert versions[""] == opset
    assert load(two)[1].external


def test_annotations_are_those_of_the_last_job(tmp_path):
    _, two, _ = again(tmp_path, {"values": "int8"}, {"rate": 0.7})
    record = record_of_annotations(load(two)[0].metadata_props)
    assert record is not None and record["settings"]["rate"] == 0.7


def test_metadata_with_a_setting_of_no_kind_is_refused_where_it_is_needed(tmp_path):
    one = tmp_path / "one.onnx"
    onnxprune.prune(network(), one, rate=0.5, allocation="uniform")
    model = onnx.load(one)
    for entry in model.metadata_props:
        if entry.key == "onnxprune.settings":
            entry.value = '{"format": [], "pattern": {}}'
    onnx.save(model, one)
    onnxprune.prune(one, tmp_path / "two.onnx", rate=0.6)
    with pytest.raises(SettingError, match="format"):
        onnxprune.retrain(one, tmp_path / "three.onnx", data=LABELED, epochs=1, learning_rate=1e-3)


@pytest.mark.parametrize(
    "damaged",
    [
        {"settings": "{"},
        {"settings": "[]"},
        {"layers": "3"},
        {"layers": '{"w1": 3}'},
        {"layers": '["w1"]'},
    ],
)
def test_metadata_that_is_no_record_any_more_stops_nothing(damaged, tmp_path):
    one = tmp_path / "one.onnx"
    onnxprune.prune(network(), one, rate=0.5, allocation="uniform")
    model = onnx.load(one)
    for entry in model.metadata_props:
        entry.value = damaged.get(entry.key.removeprefix("onnxprune."), entry.value)
    onnx.save(model, one)
    report = onnxprune.prune(one, tmp_path / "two.onnx", rate=0.6, allocation="uniform").report
    assert sum(layer.kept for layer in report.layers) < 0.41 * 128 * 266
    onnxprune.export(one, tmp_path / "plain.onnx")
    onnxprune.retrain(one, tmp_path / "three.onnx", data=LABELED, epochs=1, learning_rate=1e-3)
