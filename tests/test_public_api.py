"""What `import onnxprune` gives: one name per command, typed, and nothing heavy imported before it is used."""

import dataclasses
import importlib.util
import inspect
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.config.settings import PruneConfig, RetrainSettings
from tests.builders import mlp

COMMANDS = {
    "bench", "compare", "export", "inspect", "pick", "prune", "pruning_session", "report", "retrain", "sensitivity",
    "sweep", "to_torch", "tune",
}  # fmt: skip
OTHERS = {"OnnxPruneError", "PruneConfig", "PruningSession", "Result", "Sweep", "__version__", "runtime"}
ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "click", "rich")


def python(*arguments, cwd=None):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_names_each_command_the_settings_the_error_and_the_runtime():
    assert set(onnxprune.__all__) == COMMANDS | OTHERS
    assert set(onnxprune.__all__) <= set(dir(onnxprune))


@pytest.mark.parametrize("name", sorted(COMMANDS | OTHERS))
def test_every_public_name_is_there_and_documented(name):
    value = getattr(onnxprune, name)
    assert name == "__version__" or inspect.getdoc(value)
    assert name not in COMMANDS or (callable(value) and value.__name__ == name)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'onnxprune' has no attribute 'shrink'"):
        _ = onnxprune.shrink


def test_every_module_of_commands_is_a_public_name():
    modules = {path.stem for path in (ROOT / "onnxprune" / "commands").glob("*.py")}
    assert modules - {"__init__", "keywords"} == COMMANDS


def test_importing_the_package_imports_no_other():
    code = f"import sys, onnxprune; print([name for name in {HEAVY} if name in sys.modules])"
    assert python("-c", code) == "[]"


def test_the_runtime_is_reached_by_a_bare_import_and_needs_neither_torch_nor_onnx():
    code = (
        "import sys, onnxprune; path = onnxprune.runtime.library_path(); "
        "print([name for name in ('torch', 'onnx', 'onnx_ir', 'onnxscript') if name in sys.modules])"
    )
    assert python("-c", code) == "[]"


def test_the_module_runs_as_the_command_does():
    assert python("-m", "onnxprune", "--version") == f"onnxprune, version {version('onnxprune')}"
    assert onnxprune.__version__ == version("onnxprune")


def test_the_package_says_that_it_is_typed():
    assert (Path(onnxprune.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize(
    ("command", "settings", "first"),
    [
        ("prune", PruneConfig, ["model", "output", "progress"]),
        ("retrain", RetrainSettings, ["model", "output", "progress"]),
        ("pruning_session", PruneConfig, ["model", "updates"]),
        ("sweep", PruneConfig, ["model", "output", "progress", "grid", "seeds", "folder", "max_bytes"]),
    ],
)
def test_the_signature_of_a_job_names_every_setting_as_a_keyword(command, settings, first):
    parameters = inspect.signature(getattr(onnxprune, command)).parameters
    fields = dataclasses.fields(settings)
    assert list(parameters)[: len(first)] == first
    assert set(list(parameters)[len(first) :]) == {each.name for each in fields}
    for each in fields:
        assert parameters[each.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[each.name].default == each.default


RIGHT = """\
import numpy as np

import onnxprune

result = onnxprune.prune("a.onnx", "b.onnx", rate=0.5, layer_rate={"fc*": 0.9}, data="x.npz")
print(result.report.pruned.bytes)
onnxprune.retrain("b.onnx", "c.onnx", data={"x": np.ones((4, 8))}, regrow=True, epochs=3)
session = onnxprune.pruning_session("a.onnx", 100, rate=0.5, schedule="gradual")
session.step()
found = onnxprune.compare("a.onnx", "b.onnx", data="x.npz", seed=3)
scan = onnxprune.sensitivity("a.onnx", "x.npz", rates=(0.5, 0.9))
print(found.samples, scan.layers)
swept = onnxprune.sweep("a.onnx", "b.onnx", grid={"rate": [0.5, 0.9]}, seeds=3, data="x.npz", max_drop=0.01)
print(swept.combinations[0].runs, swept.evaluation)
try:
    onnxprune.tune("b.onnx", "d.onnx")
except onnxprune.OnnxPruneError as error:
    print(error, onnxprune.__version__, onnxprune.runtime.available())
"""
# Each is an error of its line, and of no other.
WRONG = """\
import onnxprune

onnxprune.prune("a.onnx", "b.onnx", rates=0.5)
onnxprune.prune("a.onnx", "b.onnx", rate="half")
onnxprune.retrain("a.onnx", "b.onnx", data="x.npz", rate=0.5)
onnxprune.pruning_session("a.onnx", 100, rate=0.5, epoch=3)
onnxprune.compare("a.onnx", "b.onnx", tolerance=0.1)
onnxprune.sweep("a.onnx", grid="grid.yaml", seed="none")
onnxprune.prune("a.onnx", rate=0.5).reports
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
@pytest.mark.parametrize(
    ("command", "word", "meant"),
    [
        ("prune", "rat", "rate"),
        ("sweep", "gird", "grid"),
        ("retrain", "learnin_rate", "learning_rate"),
        ("pruning_session", "update", "updates"),
    ],
)
def test_a_misspelled_setting_is_refused_with_the_nearest_one(command, word, meant):
    with pytest.raises(
        onnxprune.OnnxPruneError,
        match=rf"^onnxprune.{command} has no setting '{word}'; do you mean '{meant}'\?",
    ):
        getattr(onnxprune, command)("in.onnx", **{word: 0.5})


def test_mypy_strict_takes_right_calls_and_names_the_line_of_each_wrong_one(tmp_path):
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    # The sources of other packages are not read, which would take a minute.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n[mypy-onnxprune.*]\nfollow_imports = silent\n"
        "[mypy-torch.*,onnx.*,onnx_ir.*,onnxruntime.*,onnxscript.*]\nfollow_imports = skip\n"
        "follow_imports_for_stubs = true\nignore_missing_imports = true\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "right.py", "wrong.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert done.returncode == 1, done.stdout + done.stderr
    assert [line for line in errors if not line.startswith("wrong.py:")] == []
    assert [int(line.split(":")[1]) for line in errors] == list(range(3, len(WRONG.splitlines()) + 1))


@pytest.mark.parametrize("given", [None, 5, b"model", ["a.onnx"]], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize(
    "read",
    [
        partial(onnxprune.prune, rate=0.5),
        onnxprune.inspect,
        onnxprune.to_torch,
        partial(onnxprune.pruning_session, updates=1, rate=0.5),
    ],
    ids=["prune", "inspect", "to_torch", "pruning_session"],
)
def test_what_is_no_model_is_refused_by_its_type(read, given):
    with pytest.raises(onnxprune.OnnxPruneError, match=f"and not {type(given).__name__}: give one of these"):
        read(given)


def test_a_report_of_a_model_in_memory_is_refused(tmp_path):
    with pytest.raises(onnxprune.OnnxPruneError, match="and not of a ModelProto: give a path"):
        onnxprune.report(mlp(), tmp_path / "r.html")


@pytest.mark.parametrize(
    ("data", "refusal"),
    [("", "the name of the data is empty"), (np.zeros((4, 8), np.float32), "each must be a dict")],
    ids=["an empty name", "an array"],
)
def test_data_without_names_is_refused(data, refusal):
    with pytest.raises(onnxprune.OnnxPruneError, match=refusal):
        onnxprune.prune(mlp(), rate=0.5, eval_data=data)
