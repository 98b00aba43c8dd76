"""Two models side by side on the same inputs, output by output, in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from onnxprune.data.dataset import fix_shapes, input_specs
from onnxprune.data.sources import load_data
from onnxprune.errors import ModelFileError
from onnxprune.evaluation.evaluate import (
    Evaluation,
    Tolerance,
    check_runs,
    compare,
    make_session,
    patience,
    random_inputs,
)
from onnxprune.model.io import load


def compare_files(
    first: Path,
    second: Path,
    tolerance: Tolerance,
    *,
    data: Any = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Run both models on `data`, as `load_data` takes it, or on random inputs (of these `shapes`, by input name).

    Raises:
        ModelFileError: a model is broken, or the two differ in their inputs or outputs.
        DataError: the data do not fit the first model.
        SettingError: the shapes do not.
    """
    models = [load(path) for path in (first, second)]
    specs = [input_specs(model) for model, _ in models]
    for what, (ours, theirs) in (
        ("inputs", tuple([spec.name for spec in side] for side in specs)),
        ("outputs", tuple([value.name for value in model.graph.outputs] for model, _ in models)),
    ):
        if ours != theirs:
            raise ModelFileError(
                f"{first} and {second} differ in their {what} ({_list(ours)} and {_list(theirs)}): "
                "compare models of the same interface"
            )
    sessions = [make_session(origin.file, origin.name) for _, origin in models]
    fixed = fix_shapes(specs[0], shapes or {})
    if data is None:
        limit = patience(models[0][0]) or patience(models[1][0])
        samples = random_inputs(sessions[0], fixed, seed, patience=limit)
    else:
        samples = load_data(data, fixed)
    check_runs(sessions[0], samples, fixed)
    return compare(sessions[0], sessions[1], samples, fixed, tolerance=tolerance)


def comparison_table(evaluation: Evaluation, tolerance: Tolerance) -> Table:
    """A row an output, with what lies beyond the tolerance."""
    table = Table(
        title=f"on {evaluation.data}, {evaluation.samples:,} samples; allowed: "
        f"{tolerance.absolute:g} + {tolerance.relative:g} x |first|",
        title_justify="left",
    )
    for heading in ("output", "beyond / all", "largest difference", "relative", "cosine", ""):
        table.add_column(heading, justify="left" if heading in ("output", "") else "right")
    for output in evaluation.outputs:
        table.add_row(
            escape(output.output),
            f"{output.beyond:,} / {output.elements:,}",
            f"{output.absolute:.3g}",
            f"{output.relative:.3g}",
            f"{output.cosine:.6f}",
            "differs" if output.beyond else "same",
        )
    return table


def _list(names: Sequence[str | None]) -> str:
    return ", ".join(map(str, names)) or "none"
