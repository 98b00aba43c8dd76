"""What is published with a model names no folder of the machine that it was made on."""

import json
import os

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import cli
from onnxprune.config.recipe import load_recipe
from onnxprune.errors import ModelFileError
from onnxprune.reports.publishing import file_name, published
from tests.builders import mlp

FOLDER = "Quixotic Client 47"
INNER = "zzyzx-folder"


def run(*words):
    cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a peculiar name, with a model and data of which some columns are named in notes."""
    folder = tmp_path_factory.mktemp("made") / FOLDER / INNER
    folder.mkdir(parents=True)
    onnx.save(mlp(), folder / "in.onnx")
    x = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    np.savez(folder / "train.npz", x=x, labels=np.arange(40) % 4, unused=x[:, :1])
    (folder / "grid.yaml").write_text("rate: [0.5, 0.7]\ncalibration_data: [null]\n")
    return folder


def published_files(folder):
    """Everything under a folder that is a model, its data, a page, a card, a chart or a log."""
    kinds = (".onnx", ".data", ".html", ".md", ".svg")
    return [file for file in sorted(folder.rglob("*")) if file.suffix in kinds or "tfevents" in file.name]


@pytest.mark.parametrize("typed", ["relative", "absolute"])
def test_no_output_names_a_folder_of_the_job(place, tmp_path, monkeypatch, typed):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(place.parent if typed == "relative" else tmp_path)
    given = INNER if typed == "relative" else str(place)
    out = place / f"{typed}-out"
    out.mkdir()
    to = os.path.join(given, f"{typed}-out")
    data = ("--data", f"{given}/train.npz", "--epochs", 1)
    run(f"{given}/in.onnx", f"{to}/ops.onnx", "--rate", 0.5, "--report", f"{to}/job.html", "--seed", 1, *data)
    run(f"{given}/in.onnx", f"{to}/apart.onnx", "--rate", 0.5, "--external-data", "always")
    run(
        f"{given}/in.onnx",
        f"{to}/coo.onnx",
        "--rate",
        0.9,
        "--format",
        "coo",
        "--calibration-data",
        f"{given}/train.npz",
    )
    run("retrain", f"{to}/ops.onnx", f"{to}/again.onnx", *data, "--checkpoint", f"{to}/state")
    run("report", f"{to}/again.onnx", f"{to}/rebuilt.html")
    scored = ("--baseline", f"{given}/in.onnx", "--eval-data", f"{given}/train.npz")
    run("report", f"{to}/ops.onnx", f"{to}/scored.html", *scored, "--model-card", f"{to}/card.md")
    run("report", f"{to}/ops.onnx", f"{to}/ops.onnx", f"{to}/both.html", *scored)
    run(
        "sweep",
        f"{given}/in.onnx",
        f"{to}/swept.onnx",
        "--grid",
        f"{given}/grid.yaml",
        "--max-drop",
        1,
        *data,
        "--log-to",
        f"tensorboard:{to}/runs",
    )
    files = published_files(out)
    assert len(files) >= 13
    for file in files:
        content = file.read_bytes()
        assert FOLDER.encode() not in content and INNER.encode() not in content, file.name
        assert str(place.parents[1]).encode() not in content, file.name
    assert b"train.npz" in (out / "ops.onnx").read_bytes()
    assert b"onnxprune in.onnx ops.onnx" in (out / "job.html").read_bytes()
    assert all(b"train.npz" in (out / name).read_bytes() for name in ("scored.html", "card.md"))


def test_a_recipe_and_the_json_record_keep_the_paths_that_were_typed(place, tmp_path):
    files = [tmp_path / name for name in ("out.onnx", "recipe.yaml", "record.json")]
    run(
        place / "in.onnx", files[0], "--rate", 0.5, "--calibration-data", place / "train.npz",
        "--save-config", files[1], "--json", files[2],
    )  # fmt: skip
    assert load_recipe(files[1])["calibration_data"] == str(place / "train.npz")
    assert json.loads(files[2].read_text())["baseline"]["path"] == str(place / "in.onnx")
    run(place / "in.onnx", tmp_path / "again.onnx", "--config", files[1])


def test_sentences_lose_folders_and_keep_names_of_the_model(tmp_path):
    (tmp_path / "a folder").mkdir()
    record = {
        "settings": {"data": "deep/photos/train/", "custom_ops": ["/opt/x/libops.so"], "rate": 0.5},
        "baseline": {"path": "../models/in.onnx"},
        "notes": [
            f"2 images of {tmp_path}/a folder/cats were skipped.",
            "onnxprune ../models/in.onnx out.onnx, on deep/photos/train/cat/1.jpg; 1/2 of /encoder/layer.0/MatMul.",
        ],
        "layers": [{"name": "deep/photos/weight"}],
    }
    found = published(record)
    assert found["settings"] == {"data": "train", "custom_ops": ["libops.so"], "rate": 0.5}
    assert found["baseline"] == {"path": "in.onnx"}
    assert found["notes"] == [
        "2 images of cats were skipped.",
        "onnxprune in.onnx out.onnx, on train/cat/1.jpg; 1/2 of /encoder/layer.0/MatMul.",
    ]
    assert found["layers"] == record["layers"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.npz", "b.npz"),
        ("C:\\Users\\me\\b.npz", "b.npz"),
        ("a/images.gz,c/labels.gz", "images.gz,labels.gz"),
        ("loading:dataset", "loading:dataset"),
        ("synthetic", "synthetic"),
    ],
)
def test_a_path_becomes_the_name_of_the_file(path, name):
    assert file_name(path) == name


def test_no_annotations_writes_no_metadata(tmp_path):
    for name, settings in {"with": {}, "without": {"annotations": False}}.items():
        onnxprune.prune(mlp(), tmp_path / name, rate=0.5, **settings)
    written = [
        [prop.key for prop in onnx.load(tmp_path / name).metadata_props if prop.key.startswith("onnxprune.")]
        for name in ("with", "without")
    ]
    assert written[0] and not written[1]
    with pytest.raises(ModelFileError, match="no metadata"):
        onnxprune.report(tmp_path / "without", tmp_path / "page.html")
