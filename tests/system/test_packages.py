import sys

import pytest

import onnxprune
from onnxprune.errors import MissingPackageError
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
