import pytest

from tests.runtime.sessions import ISAS, use_isa


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    """Every set of instructions, forced upon the kernels in turn; skipped where this machine lacks it."""
    use_isa(request.param, monkeypatch)
    return request.param
