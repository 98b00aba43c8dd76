"""ONNX operators as plain torch functions, one file a family; importing the package fills the table.

A family is found by being here.
"""

import importlib
import pkgutil

from onnxprune.training.module.ops.table import Lowering, find_lowering, lowered_operators

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Lowering", "find_lowering", "lowered_operators"]
