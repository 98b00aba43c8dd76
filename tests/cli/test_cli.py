"""The command line as a user meets it: exit status, one line on stderr, and what lies on disk afterwards."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune import cli
from onnxprune.data.images.augment import AUGMENTATIONS
from onnxprune.data.images.steps import PRESETS
from onnxprune.evaluation.metrics import METRICS
from tests.builders import cnn, floats, initializer, mlp, model_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "in.onnx")
    return tmp_path


def run(*arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, arguments)))
        sys.exit(0)
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


def write_truncated():
    content = Path("in.onnx").read_bytes()
    Path("bad.onnx").write_bytes(content[: len(content) // 2])


def write_text():
    Path("bad.onnx").write_text("this is no model\n")


def write_empty():
    Path("bad.onnx").touch()


def write_weightless():
    relu = helper.make_node("Relu", ["x"], ["y"])
    onnx.save(model_of([relu], [floats("x", "N", 8)], [floats("y", "N", 8)], {}), "bad.onnx")


def write_nan():
    model = mlp()
    array = initializer(model, "fc1.weight").copy()
    array[3, 3] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, "fc1.weight"))
    onnx.save(model, "bad.onnx")


def save_data(**arrays):
    np.savez("data.npz", **arrays)


def good_rows(count=20):
    return np.random.default_rng(0).random((count, 8), dtype=np.float32)


DATA = ("in.onnx", "out.onnx", "--rate", "0.5", "--data", "data.npz")
SEARCH = ("in.onnx", "out.onnx", "--max-drop", "1%", "--data", "data.npz")

BAD = {
    "no such file": (None, ("gone.onnx", "out.onnx", "--rate", "0.5"), "no file gone.onnx"),
    "a folder": (None, (".", "out.onnx", "--rate", "0.5"), "cannot be read: it is not a file"),
    "not ONNX": (write_text, ("bad.onnx", "out.onnx", "--rate", "0.5"), "not an ONNX model"),
    "empty file": (write_empty, ("bad.onnx", "out.onnx", "--rate", "0.5"), "not an ONNX model: it is empty"),
    "truncated": (write_truncated, ("bad.onnx", "out.onnx", "--rate", "0.5"), "the file is cut short"),
    "no prunable weight": (
        write_weightless,
        ("bad.onnx", "out.onnx", "--rate", "0.5"),
        "no weight that can be pruned",
    ),
    "NaN in a weight": (write_nan, ("bad.onnx", "out.onnx", "--rate", "0.5"), "fc1.weight.*NaN"),
    "rate of one": (None, ("in.onnx", "out.onnx", "--rate", "1"), "--rate is 1.0: it must be in"),
    "negative rate": (None, ("in.onnx", "out.onnx", "--rate", "-0.5"), "--rate is -0.5: it must be in"),
    "rate in words": (None, ("in.onnx", "out.onnx", "--rate", "most"), "--rate is 'most': give a number"),
    "no rate": (None, ("in.onnx", "out.onnx"), "give exactly one of --rate R"),
    "unknown flag": (None, ("in.onnx", "out.onnx", "--speed", "9"), "No such option '--speed'"),
    "unknown layer": (
        None,
        ("in.onnx", "out.onnx", "--rate", "0.5", "--exclude", "fc9"),
        "selector 'fc9' matches no",
    ),
    "no data file": (None, DATA, "no data file data.npz"),
    "names that do not fit": (lambda: save_data(image=good_rows()), DATA, "no array 'x' but 'image'"),
    "dtypes that do not fit": (
        lambda: save_data(x=np.ones((20, 8), np.uint8)),
        DATA,
        "has the type uint8, the input takes float32",
    ),
    "shapes that do not fit": (
        lambda: save_data(x=good_rows()[:, :5]),
        DATA,
        r"shape \[N, 5\], the input takes \[N, 8\]",
    ),
    "labels that do not fit": (
        lambda: save_data(x=good_rows(), labels=np.arange(20)),
        DATA,
        "the labels of data.npz have the class 4, at sample 4, but the output has 4 classes",
    ),
    "one sample": (lambda: save_data(x=good_rows(1)), DATA, "has 1 sample: give at least 2"),
    "no folder for the target": (None, ("in.onnx", "gone/out.onnx", "--rate", "0.5"), "no folder gone"),
    "a folder as target": (None, ("in.onnx", ".", "--rate", "0.5"), "is a folder"),
    "a file as the target's folder": (
        None,
        ("in.onnx", "in.onnx/out.onnx", "--rate", "0.5"),
        "no folder in.onnx",
    ),
    "a record over a model": (
        None,
        ("in.onnx", "out.onnx", "--rate", "0.5", "--json", "in.onnx"),
        "--json in.onnx is the name of a model",
    ),
    "a recipe over a model": (
        None,
        ("in.onnx", "out.onnx", "--rate", "0.5", "--save-config", "in.onnx"),
        "--save-config in.onnx is the name of a model",
    ),
    "a checkpoint over a model": (
        None,
        ("in.onnx", "out.onnx", "--rate", "0.5", "--checkpoint", "in.onnx"),
        "--checkpoint in.onnx is the name of a model",
    ),
    "the input as target": (None, ("in.onnx", "in.onnx", "--rate", "0.5"), "is the input itself"),
    "a search without data": (
        None,
        ("in.onnx", "out.onnx", "--max-drop", "1%"),
        "--max-drop or --max-loss without --rate searches .* give --data",
    ),
    "a search on no data file": (None, SEARCH, "no data file data.npz"),
    "a search evaluated on no data file": (
        lambda: save_data(x=good_rows()),
        (*SEARCH, "--eval-data", "gone.npz"),
        "no data file gone.npz",
    ),
    "a search for no folder": (
        lambda: save_data(x=good_rows()),
        ("in.onnx", "gone/out.onnx", *SEARCH[2:]),
        "no folder gone",
    ),
    "retraining without data": (
        None,
        ("retrain", "in.onnx", "out.onnx"),
        "retrain needs training data: give --data",
    ),
    "retraining to a rate": (
        None,
        ("retrain", "in.onnx", "out.onnx", "--rate", "0.5"),
        "No such option '--rate'",
    ),
    "picking from what is no search": (
        None,
        ("pick", ".", "out.onnx", "--rate", "0.5"),
        "not the folder of a search",
    ),
    "a JSON file in no folder": (
        None,
        ("in.onnx", "out.onnx", "--rate", "0.5", "--json", "gone/r.json"),
        "--json gone/r.json cannot be written",
    ),
}


@pytest.mark.parametrize(("prepare", "arguments", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_with_status_2_and_touches_nothing(folder, capsys, prepare, arguments, words):
    (folder / "out.onnx").write_bytes(b"what was there before")
    if prepare:
        prepare()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    status, out, err = run(*arguments, capsys=capsys)
    assert status == 2
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    assert re.search(words, err), err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_read_only_folder_is_refused_before_the_work(folder, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, whom no folder refuses.
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    status, _, err = run("in.onnx", "out.onnx", "--rate", "0.5", capsys=capsys)
    assert status == 2 and "Permission denied" in err and err.count("\n") == 1


def test_without_data_the_summary_says_that_nothing_was_fine_tuned_and_how_to(folder, capsys):
    status, out, err = run("in.onnx", "out.onnx", "--rate", "0.5", capsys=capsys)
    assert status == 0 and err == ""
    assert (
        "Nothing was fine-tuned" in out
        and "--data DATA" in out
        and "random inputs" in out
        and "cosine" in out
    )


def test_both_spellings_and_the_alias_of_rate_work(folder, capsys):
    for flags in (
        ["--sparsity", "50%", "--layer_rate", "fc2=0.25"],
        ["--rate", "0.5", "--layer-rate", "fc2=0.25"],
    ):
        status, _, err = run("in.onnx", "out.onnx", "--format", "dense", *flags, capsys=capsys)
        assert status == 0, err
        model = onnx.load("out.onnx")
        assert np.count_nonzero(initializer(model, "fc2.weight")) <= 48


def test_json_holds_the_whole_record(folder, capsys):
    np.savez("data.npz", x=good_rows(40), labels=np.arange(40) % 4)
    status, out, err = run(
        *DATA,
        "--schedule",
        "iterative",
        "--steps",
        "2",
        "--epochs",
        "4",
        "--json",
        "r.json",
        "-v",
        capsys=capsys,
    )
    assert status == 0, err
    report = json.loads((folder / "r.json").read_text())
    assert [layer["name"] for layer in report["layers"]] == ["fc1.weight", "fc2.weight"]
    assert [layer["rate"] for layer in report["layers"]] == [
        1 - layer["kept"] / layer["size"] for layer in report["layers"]
    ]
    assert report["pruned"]["bytes"] == (folder / "out.onnx").stat().st_size
    assert [record["epoch"] for record in report["fine_tuning"]] == [0, 1, 1, 2, 3, 4]
    assert report["evaluation"]["data"].startswith("validation split, 10%")
    assert report["settings"]["rate"] == 0.5 and "epoch" in out


def test_max_drop_leaves_the_target_and_exits_with_1(folder, capsys):
    (folder / "out.onnx").write_bytes(b"what was there before")
    status, _, err = run("in.onnx", "out.onnx", "--rate", "0.95", "--max-drop", "0.1%", capsys=capsys)
    assert status == 1 and "--max-drop" in err and err.count("\n") == 1
    assert (folder / "out.onnx").read_bytes() == b"what was there before"
    assert sorted(path.name for path in folder.iterdir()) == ["in.onnx", "out.onnx"]


def test_inspect_names_every_weight_and_what_cannot_be_pruned(folder, capsys):
    onnx.save(cnn(), "cnn.onnx")
    status, out, _ = run("inspect", "cnn.onnx", capsys=capsys)
    assert status == 0
    for words in ("conv1.weight", "conv2.weight", "fc.weight", "x float32 [N, 1, 8, 8]", "y float32 [N, 4]"):
        assert words in out


def test_one_shot_use_does_not_import_torch(folder):
    code = (
        "import sys; from onnxprune import prune; prune('in.onnx', 'out.onnx', rate=0.5); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=folder).returncode == 0


def test_flags_win_over_the_recipe_which_wins_over_defaults(folder, capsys):
    Path("recipe.yaml").write_text("rate: 0.5\nformat: dense\nremove-dead: false\nlayer-rate: ['fc2=0.25']\n")
    code, _, err = run(
        "in.onnx",
        "out.onnx",
        "--config",
        "recipe.yaml",
        "--rate",
        "0.75",
        "--save-config",
        "all.yaml",
        capsys=capsys,
    )
    assert (code, err) == (0, "")
    model = onnx.load("out.onnx")
    kept = [np.count_nonzero(initializer(model, f"{name}.weight")) for name in ("fc1", "fc2")]
    assert kept == [32, 48]
    run("in.onnx", "again.onnx", "--config", "all.yaml", capsys=capsys)
    assert onnx.load("again.onnx").graph == model.graph


def test_a_broken_recipe_is_one_line_and_status_2(folder, capsys):
    Path("recipe.yaml").write_text("rates: 0.5\n")
    code, _, err = run("in.onnx", "out.onnx", "--config", "recipe.yaml", capsys=capsys)
    assert code == 2 and err.count("\n") == 1 and "'rate'" in err


def test_sensitivity_prints_a_table_keeps_its_state_and_draws_it(folder, capsys):
    save_data(x=np.random.default_rng(0).random((20, 8), dtype=np.float32), labels=np.arange(20) % 4)
    arguments = (
        "sensitivity",
        "in.onnx",
        "--data",
        "data.npz",
        "--rate",
        "0.5",
        "--rate",
        "0.9",
        "--json",
        "scan.json",
    )
    code, out, err = run(*arguments, "--plot", "scan.svg", capsys=capsys)
    assert (code, err) == (0, "") and "fc1.weight" in out and "90%" in out
    assert len(json.loads(Path("scan.json").read_text())["layers"]["fc1.weight"]) == 2
    assert Path("scan.svg").read_text().count("<title>") == 2
    code, again, _ = run(*arguments, capsys=capsys)
    assert code == 0 and again == out
    code, _, err = run(*arguments, "--samples", "10", capsys=capsys)
    assert code == 2 and "samples" in err


def test_pick_lists_the_trials_and_copies_the_one_asked_for(folder, capsys):
    save_data(x=good_rows(200))
    status, out, _ = run(*SEARCH[:2], "--max-drop", "50%", *SEARCH[4:], "--epochs", "1", capsys=capsys)
    assert status == 0 and "onnxprune pick out.onnx.frontier" in out
    status, out, _ = run("pick", "out.onnx.frontier", capsys=capsys)
    models = len(list(Path("out.onnx.frontier").glob("*.onnx")))
    assert status == 0 and out.count("agreement") - out.count("dominated") == models > 1
    status, out, _ = run("pick", "out.onnx.frontier", "dense.onnx", "--rate", "0%", capsys=capsys)
    assert status == 0 and "chosen" in out and Path("dense.onnx").exists()


def test_sweep_prints_each_combination_and_writes_the_one_within_the_budget(folder, capsys):
    Path("grid.yaml").write_text("rate: [0.5, 0.75]\nallocation: [uniform, erk]\nformat: ops\n")
    arguments = ("sweep", "in.onnx", "out.onnx", "--grid", "grid.yaml", "--max-bytes", "10k", "--seeds", "2")
    code, out, err = run(*arguments, "--json", "sweep.json", capsys=capsys)
    assert (code, err) == (0, "")
    assert "4 combinations, 8 runs: mean ± standard deviation over 2 seeds" in out
    assert re.search(r"0\.5 +uniform +96 +", out) and re.search(r"0\.75 +erk +", out)
    assert out.count("chosen") == 1 and "out.onnx is run-" in out
    record = json.loads(Path("sweep.json").read_text())
    assert len(record["combinations"]) == 4 and len(record["runs"]) == 8
    assert record["combinations"][0]["mean"]["kept"] == 96
    assert {"sweep.json", "tradeoff.svg"} <= {file.name for file in Path("out.onnx.sweep").iterdir()}


def test_sweep_without_a_fitting_combination_prints_the_table_and_exits_with_1(folder, capsys):
    Path("grid.yaml").write_text("rate: [0.5, 0.75]\n")
    arguments = ("sweep", "in.onnx", "out.onnx", "--grid", "grid.yaml", "--max-bytes", "10")
    code, out, err = run(*arguments, capsys=capsys)
    assert code == 1 and re.search(r"0\.75 +\d+ +", out) and not Path("out.onnx").exists()
    assert err.startswith("onnxprune: no combination of the grid has files of at most 10 B: ")


def test_sweep_with_a_failed_run_shows_why_and_exits_with_1(folder, capsys):
    # There is no such weight in the model, which only a run finds.
    Path("grid.yaml").write_text("rate: 0.5\nexclude: [[], [fc9]]\n")
    code, out, err = run("sweep", "in.onnx", "--grid", "grid.yaml", capsys=capsys)
    assert code == 1 and "onnxprune: 1 of 2 runs failed" in err
    assert "1 of 1 failed" in out and "failed (exclude fc9):" in out
    code, out, err = run("sweep", "in.onnx", "--grid", "grid.yaml", "--rate", "2", capsys=capsys)
    assert code == 2 and "--rate is 2.0" in err


def test_retrain_keeps_the_format_and_evaluates_on_old_data_and_new(folder, capsys):
    onnx.save(mlp(8, 64), "in.onnx")
    assert run("in.onnx", "pruned.onnx", "--rate", "0.9", "--format", "coo", capsys=capsys)[0] == 0
    save_data(x=good_rows(60), labels=np.arange(60) % 4)
    np.savez("old.npz", x=good_rows(30), labels=np.arange(30) % 4)
    arguments = ("retrain", "pruned.onnx", "out.onnx", "--data", "data.npz", "--old-data", "old.npz")
    status, out, err = run(*arguments, "--epochs", "1", "--json", "report.json", capsys=capsys)
    assert status == 0 and err.startswith(
        "The input model on 6 samples of validation split, 10% of data.npz: top-1 error"
    )
    assert err.splitlines()[1:] == ["The loss on the labels (class numbers) is cross-entropy of logits."]
    assert "top-1 error, old data" in out
    assert onnx.load("out.onnx").graph.sparse_initializer
    assert json.loads(Path("report.json").read_text())["settings"]["data"] == "data.npz"


def test_the_help_names_every_metric_preset_and_augmentation(capsys):
    _, out, _ = run("prune", "--help", capsys=capsys)
    text = " ".join(out.split()).replace("- ", "-")
    assert f"a preset ({', '.join(PRESETS)})" in text
    for name, entry in {**METRICS, **AUGMENTATIONS}.items():
        assert f"{name}: {entry.help}" in text


def test_verbose_shows_the_metric_of_each_epoch_in_its_own_unit(folder, capsys):
    outputs = np.linspace(-1, 1, 160, dtype=np.float32).reshape(40, 4)
    np.savez("data.npz", x=np.ones((40, 8), np.float32), labels=outputs)
    code, out, _ = run(
        *(
            "in.onnx",
            "out.onnx",
            "--rate",
            0.5,
            "--data",
            "data.npz",
            "--metric",
            "psnr",
            "--epochs",
            1,
            "-v",
        ),
        capsys=capsys,
    )
    assert code == 0
    assert "validation PSNR" in out and len(re.findall(r"^ +\d+ .* -?\d+\.\d\d dB *$", out, re.MULTILINE)) > 1


def test_a_sweep_without_an_output_writes_into_the_working_folder_and_not_beside_the_model(
    tmp_path, monkeypatch, capsys
):
    elsewhere = tmp_path / "models"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), elsewhere / "in.onnx")
    Path("grid.yaml").write_text("rate: [0.3, 0.5]")
    assert run("sweep", str(elsewhere / "in.onnx"), "--grid", "grid.yaml", capsys=capsys)[0] == 0
    assert (tmp_path / "in.onnx.sweep" / "sweep.json").exists()
    assert [file.name for file in elsewhere.iterdir()] == ["in.onnx"]
