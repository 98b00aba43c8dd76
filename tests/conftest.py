"""Tests run in a process a core, so that each computes on one thread unless it says otherwise."""

import gc
import os

# Before numpy and torch are imported. Two processes of two threads on two cores take twice the time.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def pytest_collection_finish() -> None:
    """Take what was imported out of the collector's sight: each job collects, which took half of many tests' time."""
    gc.collect()
    gc.freeze()
