import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxprune
from onnxprune import cli, runtime
from onnxprune.commands.tune import tune
from onnxprune.errors import NothingToPruneError, SettingError
from onnxprune.runtime.timing import Timing
from onnxprune.sparse import choose
from onnxprune.sparse.functions import DOMAIN
from onnxprune.sparse.restore import from_ops
from tests.builders import initializer, mlp
from tests.sparse.test_dynamic import FORMS as DYNAMIC_FORMS
from tests.sparse.test_dynamic import model_of as dynamic_model
from tests.sparse.test_quantized import FORMS as INTEGER_FORMS
from tests.sparse.test_quantized import model_of as integer_model

pytestmark = pytest.mark.skipif(not runtime.available(), reason=runtime.available().reason or "-")


def wide() -> onnx.ModelProto:
    return mlp(64, 128, 32)


def dense_weights(path) -> list[np.ndarray]:
    graph = ir.from_proto(onnx.load(path))
    from_ops(graph)
    proto = ir.to_proto(graph)
    return [initializer(proto, name) for name in ("fc1.weight", "fc2.weight")]


def by_kernel(path) -> int:
    return sum(node.domain == DOMAIN for node in onnx.load(path).graph.node)


@pytest.fixture
def ratio(monkeypatch):
    """Has every measurement find this many times dense's speed."""

    def force(value: float) -> None:
        timing = Timing(value, 1.0, value)
        monkeypatch.setattr(choose, "time_node", lambda *arguments: timing)
        monkeypatch.setattr(
            choose.GraphTimer, "together", lambda self, choices, turns=1: [timing for _ in choices]
        )

    return force


@pytest.mark.parametrize("form", ["ops", "dense"])
def test_kernels_are_chosen_where_they_were_faster_and_weights_are_unchanged(form, tmp_path, ratio):
    pruned, fast, slow, again = (tmp_path / f"{name}.onnx" for name in ("pruned", "fast", "slow", "again"))
    onnxprune.prune(wide(), pruned, rate=0.9, format=form)
    expected = dense_weights(pruned)
    for measured, source, target in ((3.0, pruned, fast), (0.5, fast, slow), (3.0, slow, again)):
        ratio(measured)
        tune(source, target)
        onnx.checker.check_model(target, full_check=True)
        assert by_kernel(target) == (2 if measured > 1 else 0)
        for got, wanted in zip(dense_weights(target), expected, strict=True):
            assert (got == wanted).all()
    assert onnx.load(again).graph == onnx.load(fast).graph
    properties = {prop.key: prop.value for prop in onnx.load(again).metadata_props}
    assert json.loads(properties["onnxprune.tuned"])["by_kernel"] == ["fc1", "fc2"]
    assert json.loads(properties["onnxprune.settings"])["rate"] == 0.9


def test_external_data_stays_external(tmp_path, ratio):
    onnx.save(wide(), tmp_path / "in.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    onnxprune.prune(tmp_path / "in.onnx", tmp_path / "pruned.onnx", rate=0.5)
    ratio(2.0)
    tuning = tune(tmp_path / "pruned.onnx", tmp_path / "tuned.onnx")
    assert (tmp_path / "tuned.onnx.data").exists()
    assert by_kernel(tmp_path / "tuned.onnx") == 2
    assert tuning.bytes_after == pytest.approx(tuning.bytes_before, rel=0.1)


def test_a_real_measurement_gives_a_model_of_the_same_outputs(tmp_path):
    onnxprune.prune(wide(), tmp_path / "pruned.onnx", rate=0.9)
    tuning = tune(tmp_path / "pruned.onnx", tmp_path / "tuned.onnx", input_shape={"x": (3, 64)}, seconds=0.5)
    assert tuning.input_shapes == {"x": (3, 64)} and len(tuning.choice.nodes) == 2
    assert all(node.timing.dense > 0 for node in tuning.choice.nodes)
    x = np.random.default_rng(0).random((3, 64), dtype=np.float32)
    got, expected = (
        runtime.session(tmp_path / f"{name}.onnx").run(None, {"x": x})[0] for name in ("tuned", "pruned")
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_model_that_was_never_pruned_is_refused(tmp_path):
    onnx.save(mlp(), tmp_path / "in.onnx")
    with pytest.raises(NothingToPruneError, match="prune it first"):
        tune(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("shapes", "words"),
    [({"z": (1, 64)}, "no such input"), ({"x": (1, 65)}, "does not fit"), ({"x": (64,)}, "does not fit")],
)
def test_shapes_that_do_not_fit_are_refused(shapes, words, tmp_path):
    onnxprune.prune(wide(), tmp_path / "pruned.onnx", rate=0.9)
    with pytest.raises(SettingError, match=words):
        tune(tmp_path / "pruned.onnx", tmp_path / "tuned.onnx", input_shape=shapes)


def test_the_command_prints_every_node_and_the_whole_graph(tmp_path, ratio, capsys):
    onnxprune.prune(wide(), tmp_path / "pruned.onnx", rate=0.9, remove_dead=False)
    ratio(2.0)
    paths = [str(tmp_path / "pruned.onnx"), str(tmp_path / "tuned.onnx")]
    cli.main(["tune", *paths, "--input-shape", "x:2,64", "--threads", "1"])
    out = capsys.readouterr().out
    for words in ("fc1", "fc2", "sparse", "128x64", "x [2, 64]", "2.00 times as fast"):
        assert words in out


def test_prune_measures_kernels_or_uses_them_for_all_nodes(tmp_path, ratio):
    for kernels, measured, count in (("measured", 3.0, 2), ("measured", 0.5, 0), ("all", 0.5, 2)):
        ratio(measured)
        onnxprune.prune(wide(), tmp_path / "out.onnx", rate=0.9, kernels=kernels)
        assert by_kernel(tmp_path / "out.onnx") == count


def test_without_the_library_measured_kernels_are_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda: runtime.Availability(False, "no compiler"))
    with pytest.raises(SettingError, match="no compiler"):
        onnxprune.prune(wide(), rate=0.9, kernels="measured")


@pytest.mark.parametrize("form", [*INTEGER_FORMS, *DYNAMIC_FORMS])
def test_nodes_of_integers_are_measured_as_well(form, tmp_path):
    build = integer_model if form in INTEGER_FORMS else dynamic_model
    onnxprune.prune(build(form, density=1.0), tmp_path / "pruned.onnx", rate=0.85, remove_dead=False)
    shape = (2, 12, 7, 7) if "Conv" in form else (2, 40)
    tuning = tune(tmp_path / "pruned.onnx", tmp_path / "tuned.onnx", input_shape={"x": shape}, seconds=0.1)
    (node,) = tuning.choice.nodes
    assert node.op_type == form and node.timing.dense > 0 and node.density == pytest.approx(0.15, abs=0.01)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    got, expected = (
        runtime.session(tmp_path / f"{name}.onnx").run(None, {"x": x})[0] for name in ("tuned", "pruned")
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_integers_run_by_kernels_where_they_were_measured_to_be_faster(tmp_path, ratio):
    onnxprune.prune(integer_model("SparseQDQConv", density=1.0), tmp_path / "pruned.onnx", rate=0.85)
    for measured, count in ((3.0, 1), (0.5, 0)):
        ratio(measured)
        tune(tmp_path / "pruned.onnx", tmp_path / "tuned.onnx", input_shape={"x": (2, 12, 7, 7)})
        assert by_kernel(tmp_path / "tuned.onnx") == count
