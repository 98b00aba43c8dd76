"""The one noun that rules, facts and units share: an axis of a value."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir


class Axis(NamedTuple):
    """One axis of a value, counted from the front."""

    value: ir.Value
    dim: int
