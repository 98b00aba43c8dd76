"""Which process of a job this is, where torchrun started several."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process is the one that writes and prints; torchrun numbers them in RANK."""
    return os.environ.get("RANK", "0") == "0"


def is_only_process() -> bool:
    """Whether the job runs in this process alone."""
    return process_count() == 1


def process_count() -> int:
    """How many processes share the job."""
    return int(os.environ.get("WORLD_SIZE", "1"))
