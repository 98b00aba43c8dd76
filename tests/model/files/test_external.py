"""External data that links lead to: the cache of Hugging Face, the model's own folder, and what the user allows."""

import numpy as np
import onnx
import pytest

from onnxprune.errors import ModelFileError, SettingError
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.workers.parcel import Parcel
from onnxprune.model.files.io import load
from onnxprune.system.trust import trust
from tests.builders import initializer, mlp, normal

INPUT = normal(3, 64)


@pytest.fixture(autouse=True)
def nothing_is_trusted():
    trust()
    yield
    trust()


def save(folder, data="model.onnx_data"):
    """A model with external data; what its first weight is, and what it computes."""
    folder.mkdir(parents=True, exist_ok=True)
    model = mlp(64, 128)
    weight = initializer(model, "fc1.weight").copy()
    outputs = make_session(model, "the model").run(None, {"x": INPUT})[0]
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location=data, size_threshold=0)
    return weight, outputs


def link_data(folder, place):
    """Move the data of the model in a folder to a place, and leave a link to it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx_data").rename(place)
    (folder / "model.onnx_data").symlink_to(place)


def assert_read(file, expected):
    """That a model is read and runs as it was saved."""
    weight, outputs = expected
    model, source = load(file)
    assert np.array_equal(model.graph.initializers["fc1.weight"].const_value.numpy(), weight)
    assert np.allclose(make_session(file, "it").run(None, {"x": INPUT})[0], outputs, atol=1e-5)
    return source


@pytest.mark.parametrize(("model_too", "large"), [(True, False), (False, False), (True, True)])
def test_the_cache_of_hugging_face_is_read_through_its_links(tmp_path, monkeypatch, model_too, large):
    if large:
        monkeypatch.setattr("onnxprune.evaluation.sessions.MAPPED_BYTES", 1)
    cache = tmp_path / "hub" / "models--org--name"
    snapshot, blobs = cache / "snapshots" / "0123abcd" / "onnx", cache / "blobs"
    expected = save(snapshot)
    blobs.mkdir()
    for name in ("model.onnx_data", *(["model.onnx"] if model_too else [])):
        (snapshot / name).rename(blobs / f"hash-{name}")
        (snapshot / name).symlink_to(f"../../../blobs/hash-{name}")
    source = assert_read(snapshot / "model.onnx", expected)
    # Workers elsewhere unpack the files below a folder of their own.
    parcel = Parcel.of(source)
    assert set(parcel.contents) == {"model.onnx", "model.onnx_data"}
    (tmp_path / "worker").mkdir()
    copied = parcel.unpack(tmp_path / "worker").model.graph.initializers["fc1.weight"].const_value.numpy()
    assert np.array_equal(copied, expected[0])


def test_the_blobs_of_another_model_in_the_cache_are_not_read(tmp_path):
    snapshot = tmp_path / "models--a" / "snapshots" / "1"
    save(snapshot)
    link_data(snapshot, tmp_path / "models--b" / "blobs" / "secret")
    with pytest.raises(ModelFileError, match=r"a link that leads to .*models--b/blobs/secret"):
        load(snapshot / "model.onnx")


def test_links_inside_of_the_model_s_folder_are_read(tmp_path):
    expected = save(tmp_path / "m")
    link_data(tmp_path / "m", tmp_path / "m" / "weights" / "w.bin")
    assert_read(tmp_path / "m" / "model.onnx", expected)


def test_links_out_of_the_folder_are_read_only_where_the_user_allows_it(tmp_path):
    expected = save(tmp_path / "m")
    link_data(tmp_path / "m", tmp_path / "store" / "w.bin")
    file = tmp_path / "m" / "model.onnx"
    with pytest.raises(ModelFileError, match=r"leads to .*store/w\.bin.*--allow-links .*store if you trust"):
        load(file)
    (tmp_path / "elsewhere").mkdir()
    trust(allow_links=tmp_path / "elsewhere")
    with pytest.raises(ModelFileError, match=r"--allow-links"):
        load(file)
    trust(allow_links=[tmp_path / "elsewhere", tmp_path / "store"])
    assert_read(file, expected)
    # The next command trusts what it is told, and nothing of this one.
    trust()
    with pytest.raises(ModelFileError, match=r"--allow-links"):
        load(file)


def test_what_is_allowed_is_where_a_link_ends_not_where_it_begins(tmp_path):
    save(tmp_path / "m")
    link_data(tmp_path / "m", tmp_path / "secret" / "w.bin")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "hop").symlink_to(tmp_path / "secret")
    (tmp_path / "m" / "model.onnx_data").unlink()
    (tmp_path / "m" / "model.onnx_data").symlink_to(tmp_path / "store" / "hop" / "w.bin")
    trust(allow_links=tmp_path / "store")
    with pytest.raises(ModelFileError, match=r"leads to .*secret/w\.bin"):
        load(tmp_path / "m" / "model.onnx")


@pytest.mark.parametrize("location", ["../store/w.bin", "/etc/passwd", "sub/../../store/w.bin"])
def test_locations_out_of_the_folder_are_refused_whatever_is_allowed(tmp_path, location):
    save(tmp_path / "m")
    (tmp_path / "store").mkdir()
    model = onnx.load(tmp_path / "m" / "model.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    (tmp_path / "m" / "model.onnx").write_bytes(model.SerializeToString())
    trust(allow_links=["/etc", tmp_path / "store"])
    with pytest.raises(ModelFileError, match="not a path inside the model's folder: save the model with"):
        load(tmp_path / "m" / "model.onnx")


def test_a_link_that_leads_nowhere_names_the_file_to_download(tmp_path):
    save(tmp_path / "m")
    link_data(tmp_path / "m", tmp_path / "m" / "w.bin")
    (tmp_path / "m" / "w.bin").unlink()
    with pytest.raises(ModelFileError, match=r"is missing: it is a link to .*w\.bin; download"):
        load(tmp_path / "m" / "model.onnx")


def test_a_link_to_a_model_with_data_beside_the_model_names_the_model(tmp_path):
    save(tmp_path / "m")
    (tmp_path / "link.onnx").symlink_to(tmp_path / "m" / "model.onnx")
    with pytest.raises(ModelFileError, match=r"it is beside .*m/model\.onnx, to which .*; give that path"):
        load(tmp_path / "link.onnx")


def test_a_folder_that_is_not_there_is_a_setting_error(tmp_path):
    with pytest.raises(SettingError, match=r"--allow-links .*gone: there is no such folder"):
        trust(allow_links=tmp_path / "gone")
