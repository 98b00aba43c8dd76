"""Two models side by side, as the command line has it."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import cli
from onnxprune.latency.files import bench_files
from tests.builders import cnn, floats, initializer, mlp, model_of, normal


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "a.onnx")
    changed = mlp()
    weight = initializer(changed, "fc2.weight") + np.float32(1e-3)
    changed.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight, "fc2.weight"))
    onnx.save(changed, "b.onnx")
    return tmp_path


def run(*arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", *arguments])
        sys.exit(0)
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


def test_a_model_is_the_same_as_itself(folder, capsys):
    status, out, err = run("a.onnx", "a.onnx", "--check-rtol", "0", "--check-atol", "0", capsys=capsys)
    assert status == 0 and not err and "0 / 64" in out and "same" in out


def test_outputs_of_different_shapes_are_told_by_their_shapes(folder, capsys):
    onnx.save(mlp(outputs=3), "c.onnx")
    status, out, _ = run("a.onnx", "c.onnx", "--json", "r.json", capsys=capsys)
    assert status == 1 and "shapes [16, 4] and [16, 3]" in out
    assert "nan" not in out and "inf" not in out
    (output,) = json.loads(Path("r.json").read_text())["outputs"]
    assert (
        output["unlike"] == "shapes [16, 4] and [16, 3]" and output["mismatched"] == output["elements"] == 64
    )


def test_a_difference_beyond_the_tolerance_is_status_1_and_within_it_is_0(folder, capsys):
    status, out, _ = run("a.onnx", "b.onnx", "--json", "r.json", capsys=capsys)
    assert status == 1 and "differs" in out
    (output,) = json.loads((folder / "r.json").read_text())["outputs"]
    assert output["mismatched"] > 0 and output["elements"] == 64
    assert run("a.onnx", "b.onnx", "--check-atol", "0.1", capsys=capsys)[0] == 0
    assert run("a.onnx", "b.onnx", "--check-rtol", "10", capsys=capsys)[0] == 0


def test_the_models_run_on_the_given_data(folder, capsys):
    np.savez("data.npz", x=normal(5, 8))
    status, out, _ = run("a.onnx", "b.onnx", "--data", "data.npz", capsys=capsys)
    assert status == 1 and "data.npz, 5 samples" in out and "/ 20" in out


def test_input_shape_gives_a_shape_that_the_model_leaves_open(folder, capsys):
    status, out, _ = run("a.onnx", "a.onnx", "--input-shape", "x:3,8", capsys=capsys)
    assert status == 0 and "0 / 12" in out


REFUSED = {
    "another rank": (
        ["a.onnx", "a.onnx", "--input-shape", "x:8"],
        "does not fit the input: its dims are N,8",
    ),
    "an input that is not there": (["a.onnx", "a.onnx", "--input-shape", "z:1,8"], "no such input"),
    "no shape": (["a.onnx", "a.onnx", "--input-shape", "x=1"], "x:1,3,224,224"),
    "another interface": (["a.onnx", "c.onnx"], "have different outputs"),
    "random inputs that would be too large": (
        ["a.onnx", "a.onnx", "--input-shape", "x:1000000000,8"],
        "would be too large",
    ),
    "no file": (["a.onnx", "gone.onnx"], "no file gone.onnx"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_compared_is_one_line(folder, capsys, arguments, words):
    node = onnx.helper.make_node("Relu", ["x"], ["z"])
    onnx.save(model_of([node], [floats("x", "N", 8)], [floats("z", "N", 8)], {}), "c.onnx")
    onnx.save(cnn(), "cnn.onnx")
    status, out, err = run(*arguments, capsys=capsys)
    assert status == 2 and not out and err.count("\n") == 1 and words in err, err


def test_images_become_inputs_as_in_the_job_that_wrote_a_model(tmp_path):
    images = {"x": np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)}
    onnxprune.prune(cnn(), tmp_path / "out.onnx", rate=0.5, eval_data=images, transform="tf")
    found, same, other = (
        onnxprune.compare(cnn(), tmp_path / "out.onnx", data=images, transform=transform).outputs[0].absolute
        for transform in (None, "tf", "raw")
    )
    assert found == same and abs(other - same) > 1


def test_transform_and_label_offset_are_flags(folder, capsys):
    onnx.save(cnn(), "a.onnx")
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
    np.savez("data.npz", x=images, labels=np.arange(8) % 4 - 1)
    flags = ("a.onnx", "a.onnx", "--data", "data.npz", "--transform", "unit")
    status, _, err = run(*flags, capsys=capsys)
    assert status == 2 and "the class -1" in err
    status, out, _ = run(*flags, "--label-offset", "1", capsys=capsys)
    assert status == 0 and "top-1 error" in out


def test_images_labels_and_metrics_are_read_as_in_prune(folder, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    onnx.save(cnn(), "c.onnx")
    outputs = ort.InferenceSession("c.onnx").run(
        None, {"x": np.moveaxis(pixels, 3, 1).astype(np.float32) / 255}
    )[0]
    labels = outputs.argmax(1) + 1
    labels[:10] = 1 + labels[:10] % 4
    np.savez("pixels.npz", x=pixels, labels=labels)
    flags = ["--data", "pixels.npz", "--transform", "unit", "--label-offset", "-1", "--metric", "top-1,f1"]
    status, _, err = run("c.onnx", "c.onnx", *flags, "--json", "r.json", capsys=capsys)
    scores = json.loads((folder / "r.json").read_text())["scores"]
    assert status == 0 and not err
    assert [score["baseline"]["name"] for score in scores] == ["top-1", "f1"]
    assert scores[0]["baseline"]["value"] == 0.75
    cli.main(["sensitivity", "c.onnx", *flags[:6], "--rate", "0.5", "--json", "scan.json"])
    assert json.loads((folder / "scan.json").read_text())["about"]["labeled"]
    # A scan of other inputs is another scan.
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(
            ["sensitivity", "c.onnx", *flags[:3], "raw", *flags[4:6], "--rate", "0.5", "--json", "scan.json"]
        )
    assert "scan.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (
            model_of(
                [helper.make_node("Flatten", ["x"], ["y"])],
                [floats("x", "N", 2, 4)],
                [floats("y", "N", 8)],
                {},
            ),
            "float32 [N,8] in a.onnx and float32 [N,2,4] in other.onnx",
        ),
        (mlp(inputs=9), "float32 [N,8] in a.onnx and float32 [N,9] in other.onnx"),
        (
            model_of(
                [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
                [helper.make_tensor_value_info("x", TensorProto.STRING, ["N", 8])],
                [floats("y", "N", 8)],
                {},
            ),
            "float32 [N,8] in a.onnx and string [N,8] in other.onnx",
        ),
    ],
)
def test_inputs_of_other_types_or_dims_are_named_for_comparing_and_timing(folder, capsys, other, found):
    onnx.save(other, "other.onnx")
    with pytest.raises(onnxprune.OnnxPruneError) as refused:
        list(bench_files(Path("a.onnx"), Path("other.onnx")))
    status, _, err = run("a.onnx", "other.onnx", capsys=capsys)
    assert status == 2 and f"input 'x' is {found}, so that they cannot run on the same data" in err
    assert str(refused.value) in " ".join(err.split())


@pytest.mark.parametrize("names", [("fixed.onnx", "a.onnx"), ("a.onnx", "fixed.onnx")])
def test_a_model_of_one_sample_is_compared_with_one_of_any_number(folder, capsys, names):
    fixed = mlp()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, "fixed.onnx")
    status, out, _ = run(*names, capsys=capsys)
    assert status == 0 and "0 / 64" in out
