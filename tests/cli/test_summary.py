"""The summary on the terminal says what is so, and no more."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune import cli
from onnxprune.cli.tables.job import _times
from tests.builders import floats, mlp, model_of, normal


@pytest.fixture
def summary(tmp_path, monkeypatch, capsys):
    """Runs a job on a small network, and gives what it prints, its lines joined."""
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "in.onnx")
    np.save("inputs.npy", np.random.default_rng(0).random((64, 8), dtype=np.float32))

    def job(*flags):
        cli.main(["in.onnx", "out.onnx", *flags])
        return capsys.readouterr().out

    return job


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (400, 100, "4.0x smaller"),
        (1000, 977, "2.3% smaller"),
        (1000, 1000, ""),
        (100_000, 99_990, ""),
        (1000, 1023, "2.3% larger"),
        (100, 150, "1.5x larger"),
        (100, 0, ""),
    ],
)
def test_a_change_of_size_is_a_factor_or_a_few_percent_or_nothing(before, after, text):
    assert _times(before, after) == text


def test_removed_channels_are_not_called_dead(summary):
    out = summary("--rate", "0.5", "--pattern", "channel", "--calibration-data", "inputs.npy", "--verbose")
    assert re.search(r"- \d+ neurons and channels were removed, with all weights", out)
    assert "dead" not in out


def test_how_the_weights_were_found_is_told_by_verbose_alone_and_what_to_do_always(summary):
    flags = "--rate", "0.2", "--calibration-data", "inputs.npy"
    details = "- fc1.weight is stored dense: sparse it takes", "- Calibrated on at most 56 samples"
    short, long = summary(*flags, "--quiet"), summary(*flags, "--verbose")
    assert not short and all(text in long for text in details)
    usual = summary(*flags)
    assert not any(text in usual for text in details)
    assert "- Nothing was fine-tuned: add --data DATA" in usual and "- Evaluated in onnxruntime on " in usual


def test_the_record_has_how_the_weights_were_found_apart_from_the_notes(summary, tmp_path):
    summary("--rate", "0.2", "--calibration-data", "inputs.npy", "--json", "out.json", "--report", "out.html")
    record = json.loads((tmp_path / "out.json").read_text())
    assert any(note.startswith("Nothing was fine-tuned") for note in record["notes"])
    assert not any(note.startswith("Calibrated on") for note in record["notes"])
    assert any(note.startswith("Calibrated on") for note in record["details"])
    assert (
        "<summary>How the job was done</summary><ul><li>Calibrated on" in (tmp_path / "out.html").read_text()
    )
    metadata = {each.key: each.value for each in onnx.load("out.onnx").metadata_props}
    assert json.loads(metadata["onnxprune.details"])[0].startswith("Calibrated on")


def test_the_outputs_are_beside_the_table_with_what_they_were_measured_on(summary):
    out = " ".join(summary("--rate", "0.5", "--eval-data", "inputs.npy").split())
    assert re.search(
        r"- Evaluated in onnxruntime on inputs.npy, 64 samples. - Output y beside the baseline's: cosine 0\.\d{4}, "
        r"same top-1 [\d.]+%, largest difference [\d.e-]+ \(relative [\d.e-]+\)\.",
        out,
    )


def test_a_model_that_is_only_stored_is_not_told_to_be_fine_tuned(summary):
    assert "Nothing was fine-tuned" in summary("--rate", "0.5")
    assert "Nothing was fine-tuned" not in summary("--rate", "0")


def test_of_many_layers_the_largest_are_shown_and_all_with_verbose(summary):
    widths = [8, *range(64, 32, -1), 4]
    onnx.save(deep(widths), "in.onnx")
    out = summary("--rate", "0.5")
    assert rows(out) == [f"fc{i}" for i in range(1, 17)] and "17 smaller ones (shown by --verbose)" in out
    assert len(rows(summary("--rate", "0.5", "--verbose"))) == 33


def rows(out):
    """The names in the table of layers."""
    return re.findall(r"^ (fc\d+)  +Gemm", out, re.MULTILINE)


def deep(widths):
    """Gemm after Gemm, of these widths; their weights are fc0, fc1, ..."""
    sizes = list(itertools.pairwise(widths))
    nodes = [
        helper.make_node("Gemm", [f"x{i}", f"fc{i}"], [f"x{i + 1}"], transB=1) for i in range(len(sizes))
    ]
    weights = {f"fc{i}": normal(outputs, inputs) for i, (inputs, outputs) in enumerate(sizes)}
    ends = [floats("x0", "N", widths[0])], [floats(f"x{len(sizes)}", "N", widths[-1])]
    return model_of(nodes, *ends, weights)
