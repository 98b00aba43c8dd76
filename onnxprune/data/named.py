"""Users' own functions, given as MODULE:NAME."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def named(module: str, name: str) -> Any:
    """An attribute of a module in the working folder or an installed one; raises whatever the import raises."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), name)
