"""A preset chooses what is left open, and gives way to what is given."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune import cli
from onnxprune.config.grid import expand
from onnxprune.config.presets import PRESETS, preset_note
from onnxprune.config.settings import PruneConfig, job_settings
from onnxprune.errors import SettingError
from tests.builders import cnn


@pytest.mark.parametrize("target", PRESETS)
def test_every_preset_is_a_job_that_can_be_done(target, tmp_path):
    result = onnxprune.prune(cnn(), tmp_path / "out.onnx", rate=0.5, target=target)
    note = result.report.notes[-1]
    assert note.startswith(f"For {target}: --")
    model = onnx.load(result.path)
    session = ort.InferenceSession(result.path, providers=["CPUExecutionProvider"])
    assert (session.get_inputs()[0].shape[0] == 1) == ("--static" in note)
    assert not model.functions or "--format ops" in note
    session.run(None, {"x": np.zeros((1, 1, 8, 8), np.float32)})


def test_what_is_given_stays_and_the_rest_is_chosen():
    config = job_settings(rate=0.5, target="openvino", pattern="unstructured")
    assert (config.format, config.pattern, config.round_to) == ("dense", "unstructured", None)
    assert preset_note(config) == (
        "For openvino: --format dense; not --pattern channel --round-to 8, because of the other settings."
    )
    assert job_settings(rate=0.5, target="openvino", format="ops").format == "ops"
    assert job_settings(rate=0.5, target="openvino", round_to=4).round_to == 4


def test_what_contradicts_the_given_is_left_out():
    assert job_settings(rate=0.5, target="tensorrt").pattern == "2:4"
    assert job_settings(rate=0.8, target="tensorrt").pattern == "channel"
    assert job_settings(std_threshold=1.0, target="tensorrt").pattern == "unstructured"


def test_a_preset_quantizes_where_there_are_inputs():
    assert job_settings(rate=0.5, target="mcu", data="train.npz").quantize == "int8"
    without = job_settings(rate=0.5, target="mcu")
    assert without.quantize == "none" and "--quantize needs --data" in preset_note(without)


def test_a_name_that_is_no_preset_is_refused():
    with pytest.raises(SettingError, match="--for is 'toaster': it must be one of onnxruntime-cpu, browser"):
        PruneConfig(rate=0.5, target="toaster")
    with pytest.raises(SettingError, match="give exactly one of --rate"):
        job_settings(target="mcu")


def test_flags_and_grids_take_a_preset(tmp_path, capsys):
    onnx.save(cnn(), tmp_path / "in.onnx")
    cli.main([str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), "--rate", "0.5", "--for", "mcu"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "flash for constants" in printed and "peak activation memory" in printed
    assert "compressed (gzip)" in printed
    configs = expand({"rate": [0.5, 0.8]}, {"target": "tensorrt"}, 1).configs
    assert [config.pattern for config in configs] == ["2:4", "channel"]


def test_the_memory_of_a_device_is_that_of_the_written_file(tmp_path):
    """conv1 [1, 4, 6, 6] and its Relu, or x and conv1: float32, before and after half of the channels are gone."""
    report = onnxprune.prune(cnn(), tmp_path / "out.onnx", rate=0.5, target="mcu").report
    kept = onnx.load(tmp_path / "out.onnx").graph.initializer[0].dims[0]
    baseline = cnn().graph.initializer[0].dims[0]
    assert report.baseline.peak_bytes == 4 * 2 * baseline * 36
    assert report.pruned.peak_bytes == 4 * max(2 * kept * 36, 64 + kept * 36)
    arrays = [onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "out.onnx").graph.initializer]
    assert report.pruned.constant_bytes == sum(array.nbytes for array in arrays)


def test_a_file_of_fixed_shapes_is_evaluated_on_every_sample(tmp_path):
    """Ten samples in runs of four: the last run is filled up, and scored without what filled it."""
    x = np.random.default_rng(0).random((10, 1, 8, 8), dtype=np.float32)
    data = {"x": x, "labels": np.arange(10) % 4}
    settings = {"rate": 0.5, "eval_data": data, "format": "dense"}
    free = onnxprune.prune(cnn(), tmp_path / "free.onnx", **settings).report.evaluation
    fixed = onnxprune.prune(
        cnn(), tmp_path / "fixed.onnx", **settings, static=True, input_shape="x:4,1,8,8"
    ).report.evaluation
    session = ort.InferenceSession(tmp_path / "fixed.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [4, 1, 8, 8]
    assert fixed["samples"] == 10 and fixed["pruned"] == free["pruned"]
    assert fixed["outputs"][0]["cosine"] == pytest.approx(free["outputs"][0]["cosine"])
