"""How each operator family passes channels and constants on: importing this package fills the rule tables.

A family is one file here; it is found by being here.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
