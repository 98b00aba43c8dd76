import sys

import pytest

import onnxprune
from onnxprune.errors import MissingPackageError
from onnxprune.system import packages
from tests.builders import mlp


@pytest.mark.parametrize(
    "job",
    [
        lambda: onnxprune.prune(mlp(), rate=0.5, data="no-such-file.npz"),
        lambda: onnxprune.pruning_session(mlp(), 10, rate=0.5),
        lambda: onnxprune.to_torch(mlp()),
    ],
    ids=["fine-tuning", "session", "to_torch"],
)
def test_what_needs_torch_says_how_to_install_it_before_any_work(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r"needs torch, .* pip install 'onnxprune\[train\]'"):
        job()


def test_a_package_that_is_missing_is_named_as_it_is_installed(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda module: None)
    with pytest.raises(
        MissingPackageError, match=r"reading images needs pillow, .*: pip install 'onnxprune\[data\]'$"
    ):
        packages.require_package("PIL", "reading images")
    with pytest.raises(MissingPackageError, match="augmentation needs torch, which is not installed"):
        packages.import_torchvision("augmentation")


def test_torchvision_is_imported_beside_any_build_of_torch():
    torchvision = packages.import_torchvision("the test")
    assert torchvision is sys.modules["torchvision"] is packages.import_torchvision("the test")


def test_a_torchvision_that_does_not_work_is_refused(monkeypatch):
    def fail(name):
        raise ImportError(f"libc10 is not there for {name}\nand more")

    monkeypatch.setattr(packages.importlib, "import_module", fail)
    with pytest.raises(
        MissingPackageError, match=r"cannot be imported \(libc10 is not there for torchvision\): install"
    ):
        packages.import_torchvision("the test")
