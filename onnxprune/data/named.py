"""What MODULE:NAME names: users' own functions."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def named(module: str, name: str) -> Any:
    """What a module of the working folder, or an installed one, calls by a name; raises what importing it raises."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), name)
