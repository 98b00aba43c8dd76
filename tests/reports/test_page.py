"""The page as a browser would find it: whole, on its own, and saying what the record says."""

import hashlib
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import cli, runtime
from onnxprune.commands.report import rebuilt
from onnxprune.config.recipe import load_recipe
from onnxprune.reports import latency
from onnxprune.reports.charts import SMALLEST, Axis, Chart, histogram, svg
from onnxprune.reports.page import command, page
from onnxprune.reports.plots import LIBRARY, plot
from onnxprune.reports.record import BASELINE, FINE_TUNED, REMAINING, record_of_annotations, weight_histogram
from onnxprune.reports.scales import LOGARITHMIC
from tests.builders import cnn, mlp

VOID = {"meta", "path", "circle", "input", "img"}


class Outline(HTMLParser):
    """The text of a page, the attributes that load something, and whether every element is closed."""

    def __init__(self, content):
        super().__init__()
        self.open, self.text, self.loads = [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def record():
    x = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
    labels = np.arange(40) % 4
    return onnxprune.prune(
        cnn(),
        rate=0.7,
        data={"x": x, "labels": labels},
        epochs=2,
        steps=2,
        exclude="conv1",
        allocation="sensitivity",
    ).report.to_dict()


def test_the_page_stands_alone_and_every_element_is_closed(record):
    content = page(record)
    outline = Outline(content)
    assert not outline.open and all(link.startswith("data:") for link in outline.loads)
    own = content.replace(LIBRARY.read_text(), "")
    assert len(own) < len(content) and content.count("plotly.js (basic") == 1
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", own)


def test_a_page_without_charts_leaves_the_library_out(record):
    bare = {name: record[name] for name in ("settings", "layers", "versions", "source_sha256", "evaluation")}
    assert "plotly.js (basic" not in page(bare)


def plots(content):
    """What plotly.js draws, by the name of the chart."""
    found = re.findall(r'data-plot="([^"]*)" aria-label="([^"]*)"', content)
    return {unescape(name): json.loads(unescape(figure)) for figure, name in found}


def test_the_charts_hold_the_numbers_of_the_record(record):
    found = plots(page(record))
    loss = {trace["name"]: trace for trace in found["loss against epoch"]["data"]}
    assert loss["validation"]["y"] == pytest.approx(
        [each["loss"] for each in record["fine_tuning"]], rel=1e-5
    )
    error = found["validation top-1 error against epoch"]
    assert error["data"][0]["y"] == pytest.approx(
        [1 - each["score"] for each in record["fine_tuning"]], rel=1e-5
    )
    assert error["layout"]["yaxis"]["hoverformat"] == ".2%" and error["layout"]["xaxis"]["dtick"] == 1
    curves = found["deviation of the outputs against rate (fraction removed)"]
    assert {trace["name"] for trace in curves["data"]} == set(record["sensitivity"])
    assert curves["layout"]["yaxis"]["type"] == "log"


def test_names_in_charts_are_no_markup():
    line = [(0.0, 0.0), (1.0, 1.0)]
    (figure,) = plots(plot(Chart({"<b>x</b>": line}, Axis("<i>a"), Axis("y")))).values()
    assert figure["data"][0]["name"] == "&lt;b&gt;x&lt;/b&gt;"
    assert figure["layout"]["xaxis"]["title"]["text"] == "&lt;i&gt;a"


def test_a_logarithmic_axis_has_round_ticks():
    axes = Axis("x", "{:.4g}x", LOGARITHMIC), Axis("y", "{:.0e}", LOGARITHMIC)
    (figure,) = plots(plot(Chart({"one": [(1.0, SMALLEST), (40.0, 1.0)]}, *axes))).values()
    assert figure["layout"]["xaxis"]["dtick"] == "D2" and figure["layout"]["xaxis"]["ticksuffix"] == "x"
    assert figure["layout"]["yaxis"]["dtick"] == 1 and figure["data"][0]["y"] == [SMALLEST, 1.0]


def test_a_histogram_is_drawn_by_the_roots_of_its_counts_and_shows_the_counts():
    (figure,) = plots(plot(histogram([0.0, 0.5, 1.0], {"weights": [9, 2500]}))).values()
    (trace,) = figure["data"]
    assert trace["x"] == [0.25, 0.75] and trace["y"] == [3, 50] and trace["text"] == ["9", "2,500"]
    ticks = figure["layout"]["yaxis"]
    assert [round(place**2) for place in ticks["tickvals"]] == [
        int(text.replace(",", "")) for text in ticks["ticktext"]
    ]


def test_pictures_stay_whole_where_they_contain_what_looks_like_a_folder_of_the_job(record):
    text = "iVBORw0K+m/AAAA+m/xy"
    shown = [{"sample": 3, "label": 1, "baseline": 1, "pruned": 2, "picture": text}]
    answers = {"output": "y", "classes": [], "changed": {"lost": 1, "gained": 0, "other": 0}, "shown": shown}
    part = {"whole": text, "part": "", "cells": [1, 1], "shape": [1, 1], "before": [1, 1], "densest": 1.0}
    found = page(
        record
        | {"baseline": {**record["baseline"], "path": "m/in.onnx"}, "maps": {"fc": part}}
        | {"evaluation": {**record["evaluation"], "answers": answers}}
    )
    assert found.count(text) == 2 and "m/in.onnx" not in found


def test_the_page_shows_every_layer_setting_version_and_hash(record):
    text = " ".join(Outline(page(record)).text)
    for layer in record["layers"]:
        assert layer["name"] in text and f"{layer['kept']:,}" in text
    for name, value in record["settings"].items():
        assert name in text and ("" if value is None else str(value)) in text
    assert record["source_sha256"] in text and record["versions"]["onnxruntime"] in text
    assert "loss against epoch" in page(record) and "validation top-1 error against epoch" in page(record)
    assert "excluded by --exclude" in text


def test_the_page_draws_a_metric_that_is_no_accuracy_in_its_own_unit(record):
    epochs = [{**epoch, "metric": "psnr", "score": 18.0 + epoch["epoch"]} for epoch in record["fine_tuning"]]
    content = page({**record, "fine_tuning": epochs})
    assert "validation PSNR against epoch" in content and "18.00 dB" in content


def test_the_page_draws_sensitivities_and_the_weights_before_and_after_pruning_and_fine_tuning(record):
    assert set(record["sensitivity"]) == {layer["name"] for layer in record["layers"]}
    content = page(record)
    assert "deviation of the outputs against rate" in content
    for counts in (one["counts"] for one in record["histograms"].values()):
        assert list(counts)[:2] == [BASELINE, REMAINING]
    assert FINE_TUNED in record["histograms"]["conv2.weight"]["counts"] and FINE_TUNED in content


def test_the_page_draws_a_search_and_marks_the_trial_that_was_chosen(record):
    trials = [
        {
            "rate": rate,
            "kept": 100,
            "size": 5000,
            "metric": "top-1",
            "value": value,
            "seconds": 9.0,
            "model": f"{rate}.onnx",
            "chosen": chosen,
        }
        for rate, value, chosen in ((0.9, 0.98, True), (0.5, 0.99, False))
    ]
    content = page(record | {"trials": trials})
    assert "error on validation data against compression (weights / remaining weights)" in content
    # The point, and its mark in the legend.
    assert "<title>chosen: 10x, 2.00%</title>" in content and "<title>chosen</title>" in content
    assert ">2x<" in content and ">10x<" in content
    assert "Trade-off" not in page(record)


def test_the_recipe_on_the_page_gives_the_same_settings(record, tmp_path):
    text = re.search(r"<pre>(rate: .*?)</pre>", page(record), re.DOTALL)[1]
    (tmp_path / "recipe.yaml").write_text(unescape(text))
    settings = onnxprune.PruneConfig(**load_recipe(tmp_path / "recipe.yaml")).to_dict()
    assert settings == record["settings"]


def test_names_that_look_like_markup_are_shown_as_they_are(record):
    layer = record["layers"][0] | {"name": "<script>alert(1)</script>"}
    assert "<script>alert" not in page(record | {"layers": [layer], "notes": ["<b>bold</b>"]})


def test_the_command_gives_the_settings_that_differ_from_the_defaults():
    settings = onnxprune.PruneConfig(
        rate=0.5, exclude=["a b"], layer_rate={"fc*": 0.9}, mixup=False, criterion="wanda", data="d.npz"
    ).to_dict()
    ends = {"baseline": {"path": "in.onnx"}, "pruned": {"path": "out.onnx"}}
    line = command(ends | {"settings": settings})
    assert line == (
        "onnxprune in.onnx out.onnx --rate 0.5 --criterion wanda --exclude 'a b' --layer-rate 'fc*=0.9' "
        "--data d.npz --no-mixup"
    )


def test_a_page_can_be_rebuilt_from_the_file_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "in.onnx")
    result = onnxprune.prune("in.onnx", "out.onnx", rate=0.5)
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", "in.onnx", "page.html"])
    assert stop.value.code == 2
    cli.main(["report", "out.onnx", "page.html"])
    content = (tmp_path / "page.html").read_text()
    assert "fc1.weight" in content and result.report.source_sha256 in content
    assert "onnxprune in.onnx out.onnx --rate 0.5" in content
    assert not Outline(content).open
    assert record_of_annotations({}) is None


@pytest.mark.parametrize("settings", [{}, {"format": "coo"}, {"values": "int8"}, {"pattern": "channel"}])
def test_a_rebuilt_record_agrees_with_that_of_the_job(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(cnn(), "in.onnx")
    x = np.random.default_rng(0).random((60, 1, 8, 8), dtype=np.float32)
    scope = {} if "pattern" in settings else {"allocation": "sensitivity"}
    result = onnxprune.prune(
        "in.onnx",
        "out.onnx",
        rate=0.7,
        data={"x": x, "labels": np.arange(60) % 4},
        epochs=2,
        **scope,
        **settings,
    )
    job = json.loads(json.dumps(result.report.to_dict()))
    again = json.loads(json.dumps(rebuilt("out.onnx")))
    # Samples of the data stay out of the file.
    job["evaluation"]["answers"]["shown"] = []
    for part in (
        "baseline",
        "pruned",
        "versions",
        "settings",
        "evaluation",
        "source_sha256",
        "output_sha256",
    ):
        assert again[part] == job[part], part
    fields = ("name", "op_type", "nodes", "shape", "shape_after", "size", "kept", "bytes_after", "format")
    for one, other in zip(again["layers"], job["layers"], strict=True):
        assert {key: one[key] for key in fields} == {key: other[key] for key in fields}
    assert again.get("sensitivity", {}).keys() == job["sensitivity"].keys()
    assert again["fine_tuning"][-1]["loss"] == pytest.approx(job["fine_tuning"][-1]["loss"], rel=1e-3)
    for name, found in again["histograms"].items():
        assert list(found["counts"]) == [FINE_TUNED]
        assert sum(found["counts"][FINE_TUNED]) == next(
            layer["kept"] for layer in again["layers"] if layer["name"] == name
        )


def test_annotations_stay_small_however_long_the_training_was(record):
    """A few kB, of a hundred layers some ten."""
    epoch = record["fine_tuning"][-1]
    report = onnxprune.prune(cnn(), rate=0.7).report
    usual = sum(map(len, report.annotations().values()))
    long = replace(
        report, fine_tuning=(epoch,) * 500, sensitivity={str(i): [(0.5, 0.123456789)] * 8 for i in range(99)}
    )
    assert sum(map(len, long.annotations().values())) < usual + 5000 < 10_000


def test_the_command_line_writes_the_page_of_its_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "in.onnx")
    cli.main(["in.onnx", "out.onnx", "--rate", "0.5", "--report", "page.html"])
    text = " ".join(Outline((tmp_path / "page.html").read_text()).text)
    assert "onnxprune in.onnx out.onnx --rate 0.5" in text
    assert hashlib.sha256((tmp_path / "out.onnx").read_bytes()).hexdigest() in text


def test_latency_is_measured_before_and_after_on_one_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.1)
    onnx.save(cnn(), tmp_path / "in.onnx")
    report = onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", rate=0.8).report
    assert report.sample == {"x": (1, 1, 8, 8)}
    found = latency.latency(tmp_path / "in.onnx", tmp_path / "out.onnx", report.sample)
    names = [latency.BASELINE, latency.STOCK, *([latency.KERNELS] if runtime.available() else [])]
    assert list(found["milliseconds"]) == names and found["speedup"][latency.BASELINE] == 1
    content = page(report.to_dict() | {"latency": found})
    assert "latency, stock onnxruntime" in content and found["machine"] in content
    broken = latency.latency(tmp_path / "in.onnx", tmp_path / "missing.onnx", report.sample)
    reason = broken["reason"].replace(f"{tmp_path}/", "")
    assert not broken["milliseconds"] and reason in unescape(page(report.to_dict() | {"latency": broken}))


def test_a_histogram_counts_what_is_not_zero_before_and_after():
    before = np.array([[1.0, -2.0, 0.0, 3.0]], np.float32)
    after = np.array([[0.0, -1.0, 0.0, 2.0]], np.float32)
    found = weight_histogram(before, after)
    counts = {name: sum(numbers) for name, numbers in found["counts"].items()}
    assert counts == {BASELINE: 3, REMAINING: 2, FINE_TUNED: 2}
    assert len(found["edges"]) == len(found["counts"][BASELINE]) + 1
    unchanged = weight_histogram(before, np.where(np.abs(before) > 1, before, 0))
    assert list(unchanged["counts"]) == [BASELINE, REMAINING]
    assert not any(weight_histogram(before, np.zeros_like(before))["counts"][REMAINING])


def test_a_line_of_one_point_or_of_one_height_still_draws():
    for line in ([(0.0, 0.0)], [(0.0, 1.0), (1.0, 1.0)]):
        chart = svg(Chart({"one": line}, Axis("x"), Axis("y", from_zero=True)))
        assert "nan" not in chart and "inf" not in chart


def test_a_loss_that_diverged_is_left_out():
    lines = {"loss": [(0.0, 1.0), (1.0, float("nan")), (2.0, float("inf"))], "none": [(0.0, float("nan"))]}
    chart = Chart(lines, Axis("x"), Axis("y"))
    assert "nan" not in svg(chart) and "inf" not in svg(chart)
    (figure,) = plots(plot(chart)).values()
    assert [trace["y"] for trace in figure["data"]] == [[1.0], []]


def test_the_ticks_of_a_histogram_are_round_counts():
    for most, expected in (
        (1, ["0", "1"]),
        (9, ["0", "1", "2", "5"]),
        (32701, ["0", "2,000", "10,000", "20,000"]),
    ):
        chart = svg(histogram([0.0, 0.5, 1.0], {"weights": [most, 0]}))
        assert re.findall(r'text-anchor="end" fill="currentColor">([^<]+)<', chart) == expected
