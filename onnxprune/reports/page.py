"""The HTML report: the record of a job as one self-contained page, for light and dark mode and any width."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from html import escape
from typing import Any

from onnxprune.config.recipe import recipe_text
from onnxprune.config.settings import PruneConfig
from onnxprune.reports import answers, figures, weights
from onnxprune.reports.graph_chart import graph
from onnxprune.reports.html import Cell, details, items, paragraph, section, table
from onnxprune.reports.publishing import published
from onnxprune.reports.shell import FILTERED, document
from onnxprune.reports.summary import summary
from onnxprune.reports.text import bytes_text, shape_text


def page(record: Mapping[str, Any]) -> str:
    """The HTML page for a record: `Report.to_dict()`, or the part of it that `record_of_annotations` returns."""
    record = published(record)
    sections = (
        summary(record),
        _notes(record),
        figures.tradeoff(record),
        _layers(record),
        graph(record),
        answers.by_class(record),
        answers.changed(record),
        figures.fine_tuning(record),
        figures.sensitivity(record),
        weights.maps(record),
        weights.histograms(record),
        _removed(record),
        _exceptions(record),
        _command(record),
        _settings(record),
        _versions(record),
    )
    name = (record.get("pruned") or {}).get("path") or "pruned model"
    return document(name, "".join(sections))


def command(record: Mapping[str, Any]) -> str:
    """The command line that reproduces the result."""
    files = (("baseline", "IN.onnx"), ("pruned", "OUT.onnx"))
    words = ["onnxprune", *((record.get(file) or {}).get("path") or name for file, name in files)]
    defaults = {setting.name: setting.default for setting in fields(PruneConfig)}
    for name, value in record["settings"].items():
        default = defaults.get(name, MISSING)
        flag = f"--{name.replace('_', '-')}"
        if value is None or value == default or (value == [] and default == ()):
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [flag, "=".join(map(str, one)) if isinstance(one, list) else str(one)]
    return shlex.join(words)


def _notes(record: Mapping[str, Any]) -> str:
    notes = list(record.get("notes", ()))
    reason = (record.get("latency") or {}).get("reason")
    if reason:
        notes.append(f"Some or all latencies were not measured: {reason}.")
    told = record.get("details") or ()
    return items(notes) + (details("How the job was done", items(told)) if told else "")


def _layers(record: Mapping[str, Any]) -> str:
    headings = ("weight", "operator", "shape", "kept", "of", "sparsity", "size", "format")
    layers = record["layers"]
    kept, size = (sum(layer[key] for layer in layers) for key in ("kept", "size"))
    stored = [layer.get("bytes_after") for layer in layers]
    total = [
        Cell("all"),
        Cell(""),
        Cell(""),
        *_counts(kept, size),
        _bytes(sum(filter(None, stored))),
        Cell(""),
    ]
    rows = [
        [
            Cell(layer["name"]),
            Cell(layer.get("op_type", "")),
            Cell(_shapes(layer)),
            *_counts(layer["kept"], layer["size"]),
            _bytes(size_after),
            Cell(" ".join(filter(None, (layer.get("format", ""), layer.get("values", ""))))),
        ]
        for layer, size_after in zip(layers, stored, strict=True)
    ]
    return section("Layers", table(headings, rows, total=total, filtered=len(rows) > FILTERED))


def _counts(kept: int, size: int) -> tuple[Cell, Cell, Cell]:
    rate = 1 - kept / max(size, 1)
    return Cell(f"{kept:,}", kept), Cell(f"{size:,}", size), Cell(f"{rate:.2%}", rate, rate)


def _bytes(size: int | None) -> Cell:
    return Cell("" if size is None else bytes_text(size), size or 0)


def _shapes(layer: Mapping[str, Any]) -> str:
    shape = layer.get("shape")
    after = layer.get("shape_after", shape)
    text = "" if shape is None else shape_text(tuple(shape))
    return text if after == shape else f"{text} → {shape_text(tuple(after))}"


def _removed(record: Mapping[str, Any]) -> str:
    """Removed channels and neurons, by layer."""
    surgery = record.get("surgery") or {}
    rows = [
        [
            Cell(layer["name"]),
            *(
                Cell(f"{layer[key]:,}", layer[key])
                for key in ("outputs_before", "outputs_after", "inputs_before", "inputs_after")
            ),
        ]
        for layer in surgery.get("layers", ())
        if any(layer[f"{end}_before"] != layer[f"{end}_after"] for end in ("outputs", "inputs"))
    ]
    headings = ("layer", "outputs, baseline", "outputs, pruned", "inputs, baseline", "inputs, pruned")
    return section("Removed channels and neurons", table(headings, rows)) if rows else ""


def _exceptions(record: Mapping[str, Any]) -> str:
    """What was not pruned or is stored dense, and why: unprunable and excluded weights, frozen and dead channels."""
    surgery = record.get("surgery") or {}
    rows = [
        *(
            (one["weight"], f"not pruned, in {one['op_type']} {one['node']}", one["reason"])
            for one in record.get("unprunable") or ()
        ),
        *(
            (layer["name"], "excluded or stored dense", layer["note"])
            for layer in record["layers"]
            if layer.get("note")
        ),
        *(
            (layer["name"], "output channels cannot be removed", layer["frozen"])
            for layer in surgery.get("layers", ())
            if layer["frozen"]
        ),
        *(
            (dead["name"], f"{len(dead['units']):,} dead output channels kept", dead["reason"])
            for dead in surgery.get("kept_dead", ())
        ),
    ]
    cells = [[Cell(text) for text in row] for row in rows]
    return section("Exceptions", table(("weight", "exception", "reason"), cells)) if rows else ""


def _command(record: Mapping[str, Any]) -> str:
    settings = record["settings"]
    objects = [name for name, value in settings.items() if str(value).startswith("<")]
    caution = ""
    if objects:
        caution = paragraph(f"{', '.join(objects)}: given as a Python object; replace it by your own data.")
    return section(
        "How to reproduce",
        f"{caution}<pre>{escape(command(record))}</pre>"
        f"<details><summary>As a recipe, for --config</summary><pre>{escape(recipe_text(settings))}</pre></details>",
    )


def _settings(record: Mapping[str, Any]) -> str:
    """The settings that differ from their defaults, and behind a click the others."""
    defaults = {setting.name: setting.default for setting in fields(PruneConfig)}
    chosen: list[list[Cell]] = []
    usual: list[list[Cell]] = []
    for name, value in record["settings"].items():
        unset = value is None or value == [] or value == defaults.get(name, MISSING)
        row = [Cell(name), Cell("" if value is None else str(value))]
        (usual if unset else chosen).append(row)
    headings = ("setting", "value")
    others = (
        details(f"{len(usual)} settings at their defaults", table(headings, usual, stacked=False))
        if usual
        else ""
    )
    return section("Settings", (table(headings, chosen, stacked=False) if chosen else "") + others)


def _versions(record: Mapping[str, Any]) -> str:
    facts = {
        "SHA-256 of the input model": record["source_sha256"],
        "SHA-256 of the pruned model": record.get("output_sha256", ""),
        **record["versions"],
    }
    if machine := (record.get("latency") or {}).get("machine"):
        facts["machine"] = machine
    seconds = record.get("seconds") or {}
    facts |= {f"time, {stage}": f"{time:.1f} s" for stage, time in seconds.items()}
    rows = [[Cell(name), Cell(str(value))] for name, value in facts.items() if value]
    return section("Versions, hashes and times", table(("name", "value"), rows, stacked=False))
