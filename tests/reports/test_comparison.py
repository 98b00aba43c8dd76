"""Reports with the input model: before and after, side by side, with a price, and as a model card."""

import re

import numpy as np
import onnx
import pytest
import yaml

import onnxprune
from onnxprune import cli
from onnxprune.errors import ModelFileError, SettingError
from onnxprune.reports import latency
from onnxprune.reports.cost import cost_card, costs
from onnxprune.reports.model_card import model_card
from tests.builders import cnn, mlp


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    x = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
    np.savez(folder / "test.npz", x=x, labels=np.arange(40) % 4)
    onnx.save(cnn(), folder / "in.onnx")
    onnx.save(mlp(), folder / "mlp.onnx")
    for name, rate in (("a.onnx", 0.5), ("b.onnx", 0.9)):
        onnxprune.prune(folder / "in.onnx", folder / name, rate=rate)
    onnxprune.prune(folder / "mlp.onnx", folder / "other.onnx", rate=0.5)
    return folder


@pytest.fixture(autouse=True)
def within(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(latency, "SECONDS", 0.05)


def test_with_the_input_model_a_rebuilt_report_has_latency_evaluation_and_the_weights_before():
    cli.main([
        "report", "a.onnx", "page.html", "--baseline", "in.onnx", "--eval-data", "test.npz", "--price", "0.1",
    ])  # fmt: skip
    with open("page.html") as file:
        content = file.read()
    for text in (
        "latency, stock onnxruntime",
        "Error by class",
        "Changed answers",
        "cost of a million",
        "energy per inference, ",
        "<h2>Graph</h2>",
        "<title>remaining</title>",
    ):
        assert text in content, text
    assert "Sparsity patterns" in content and "top-1 error" in content


def test_two_files_of_one_model_are_compared_on_one_page():
    cli.main(["report", "a.onnx", "b.onnx", "two.html", "--baseline", "in.onnx", "--eval-data", "test.npz"])
    with open("two.html") as file:
        content = file.read()
    rows = re.findall(r"<tr>(.*?)</tr>", content)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    rates = next(row for row in cells if row and row[0] == "rate")
    assert rates == ["rate", "0.5", "0.9"]
    errors = [row for row in cells if len(row) == 5 and row[0] in "0123"]
    assert [row[:2] for row in errors] == [[str(each), "10"] for each in range(4)]
    assert "a.onnx and b.onnx" in content and " times as fast" in content


def test_what_a_report_cannot_have_is_refused():
    with pytest.raises(ModelFileError, match="no weight of the same name"):
        onnxprune.report(["a.onnx", "other.onnx"], "no.html")
    with pytest.raises(ModelFileError, match=r"is not the model that a\.onnx was pruned from"):
        onnxprune.report("a.onnx", "no.html", baseline="mlp.onnx")
    for settings in (
        {"price": 0.1},
        {"eval_data": "test.npz"},
        {"baseline": "in.onnx", "price": 0},
        {"watts": 5},
        {"baseline": "in.onnx", "watts": -5},
        {"base_model": "a/b"},
    ):
        with pytest.raises(SettingError):
            onnxprune.report("a.onnx", "no.html", **settings)
    with pytest.raises(SettingError, match="of one model"):
        onnxprune.report(["a.onnx", "b.onnx"], "no.html", model_card="CARD.md")


def test_code_that_a_file_names_is_not_run_unless_it_is_asked_for(folder):
    (folder / "own.py").write_text(
        "def right(outputs, labels):\n    return outputs['y'].argmax(1) == labels\n"
    )
    onnxprune.prune("in.onnx", "own.onnx", rate=0.5, eval_data="test.npz", metric=["own:right"])
    given = {"baseline": "in.onnx", "eval_data": "test.npz"}
    with pytest.raises(SettingError, match="--metric own:right: give it here too"):
        onnxprune.report("own.onnx", "own.html", **given)
    onnxprune.report("own.onnx", "own.html", metric=["own:right"], **given)


def test_the_cost_of_a_million_inferences_is_their_time_at_the_price():
    found = {
        "milliseconds": {latency.BASELINE: 3.6, latency.STOCK: 1.8, latency.KERNELS: 0.9},
        "machine": "CPU",
    }
    assert costs(found, 2.0) == pytest.approx(
        {latency.BASELINE: 2.0, latency.STOCK: 1.0, latency.KERNELS: 0.5}
    )
    title, baseline, pruned, details = cost_card({"price": 2.0, "latency": found})
    assert (title, baseline, pruned) == ("cost of a million inferences", "2", "0.5")
    assert "sparse kernels" in details and "at 2 an hour for CPU" in details
    assert cost_card({"price": None, "latency": found}) is None and cost_card({"price": 1.0}) is None


def test_a_job_writes_a_model_card_that_the_hub_can_read():
    cli.main([
        "in.onnx", "c.onnx", "--rate", "0.5", "--eval-data", "test.npz", "--model-card", "CARD.md", "--base-model",
        "acme/net", "-q",
    ])  # fmt: skip
    with open("CARD.md") as file:
        text = file.read()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["library_name"], front["base_model"]) == ("onnx", "acme/net")
    assert {"onnx", "pruning", "sparse", "unstructured"} == set(front["tags"])
    metric = front["model-index"][0]["results"][0]["metrics"][0]
    shown = float(re.search(r"\| top-1 error \| \S+ \| ([\d.]+)%", text)[1]) / 100
    assert metric["type"] == "accuracy" and metric["value"] == pytest.approx(1 - shown)
    cards = pytest.importorskip("huggingface_hub")
    (found,) = cards.ModelCard(text).data.eval_results
    assert found.metric_value == metric["value"] and found.dataset_name == "test.npz"


def test_a_card_without_evaluation_has_no_metrics(folder):
    report = onnxprune.prune(cnn(), rate=0.5, evaluate=False).report
    front = yaml.safe_load(model_card(report.to_dict()).split("---\n")[1])
    assert front.keys() == {"library_name", "tags"}


@pytest.mark.parametrize("flags", [["--price", "0.1"], ["--watts", "4"], ["--base-model", "a/b"]])
def test_a_flag_of_a_report_without_the_report_is_refused(flags):
    with pytest.raises(SystemExit) as stop:
        cli.main(["in.onnx", "d.onnx", "--rate", "0.5", *flags])
    assert stop.value.code == 2
