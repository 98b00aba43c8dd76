"""Tests run in a process a core, so that each computes on one thread unless it says otherwise."""

import gc
import os

import pytest

# Before numpy and torch are imported. Two processes of two threads on two cores take twice the time.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.fixture(autouse=True, scope="module")
def nothing_old_to_collect():
    """Have the collector pass over what was imported so far: a job collects, which took half of a small one's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_rehearsals(request, monkeypatch):
    """Choose what is open as a small job would expect, not by short trainings, unless a test is about them."""
    if request.node.get_closest_marker("rehearses"):
        return
    from onnxprune.job import defaults, rehearsal

    monkeypatch.setattr(rehearsal, "WEIGHT_ALLOCATIONS", ("uniform",))
    monkeypatch.setattr(rehearsal, "ALLOCATIONS", {})
    monkeypatch.setattr(rehearsal, "LEARNING_RATES", dict.fromkeys(rehearsal.LEARNING_RATES, (0.001,)))
    monkeypatch.setattr(defaults, "ENOUGH_UPDATES", 0)
