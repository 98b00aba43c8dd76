"""Tests run in a process a core, so that each computes on one thread unless it says otherwise."""

import gc
import os
from importlib import import_module

import pytest

# Before numpy and torch are imported. Two processes of two threads on two cores take twice the time.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.fixture(autouse=True, scope="module")
def nothing_old_to_collect():
    """Have the collector pass over what was imported so far: a job collects, which took half of a small one's time."""
    gc.collect()
    gc.freeze()


FEW_CHOICES = {
    "choices.rehearsal.WEIGHT_ALLOCATIONS": ("uniform",),
    "choices.rehearsal.ALLOCATIONS": {},
    "choices.rehearsal.LEARNING_RATES": dict.fromkeys(("adam", "adamw", "sgd"), (1e-3,)),
    "choices.defaults.ENOUGH_UPDATES": 0,
    "choices.defaults.UNTRIED_ALLOCATION": "uniform",
    "choices.defaults.UNTRIED_FITTED_ALLOCATION": "uniform",
    "choices.defaults.FEW_SAMPLES": 0,
    "pruners.blockwise.EFFORTS": {},
}


def _value(name):
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(f"onnxprune.job.{module}"), attribute)


WHOLE_CHOICES = {name: _value(name) for name in FEW_CHOICES}


@pytest.fixture(autouse=True, scope="module")
def no_rehearsals():
    """Choose what is open at once, not by short trainings; fixtures of modules too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FEW_CHOICES.items():
            patch.setattr(f"onnxprune.job.{name}", value)
        yield


@pytest.fixture(autouse=True)
def rehearsals_where_they_are_tested(request, no_rehearsals):
    """The short trainings are back for tests that are marked `rehearses`."""
    if request.node.get_closest_marker("rehearses") is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WHOLE_CHOICES.items():
            patch.setattr(f"onnxprune.job.{name}", value)
        yield
