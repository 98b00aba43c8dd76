import pytest

from onnxprune.sparse import coding


@pytest.fixture(autouse=True)
def _small_models_are_coded_too(monkeypatch):
    monkeypatch.setattr(coding, "LEAST_CODED", 0)
