"""The HTML report: the record of a job as one self-contained page, for light and dark mode and any width."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from html import escape
from typing import Any

from onnxprune.config.recipe import recipe_text
from onnxprune.config.settings import PruneConfig
from onnxprune.reports import figures
from onnxprune.reports.html import Cell, paragraph, section, table
from onnxprune.reports.publishing import published
from onnxprune.reports.summary import summary
from onnxprune.reports.text import bytes_text, shape_text

STYLE = """:root{color-scheme:light dark;--ground:#fff;--ink:#1c1c1c;--dim:#636363;--line:#ddd;--card:#f5f5f3}
@media(prefers-color-scheme:dark){:root{--ground:#161616;--ink:#e4e4e4;--dim:#a0a0a0;--line:#383838;--card:#212121}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;font:15px/1.5 system-ui,sans-serif;background:var(--ground);
color:var(--ink);overflow-wrap:break-word}
h1{font-size:1.5rem;margin:.5rem 0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:2rem 0 .5rem}
.lead{font-size:1.05rem;margin:.5rem 0 1rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,17rem),1fr));gap:.6rem}
.card{background:var(--card);border-radius:.5rem;padding:.7rem;overflow-wrap:anywhere}
.card b{font-size:1.25rem}.old,.dim,small{color:var(--dim)}small{display:block;font-size:.8rem;line-height:1.35}
.dim{font-size:.85rem}.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.85rem}
th,td{padding:.3rem .5rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;min-width:3.5rem}
th button{all:unset;cursor:pointer;font-weight:600}th button:focus-visible{outline:2px solid}
th[aria-sort=ascending] button::after{content:" ↑"}th[aria-sort=descending] button::after{content:" ↓"}
.number{text-align:right;white-space:nowrap}
code,pre{font:.85em ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap}
pre{background:var(--card);padding:.7rem;border-radius:.5rem;margin:.3rem 0}summary{cursor:pointer}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:1rem}
figure{margin:0}figcaption{font-weight:600;font-size:.9rem;overflow-wrap:anywhere}
svg{width:100%;height:auto;display:block}"""

# Sorts a table by the column whose heading is clicked, numbers by their value; a second click reverses the order.
SCRIPT = """document.querySelectorAll('th button').forEach(button=>button.addEventListener('click',()=>{
const th=button.parentElement,rows=th.closest('table').tBodies[0],at=th.cellIndex;
const up=th.ariaSort!=='ascending';for(const other of th.parentElement.cells)other.ariaSort=null;
th.ariaSort=up?'ascending':'descending';
const key=row=>row.cells[at].dataset.value??row.cells[at].textContent;
[...rows.rows].sort((a,b)=>{const x=key(a),y=key(b),d=x-y;return (isNaN(d)?x.localeCompare(y):d)*(up?1:-1)})
.forEach(row=>rows.append(row))}))"""


def page(record: Mapping[str, Any]) -> str:
    """The HTML page for a record: `Report.to_dict()`, or the part of it that `record_of_annotations` returns."""
    record = published(record)
    sections = (
        summary(record),
        _notes(record),
        figures.tradeoff(record),
        _layers(record),
        figures.fine_tuning(record),
        figures.sensitivity(record),
        figures.histograms(record),
        _removed(record),
        _exceptions(record),
        _command(record),
        _settings(record),
        _versions(record),
    )
    name = (record.get("pruned") or {}).get("path") or "pruned model"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)}</title><style>{STYLE}</style></head><body><h1>{escape(name)}</h1>"
        f"{''.join(sections)}<script>{SCRIPT}</script></body></html>\n"
    )


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
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<ul>{items}</ul>" if items else ""


def _layers(record: Mapping[str, Any]) -> str:
    headings = ("weight", "operator", "shape", "kept", "of", "sparsity", "size", "format")
    rows: list[list[Cell]] = []
    for layer in record["layers"]:
        shape = layer.get("shape")
        after = layer.get("shape_after", shape)
        shapes = "" if shape is None else shape_text(tuple(shape))
        shapes += f" → {shape_text(tuple(after))}" if after != shape else ""
        size = layer.get("bytes_after")
        rate = 1 - layer["kept"] / max(layer["size"], 1)
        rows.append([
            (layer["name"], None),
            (layer.get("op_type", ""), None),
            (shapes, None),
            (f"{layer['kept']:,}", layer["kept"]),
            (f"{layer['size']:,}", layer["size"]),
            (f"{rate:.2%}", rate),
            ("" if size is None else bytes_text(size), 0 if size is None else size),
            (" ".join(filter(None, (layer.get("format", ""), layer.get("values", "")))), None),
        ])  # fmt: skip
    return section("Layers", table(headings, rows))


def _removed(record: Mapping[str, Any]) -> str:
    """Removed channels and neurons, by layer."""
    surgery = record.get("surgery") or {}
    rows = [
        [
            (layer["name"], None),
            *(
                (f"{layer[key]:,}", layer[key])
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
    cells = [[(text, None) for text in row] for row in rows]
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
    settings = [
        [(name, None), ("" if value is None else str(value), None)]
        for name, value in record["settings"].items()
    ]
    return section("Settings", table(("setting", "value"), settings))


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
    rows: list[list[Cell]] = [[(name, None), (str(value), None)] for name, value in facts.items() if value]
    return section("Versions, hashes and times", table(("name", "value"), rows))
