"""A sweep from file to file: its runs, its folder, its choice, and going on after an interruption."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune.errors import OnnxPruneError, SettingError, ValidationError
from onnxprune.job import pipeline
from onnxprune.job.sweep import runs
from tests.builders import mlp, normal

X = normal(400, 8, seed=5)
GRID = {
    "rate": [0.5, 0.9],
    "schedule": ["one-shot", "gradual"],
    "allocation": "uniform",
    "learning_rate": 1e-3,
    "epochs": 2,
    "batch_size": 50,
    "warmup": 0,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a model, and data that it is right on."""
    folder = tmp_path_factory.mktemp("sweep")
    onnx.save(mlp(8, 32), folder / "in.onnx")
    session = ort.InferenceSession(str(folder / "in.onnx"), providers=["CPUExecutionProvider"])
    labels = session.run(None, {"x": X})[0].argmax(1)
    np.savez(folder / "data.npz", x=X[:300], labels=labels[:300])
    np.savez(folder / "test.npz", x=X[300:], labels=labels[300:])
    return folder


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch):
    """Copies of them, as working folder: files of a sweep name no other paths."""
    for name in ("in.onnx", "data.npz", "test.npz"):
        (tmp_path / name).write_bytes((prepared / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep(output="out.onnx", **settings):
    given = {"grid": GRID, "seeds": 2, "data": "data.npz", "eval_data": "test.npz", "folder": "runs"}
    if output is not None:
        given["max_drop"] = 1.0
    return onnxprune.sweep("in.onnx", output, **given | settings)


def results(found):
    """What does not depend on the clock."""
    record = found.to_dict() if isinstance(found, onnxprune.Sweep) else found
    return [
        {key: value for key, value in each.items() if key != "seconds"} for each in record["combinations"]
    ]


def contents(folder):
    return {file.name: file.read_bytes() for file in [*folder.glob("runs/*.onnx"), folder / "out.onnx"]}


@pytest.fixture(scope="module")
def swept(prepared):
    """A finished sweep in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(prepared)
        return sweep()


@pytest.fixture
def done(prepared, swept, tmp_path, monkeypatch):
    """A copy of the folder of a finished sweep, as working folder, and its results."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path, swept


def test_every_combination_is_run_with_every_seed_and_the_best_within_the_budget_is_written(done):
    folder, found = done
    assert [each.values for each in found.combinations] == [
        {"rate": rate, "schedule": schedule} for rate in (0.5, 0.9) for schedule in ("one-shot", "gradual")
    ]
    names = {run.name for each in found.combinations for run in each.runs}
    assert len(names) == 8
    assert {file.name for file in (folder / "runs").iterdir()} == {f"{name}.onnx" for name in names} | {
        "sweep.json",
        "tradeoff.svg",
    }
    record = json.loads((folder / "runs" / "sweep.json").read_text())
    assert record["finished"] and results(record) == results(found)
    means = [each["mean"] for each in record["combinations"]]
    fitting = [mean for mean in means if mean["drop"] <= 1.0]
    (chosen,) = [each for each in record["combinations"] if each["chosen"]]
    assert chosen["mean"]["kept"] == min(mean["kept"] for mean in fitting) and chosen["values"]["rate"] == 0.9
    assert record["chosen"] in chosen["runs"]
    size = (folder / "runs" / f"{record['chosen']}.onnx").stat().st_size
    assert size == next(run["scored"]["size"] for run in record["runs"] if run["name"] == record["chosen"])


def test_only_the_file_that_is_written_is_evaluated_on_test_data_and_its_metadata_says_so(done):
    folder, found = done
    assert found.evaluation["data"] == "test.npz" and found.evaluation["samples"] == 100
    written = {prop.key: prop.value for prop in onnx.load("out.onnx").metadata_props}
    # Samples of the data stay out of the file.
    answers = found.evaluation["answers"] | {"shown": []}
    assert json.loads(written["onnxprune.evaluation"]) == json.loads(
        json.dumps(found.evaluation | {"answers": answers})
    )
    settings = json.loads(written["onnxprune.settings"])
    assert (settings["eval_data"], settings["rate"]) == ("test.npz", 0.9) and "checkpoint" not in settings
    assert json.loads(written["onnxprune.notes"])[0].startswith(
        "Chosen from 4 combinations with 2 seeds each"
    )
    for file in (folder / "runs").glob("*.onnx"):
        of_run = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
        assert "validation split" in json.loads(of_run["onnxprune.evaluation"])["data"]
    # The scores are those of onnxruntime on the file itself.
    again = onnxprune.compare("in.onnx", "out.onnx", data="test.npz").to_dict()
    assert again["pruned"] == found.evaluation["pruned"]
    onnxprune.report("out.onnx", "page.html")


def test_a_run_is_the_job_of_its_settings(done):
    _, found = done
    last = found.combinations[-1]
    common = {key: value for key, value in GRID.items() if not isinstance(value, list)}
    report = onnxprune.prune("in.onnx", data="data.npz", seed=1, **common, **last.values).report
    assert last.runs[1].scored.drop == report.evaluation["drop"]
    assert last.runs[1].scored.value == report.evaluation["pruned"]["value"]
    assert last.runs[1].scored.kept == sum(layer.kept for layer in report.layers)


def test_an_interrupted_sweep_goes_on_to_the_same_results_and_bytes(done):
    folder, whole = done
    wanted = contents(folder)
    for file in [*(folder / "runs").iterdir(), folder / "out.onnx"]:
        file.unlink()

    def interrupt(stage, fraction):
        if stage == "run 4 of 8: fine-tune" and fraction > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(progress=interrupt, checkpoint_minutes=0)
    assert not (folder / "out.onnx").exists()
    assert len(json.loads((folder / "runs" / "sweep.json").read_text())["runs"]) == 3
    assert len(list((folder / "runs").glob("*.state"))) == 1
    with pytest.raises(SettingError, match="holds a sweep already: go on with it with --resume"):
        sweep()
    with pytest.raises(SettingError, match="belongs to a sweep with other epochs"):
        sweep(resume=True, epochs=3)
    performed = []
    gone_on = sweep(resume=True, progress=lambda stage, fraction: performed.append(stage.split(":")[0]))
    assert list(dict.fromkeys(performed)) == [f"run {number} of 8" for number in range(4, 9)]
    assert results(gone_on) == results(whole) and contents(folder) == wanted
    assert not list((folder / "runs").glob("*.state"))


def test_a_killed_sweep_goes_on_to_the_same_results_and_bytes(done):
    folder, whole = done
    wanted = contents(folder)
    for file in [*(folder / "runs").iterdir(), folder / "out.onnx"]:
        file.unlink()
    code = "from tests.job.sweep.test_sweep import sweep; sweep()"
    root = str(__file__).removesuffix("/tests/job/sweep/test_sweep.py")
    process = subprocess.Popen([sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"])
    index = folder / "runs" / "sweep.json"
    while not index.exists() or len(json.loads(index.read_text())["runs"]) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (folder / "out.onnx").exists()
    assert results(sweep(resume=True)) == results(whole) and contents(folder) == wanted


def test_a_finished_sweep_goes_on_with_more_values_and_another_budget(done):
    _, first = done
    stages = []

    def progress(stage, fraction):
        stages.append(stage.split(":")[0])

    again = sweep(output="other.onnx", resume=True, max_drop=None, max_bytes="1MB", progress=progress)
    assert not stages and results(again)[0]["mean"] == results(first)[0]["mean"]
    drops = [each["mean"]["drop"] for each in again.to_dict()["combinations"]]
    assert again.chosen.combination is again.combinations[drops.index(min(drops))]
    more = sweep(
        None, grid=GRID | {"rate": [0.9, 0.7], "schedule": "gradual"}, seeds=3, resume=True, progress=progress
    )
    # Two runs of 0.9 are known; its third seed, and 0.7, are new.
    assert len(set(stages)) == 4 and len(more.combinations) == 2
    assert more.combinations[0].runs[:2] == first.combinations[3].runs


def test_a_run_that_fails_is_recorded_and_the_others_go_on_and_it_is_repeated(folder, monkeypatch):
    original = pipeline.run

    def failing(source, target, config, *others):
        if config.rate == 0.9 and config.seed == 1:
            raise OnnxPruneError("the disk is on fire")
        return original(source, target, config, *others)

    monkeypatch.setattr(runs, "run", failing)
    found = sweep(grid=GRID | {"schedule": "one-shot"})
    assert [(len(each.scored), each.errors) for each in found.combinations] == [
        (2, []),
        (1, ["the disk is on fire"]),
    ]
    # The failed combination has fewer weights, but not all its seeds.
    assert found.chosen.combination is found.combinations[0] and len(found.failed) == 1
    monkeypatch.setattr(runs, "run", original)
    again = sweep(grid=GRID | {"schedule": "one-shot"}, resume=True)
    assert not again.failed and again.chosen.combination is again.combinations[1]


def test_if_all_runs_fail_so_does_the_sweep(folder):
    with pytest.raises(OnnxPruneError, match=r"all runs of the sweep failed; the first one: .*nowhere"):
        sweep(data="nowhere.npz", seeds=1)


def test_no_combination_within_the_budget_leaves_the_target_as_it_was(folder):
    (folder / "out.onnx").write_bytes(b"before")
    with pytest.raises(
        ValidationError, match=r"no combination of the grid has a mean drop .* and files of at most 10 B: "
    ):
        sweep(max_bytes=10, seeds=1, grid=GRID | {"schedule": "one-shot"})
    assert (folder / "out.onnx").read_bytes() == b"before"
    assert json.loads((folder / "runs" / "sweep.json").read_text())["finished"]


def test_without_training_runs_are_scored_on_the_validation_data_and_need_no_torch(folder):
    code = (
        "import sys, onnxprune; found = onnxprune.sweep('in.onnx', grid={'rate': [0.5, 0.9]}, "
        "validation_data='test.npz', folder='runs'); assert 'torch' not in sys.modules; "
        "print(found.combinations[0].scored[0].metric, found.combinations[0].scored[0].baseline)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["top-1", "1.0"]


def test_each_target_of_a_grid_chooses_what_suits_it(folder):
    grid = {"rate": 0.5, "target": ["mnn", "ncnn"]}
    onnxprune.sweep("in.onnx", grid=grid, validation_data="test.npz", folder="runs")
    models = [onnx.load(path) for path in (folder / "runs").glob("*.onnx")]
    fixed = sorted(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value for model in models)
    assert fixed == [0, 1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_drop": None}, "writes out.onnx for a budget only"),
        ({"grid": None}, "a sweep needs a grid"),
        ({"checkpoint": "state"}, "the settings: a sweep saves the state of its runs"),
        ({"eval_data": "gone.npz"}, "gone.npz"),
        (
            {"grid": {"rate": 0.5, "criterion": ["magnitude", "taylor"]}, "data": None},
            "taylor needs gradients",
        ),
        ({"max_bytes": "many"}, "--max-bytes is 'many'"),
        ({"seeds": 0}, "--seeds is 0"),
    ],
)
def test_a_sweep_that_cannot_end_well_is_refused_before_any_run(folder, settings, words):
    with pytest.raises(OnnxPruneError, match=words):
        sweep(**settings)
    assert not list(folder.glob("runs/run-*"))


@pytest.mark.parametrize("given", [None, "notes.txt"])
def test_a_sweep_interrupted_before_its_first_run_leaves_what_was_there(folder, given):
    def interrupt(stage, fraction):
        raise KeyboardInterrupt

    if given is not None:
        (folder / "runs").mkdir()
        (folder / "runs" / given).touch()
    with pytest.raises(KeyboardInterrupt):
        sweep(progress=interrupt)
    left = sorted(path.name for path in folder.glob("runs/*"))
    assert left == ([] if given is None else [given, "sweep.json"])
    assert (folder / "runs").exists() == (given is not None)
