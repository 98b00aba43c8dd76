"""Folders to write in, while other processes remove those of killed runs."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import OutputError
from onnxprune.model.files import replace
from onnxprune.model.files.replace import working_folder
from onnxprune.model.files.staging import Staging, staging
from tests.builders import initializer, mlp


@pytest.mark.parametrize("opened", [False, True])
def test_a_folder_that_another_process_removes_before_it_is_locked_is_made_again(
    opened, tmp_path, monkeypatch
):
    made = []
    make, hold = tempfile.mkdtemp, replace.locked

    def mkdtemp(**settings):
        made.append(Path(make(**settings)))
        if len(made) == 1 and not opened:
            shutil.rmtree(made[0])
        return str(made[-1])

    @contextlib.contextmanager
    def locked(folder, *, wait=True):
        with hold(folder, wait=wait) as held:
            if opened and folder == made[0]:
                shutil.rmtree(folder)
            yield held

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    monkeypatch.setattr(replace, "locked", locked)
    with working_folder(tmp_path) as folder:
        assert folder == made[1] and folder.is_dir()
    assert not list(tmp_path.iterdir())


def write(folder, name, external="always", rate=0.5, source=None):
    """A pruned model in a folder, and what its first weight is."""
    made = onnxprune.prune(
        source or mlp(64, 128), folder / name, rate=rate, format="dense", external_data=external
    )
    return initializer(made.model, "fc1.weight")


def read(path):
    return initializer(onnx.load(path), "fc1.weight")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("foreign", ["file", "folder", "link"])
def test_what_has_the_name_of_the_data_and_is_not_the_target_s_is_not_overwritten(tmp_path, foreign):
    place = tmp_path / "out.onnx.data"
    if foreign == "file":
        place.write_bytes(b"mine")
    elif foreign == "folder":
        place.mkdir()
    else:
        place.symlink_to(tmp_path / "nowhere")
    expected = write(tmp_path, "out.onnx")
    assert names(tmp_path) == ["out.onnx", "out.onnx.data", "out.onnx.data2"]
    assert np.array_equal(read(tmp_path / "out.onnx"), expected)
    assert foreign != "file" or place.read_bytes() == b"mine"
    # The target's own data goes with it, under whatever name.
    expected = write(tmp_path, "out.onnx", rate=0.7)
    assert names(tmp_path) == ["out.onnx", "out.onnx.data", "out.onnx.data3"]
    assert np.array_equal(read(tmp_path / "out.onnx"), expected)
    write(tmp_path, "out.onnx", external="never")
    assert names(tmp_path) == ["out.onnx", "out.onnx.data"]


def test_data_that_another_model_shares_with_the_target_stays(tmp_path):
    expected = write(tmp_path, "out.onnx")
    shutil.copy(tmp_path / "out.onnx", tmp_path / "twin.onnx")
    write(tmp_path, "out.onnx", rate=0.7)
    assert np.array_equal(read(tmp_path / "twin.onnx"), expected)
    assert names(tmp_path) == ["out.onnx", "out.onnx.data", "out.onnx.data2", "twin.onnx"]


@pytest.mark.parametrize("target", ["in.onnx.data", "other.onnx.data", "link.data"])
def test_a_target_that_has_the_weights_of_a_model_is_refused(tmp_path, target):
    write(tmp_path, "in.onnx")
    expected = write(tmp_path, "other.onnx", rate=0.7)
    (tmp_path / "link.data").symlink_to("in.onnx.data")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=r"has the weights of .*: give another output file"):
        write(tmp_path, target, source=tmp_path / "in.onnx")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert np.array_equal(read(tmp_path / "other.onnx"), expected)


def test_a_target_that_shares_its_data_with_the_input_is_refused(tmp_path):
    expected = write(tmp_path, "out.onnx")
    shutil.copy(tmp_path / "out.onnx", tmp_path / "input.model")
    with pytest.raises(OutputError, match="shares its weights with the input"):
        write(tmp_path, "out.onnx", source=tmp_path / "input.model", rate=0.7)
    assert np.array_equal(read(tmp_path / "input.model"), expected)


def test_a_target_that_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="is not a regular file"):
        write(tmp_path, "pipe")


def test_a_link_into_the_cache_of_hugging_face_is_refused(tmp_path):
    (tmp_path / "blobs").mkdir()
    onnx.save(mlp(), tmp_path / "blobs" / "1a2b")
    (tmp_path / "out.onnx").symlink_to(Path("blobs") / "1a2b")
    before = (tmp_path / "blobs" / "1a2b").read_bytes()
    with pytest.raises(OutputError, match="is a link into the cache of Hugging Face"):
        write(tmp_path, "out.onnx", external="never")
    assert (tmp_path / "blobs" / "1a2b").read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_is_read_only_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(
        OutputError, match=r"out\.onnx cannot be written: Permission denied in .*give another"
    ):
        write(tmp_path, "out.onnx")


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 an archive", b"x,label\n1,0\n", b"\x93NUMPY", b"\x00\x00\x08\x03"]
)
def test_a_file_of_samples_in_the_place_of_the_output_is_kept(tmp_path, content):
    given = tmp_path / "train.npz"
    given.write_bytes(content)
    with pytest.raises(OutputError, match=r"is there already, and is no model: .*train\.onnx, or delete it"):
        onnxprune.prune(mlp(), given, rate=0.5)
    assert given.read_bytes() == content and list(tmp_path.iterdir()) == [given]


@pytest.mark.parametrize("before", [None, b"", mlp().SerializeToString()])
def test_a_model_may_have_any_name_and_replaces_another_model(tmp_path, before):
    target = tmp_path / "model.bin"
    if before is not None:
        target.write_bytes(before)
    assert onnx.load(onnxprune.prune(mlp(), target, rate=0.5).path).graph.node


def test_a_model_is_not_written_to_a_file_named_as_stdout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"- is no file, and models are not written to stdout: give"):
        onnxprune.prune(mlp(), "-", rate=0.5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_stays_and_what_it_leads_to_is_replaced(dangling, tmp_path):
    (tmp_path / "runs").mkdir()
    if not dangling:
        write(tmp_path / "runs", "7.onnx")
    link = tmp_path / "latest.onnx"
    link.symlink_to(Path("runs") / "7.onnx")
    onnxprune.prune(mlp(64, 128), link, rate=0.9, format="dense")
    assert link.is_symlink() and names(tmp_path) == ["latest.onnx", "runs"]
    assert names(tmp_path / "runs") == ["7.onnx"]
    assert np.mean(read(tmp_path / "runs" / "7.onnx") == 0) > 0.8


def opens(path):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()


def test_data_is_found_through_a_link_in_the_folder_of_the_model(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "latest").symlink_to("runs")
    (tmp_path / "runs" / "best.onnx").symlink_to("7.onnx")
    for folder in ("runs", "latest"):
        link = tmp_path / folder / "best.onnx"
        onnxprune.prune(mlp(64, 128), link, rate=0.9, format="dense", external_data="always")
        assert link.is_symlink() and not (tmp_path / folder / "7.onnx").is_symlink()
        assert opens(link) and np.mean(read(link) == 0) > 0.8
    assert len(names(tmp_path / "runs")) == 3


def external_input(folder):
    model = mlp(64, 128)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "fc1.weight")
    array = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(np.where(array > np.quantile(array, 0.9), array, 0), weight.name))
    onnx.save(model, folder / "in.onnx", save_as_external_data=True, location="in.data")
    return folder / "in.onnx"


def searched(folder, link):
    settings = {"format": "dense", "eval_data": folder / "data.npz", "data": folder / "data.npz"}
    np.savez(folder / "data.npz", x=np.zeros((40, 64), np.float32), labels=np.zeros(40, np.int64))
    onnxprune.prune(external_input(folder), link, max_drop=0.01, **settings)


@pytest.mark.parametrize(
    "work",
    [
        lambda folder, link: write(link.parent, link.name),
        lambda folder, link: write(link.parent, link.name, "auto", source=external_input(folder)),
        lambda folder, link: onnxprune.export(external_input(folder), link),
        lambda folder, link: onnxprune.tune(external_input(folder), link, input_shape={"x": (1, 64)}),
        searched,
    ],
    ids=["always", "as the input", "export", "tune", "search"],
)
def test_data_that_no_runtime_would_find_through_a_link_is_refused_before_the_work(
    work, tmp_path, monkeypatch
):
    monkeypatch.setattr(Staging, "write", lambda *given, **settings: pytest.fail("there was work"))
    (tmp_path / "runs").mkdir()
    onnx.save(mlp(), tmp_path / "runs" / "7.onnx")
    link = tmp_path / "latest.onnx"
    link.symlink_to(Path("runs") / "7.onnx")
    before = (tmp_path / "runs" / "7.onnx").read_bytes()
    with pytest.raises(
        OutputError, match=r"latest\.onnx is a link into another folder.* give .*runs/7\.onnx"
    ):
        work(tmp_path, link)
    assert names(tmp_path / "runs") == ["7.onnx"]
    assert (tmp_path / "runs" / "7.onnx").read_bytes() == before


def test_data_that_a_copy_would_have_is_not_moved_behind_a_link(tmp_path):
    """What `pick` copies may have data; whether it has, only the copy tells."""
    (tmp_path / "runs").mkdir()
    write(tmp_path, "trial.onnx")
    link = tmp_path / "latest.onnx"
    link.symlink_to(Path("runs") / "7.onnx")
    with staging(link) as stage, pytest.raises(OutputError, match="is a link into another folder"):
        stage.copy(tmp_path / "trial.onnx")
        stage.commit()
    assert names(tmp_path / "runs") == []


def test_a_link_to_the_input_is_refused(tmp_path):
    onnx.save(mlp(), tmp_path / "in.onnx")
    (tmp_path / "out.onnx").symlink_to("in.onnx")
    before = (tmp_path / "in.onnx").read_bytes()
    with pytest.raises(OutputError, match="is the input itself"):
        onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", rate=0.5)
    assert (tmp_path / "in.onnx").read_bytes() == before


def test_a_link_to_another_kind_of_file_is_refused_by_its_name(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "out").symlink_to("table.csv")
    with pytest.raises(OutputError, match=r"table\.csv is there already, and is no model"):
        onnxprune.prune(mlp(), tmp_path / "out", rate=0.5)
