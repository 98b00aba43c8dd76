"""Operators that onnxruntime does not have: their library, or no evaluation, and what the file says of it."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune import cli, runtime
from onnxprune.errors import MissingOperatorError, ModelFileError, SettingError
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.workers.ray_pool import _perform
from onnxprune.latency.engines import DENSE, Worker
from onnxprune.system.trust import Trust, trust, trusted
from tests.builders import floats, initializer, mlp, normal
from tests.runtime.sessions import needs_kernels


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trust()
    yield tmp_path
    trust()


def plugin(opset=17, weight=None):
    """x -> Conv -> Relu -> Conv -> a plugin of TensorRT -> y."""
    weights = {"w1": normal(8, 3, 3, 3), "w2": normal(6, 8, 1, 1) if weight is None else weight}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2"], ["b"], "conv2"),
        helper.make_node("EfficientNMS_TRT", ["b"], ["y"], "nms", domain="TRT"),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [floats("x", 1, 3, 8, 8)], [floats("y", 1, 100, 4)], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("TRT", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def only_with_kernels():
    """A file whose operators only the library of the sparse kernels has, and what it computes."""
    onnx.save(mlp(64, 128), "in.onnx")
    onnxprune.prune("in.onnx", "sparse.onnx", rate=0.9, kernels="all")
    expected = make_session(onnx.load("sparse.onnx"), "it").run(None, {"x": normal(4, 64)})[0]
    model = onnx.load("sparse.onnx")
    del model.functions[:]
    onnx.save(model, "custom.onnx")
    return expected


def metadata(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@needs_kernels
def test_every_session_of_a_job_has_the_operators_of_the_libraries():
    expected = only_with_kernels()
    with pytest.raises(MissingOperatorError, match=r"SparseGemm.*--custom-ops LIBRARY, or --no-evaluate"):
        onnxprune.prune("custom.onnx", "out.onnx", rate=0.95)
    library = runtime.library_path()
    result = onnxprune.prune("custom.onnx", "out.onnx", rate=0.95, custom_ops=library)
    assert result.report.evaluation["samples"] == 16
    assert onnxprune.compare("sparse.onnx", "custom.onnx", custom_ops=[library]).outputs[0].mismatched == 0
    worker = Worker(DENSE)
    try:
        worker.load("custom.onnx", 1, {"x": normal(4, 64)})
        assert np.allclose(worker.outputs()[0], expected, atol=1e-4)
    finally:
        worker.close()
    # The next command trusts no library that it is not given.
    with pytest.raises(MissingOperatorError, match=r"--custom-ops LIBRARY$"):
        onnxprune.compare("sparse.onnx", "custom.onnx")


def told(shared, item, progress):
    return trusted()


def test_workers_trust_what_their_job_does(folder):
    version = onnxprune.__version__
    (folder / "lib.so").touch()
    given = Trust((folder,), (folder / "lib.so",))
    assert _perform((version, str(folder), True, given), told, None, None) == given


def test_a_library_that_is_none_is_a_setting_error(folder):
    with pytest.raises(SettingError, match=r"--custom-ops .*gone.so: there is no such file"):
        trust(custom_ops="gone.so")
    onnx.save(mlp(), "in.onnx")
    with pytest.raises(
        SettingError, match=r"--custom-ops .*in.onnx cannot be loaded.*was built for onnxruntime"
    ):
        onnxprune.prune("in.onnx", rate=0.5, custom_ops="in.onnx")


def test_without_evaluation_a_model_that_cannot_run_is_pruned_and_says_so(capsys):
    onnx.save(plugin(), "in.onnx")
    arguments = [
        "in.onnx",
        "out.onnx",
        "--rate",
        "0.5",
        "--no-evaluate",
        "--format",
        "dense",
        "--json",
        "j.json",
    ]
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
        sys.exit(0)
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "Not evaluated (--no-evaluate)" in out
    assert "cosine" not in out and "Evaluated in" not in out
    for name in ("w1", "w2"):
        dense, pruned = (initializer(onnx.load(path), name) for path in ("in.onnx", "out.onnx"))
        kept = pruned != 0
        assert kept.sum() == dense.size // 2
        assert np.array_equal(pruned[kept], dense[kept])
        assert np.abs(dense[kept]).min() >= np.abs(dense[~kept]).max()
    assert json.loads(Path("j.json").read_text())["evaluation"] is None
    written = metadata("out.onnx")
    assert "onnxprune.evaluation" not in written
    assert any("Not evaluated" in note for note in json.loads(written["onnxprune.notes"]))
    assert json.loads(written["onnxprune.settings"])["evaluate"] is False
    onnxprune.report("out.onnx", "out.html")
    page = Path("out.html").read_text()
    assert "Not evaluated" in page and "cosine similarity" not in page


def test_sparse_nodes_of_a_model_that_was_not_run_decode_to_the_pruned_weights():
    onnx.save(plugin(weight=normal(64, 8, 1, 1)), "in.onnx")
    onnxprune.prune("in.onnx", "ops.onnx", rate=0.9, evaluate=False)
    onnxprune.prune("in.onnx", "dense.onnx", rate=0.9, evaluate=False, format="dense")
    assert any(node.domain.startswith("onnxprune") for node in onnx.load("ops.onnx").graph.node)
    restored = onnxprune.prune("ops.onnx", rate=0, evaluate=False, format="dense").model
    for name in ("w1", "w2"):
        assert np.array_equal(initializer(restored, name), initializer(onnx.load("dense.onnx"), name))


def test_with_data_a_model_runs_and_is_only_not_evaluated():
    onnx.save(mlp(), "in.onnx")
    result = onnxprune.prune(
        "in.onnx", "out.onnx", rate=0.5, data={"x": normal(40, 8)}, epochs=1, evaluate=False
    )
    assert result.report.evaluation is None
    assert result.report.fine_tuning
    assert "onnxprune.evaluation" not in metadata("out.onnx")


@pytest.mark.parametrize("opset", [9, 17])
def test_a_model_that_was_not_run_keeps_its_opset(opset):
    onnx.save(plugin(opset), "in.onnx")
    result = onnxprune.prune("in.onnx", "out.onnx", rate=0.9, evaluate=False)
    assert next(each.version for each in onnx.load("out.onnx").opset_import if not each.domain) == opset
    notes = {layer.note for layer in result.report.layers}
    assert any("it was not run" in note or "cannot convert" in note for note in notes) == (opset == 9)


@pytest.mark.parametrize("weight", [normal(6, 8), normal(6, 8, 1, 1).astype(np.int64)])
def test_types_and_shapes_are_checked_where_onnxruntime_does_not(weight):
    onnx.save(plugin(weight=weight), "in.onnx")
    with pytest.raises(ModelFileError, match=r"in\.onnx is broken: .*Conv.*export it again"):
        onnxprune.prune("in.onnx", "out.onnx", rate=0.5, evaluate=False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_drop": 0.1, "rate": 0.5}, "--max-drop and --max-loss are measured by the evaluation"),
        ({"max_loss": 0.1, "data": "d.npz"}, "--max-drop and --max-loss are measured by the evaluation"),
        ({"eval_data": "d.npz", "rate": 0.5}, "--eval-data and --old-data are for the evaluation"),
        ({"kernels": "measured", "rate": 0.5}, "--kernels measured runs the model"),
    ],
)
def test_settings_that_need_the_evaluation_are_refused(settings, words):
    with pytest.raises(SettingError, match=words):
        onnxprune.PruneConfig(**settings, evaluate=False)


def test_a_sweep_evaluates():
    onnx.save(mlp(), "in.onnx")
    with pytest.raises(SettingError, match="a sweep compares its runs: remove --no-evaluate"):
        onnxprune.sweep("in.onnx", grid={"rate": [0.5, 0.6]}, evaluate=False)


def test_fine_tuning_names_the_operator_and_what_works_without():
    onnx.save(plugin(), "in.onnx")
    with pytest.raises(MissingOperatorError, match=r"TRT:EfficientNMS_TRT.*--no-evaluate instead of --data"):
        onnxprune.prune("in.onnx", rate=0.5, data={"x": normal(40, 3, 8, 8)}, epochs=1)
    with pytest.raises(
        onnxprune.OnnxPruneError, match=r"TRT::EfficientNMS_TRT \(node 'nms'\) cannot.*without --data"
    ):
        onnxprune.to_torch("in.onnx")
