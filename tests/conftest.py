"""Tests run in a process a core, so that each computes on one thread unless it says otherwise."""

import os

# Before numpy and torch are imported. Two processes of two threads on two cores take twice the time.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
