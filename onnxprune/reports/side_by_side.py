"""Several pruned files of one model on one page, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from onnxprune.errors import ModelFileError
from onnxprune.reports.html import Cell, items, section, table
from onnxprune.reports.publishing import published
from onnxprune.reports.shell import FILTERED, document
from onnxprune.reports.summary import cards
from onnxprune.reports.text import bytes_text

Record = Mapping[str, Any]


def side_by_side(given: Sequence[Record]) -> str:
    """The HTML page for the records of several files.

    Raises:
        ModelFileError: two of them have no weight in common.
    """
    records = [published(record) for record in given]
    names = _names(records)
    _check_related(records, names)
    sections = (
        items(_notes(records, names)),
        _measures(records, names),
        _layers(records, names),
        _classes(records, names),
        _settings(records, names),
    )
    return document(" and ".join(names), "".join(sections))


def _names(records: Sequence[Record]) -> list[str]:
    """The names of the files, numbered where two are the same."""
    names: list[str] = []
    for record in records:
        name = PurePath((record.get("pruned") or {}).get("path") or "pruned model").name
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names


def _check_related(records: Sequence[Record], names: Sequence[str]) -> None:
    first = _weights(records[0])
    for record, name in zip(records[1:], names[1:], strict=True):
        if not first & _weights(record):
            raise ModelFileError(
                f"{names[0]} and {name} have no weight of the same name: give files that were pruned from one model"
            )


def _weights(record: Record) -> set[str]:
    return {layer["name"] for layer in record["layers"]}


def _notes(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    notes = []
    if len({record["source_sha256"] for record in records}) > 1:
        notes.append(
            "The files were pruned from different input models (their SHA-256 differ); baselines may differ."
        )
    data = {
        name: f"{evaluation['samples']:,} samples of {evaluation['data']}"
        for name, record in zip(names, records, strict=True)
        if (evaluation := record.get("evaluation"))
    }
    if len(set(data.values())) > 1:
        notes.append(
            f"The files were evaluated on different data: {'; '.join(f'{k} on {v}' for k, v in data.items())}."
        )
    return notes


def _measures(records: Sequence[Record], names: Sequence[str]) -> str:
    """A row for each measurement of the summary: the baseline of the first file that has it, and every file."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for name, record in zip(names, records, strict=True):
        for title, baseline, pruned, details in cards(record):
            # Files are timed one after the other, each in turns with the baseline.
            speed = f", {details.partition(',')[0]}" if title.startswith("latency") else ""
            found.setdefault(title, (baseline, {}))[1][name] = f"{pruned}{speed}"
    rows = [
        [Cell(title), Cell(baseline), *(Cell(values.get(name, "")) for name in names)]
        for title, (baseline, values) in found.items()
    ]
    return section("Summary", table(("measurement", "baseline", *names), rows))


def _layers(records: Sequence[Record], names: Sequence[str]) -> str:
    """Sparsity and bytes of each weight in every file."""
    layers = [{layer["name"]: layer for layer in record["layers"]} for record in records]
    every = list(dict.fromkeys(name for each in layers for name in each))
    rows = []
    for weight in every:
        known = [each.get(weight) for each in layers]
        size = next(layer["size"] for layer in known if layer is not None)
        row = [Cell(weight), Cell(f"{size:,}", size)]
        for layer in known:
            row += [Cell("", -1), Cell("", -1)] if layer is None else _layer_cells(layer)
        rows.append(row)
    headings = ["weight", "of"]
    for name in names:
        headings += [f"sparsity, {name}", f"size, {name}"]
    return section("Layers", table(headings, rows, filtered=len(rows) > FILTERED))


def _layer_cells(layer: Record) -> list[Cell]:
    rate, size = 1 - layer["kept"] / max(layer["size"], 1), layer.get("bytes_after")
    return [
        Cell(f"{rate:.2%}", rate, rate),
        Cell("" if size is None else bytes_text(size), size or 0),
    ]


def _classes(records: Sequence[Record], names: Sequence[str]) -> str:
    """The error by class, where all files were evaluated on the same number of samples of each class."""
    answers = [((record.get("evaluation") or {}).get("answers") or {}).get("classes") for record in records]
    if (
        not all(answers)
        or len({tuple(map(tuple, (row[:3] for row in each))) for each in answers if each}) > 1
    ):
        return ""
    most = max(1 - min(row[2:]) / row[1] for each in answers if each for row in each) or 1.0
    rows = []
    for counts in zip(*(each for each in answers if each), strict=True):
        label, samples, baseline = counts[0][:3]
        errors = [1 - right / samples for right in (baseline, *(row[3] for row in counts))]
        rows.append([
            Cell(str(label), label),
            Cell(f"{samples:,}", samples),
            *(Cell(f"{error:.2%}", error, error / most) for error in errors),
        ])  # fmt: skip
    return section("Error by class", table(("class", "samples", "baseline", *names), rows))


def _settings(records: Sequence[Record], names: Sequence[str]) -> str:
    """The settings in which the files differ."""
    every = dict.fromkeys(name for record in records for name in record["settings"])
    rows = []
    for setting in every:
        values = [record["settings"].get(setting) for record in records]
        if any(value != values[0] for value in values):
            rows.append([Cell(setting), *(Cell("" if value is None else str(value)) for value in values)])
    return section("Settings that differ", table(("setting", *names), rows)) if rows else ""
