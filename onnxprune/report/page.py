"""The record of a job as one HTML page that needs nothing else: no network, no library, light and dark, any width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from html import escape
from typing import Any

from onnxprune.config import PruneConfig
from onnxprune.report.charts import histogram, line_chart
from onnxprune.report.tables import bytes_text, shape_text

# Energy of a 32-bit read from DRAM in a 45 nm process (Horowitz 2014; Han et al. 2015, table 1).
DRAM_JOULES = 640e-12

STYLE = """:root{color-scheme:light dark;--ground:#fff;--ink:#1c1c1c;--dim:#666;--line:#ddd;--card:#f5f5f3}
@media(prefers-color-scheme:dark){:root{--ground:#161616;--ink:#e4e4e4;--dim:#999;--line:#383838;--card:#212121}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;font:15px/1.5 system-ui,sans-serif;background:var(--ground);
color:var(--ink)}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}h3{font-size:.9rem;margin:.5rem 0 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:.6rem}
.card{background:var(--card);border-radius:.5rem;padding:.7rem}
.card b{display:block;font-size:1.25rem}.card span,.dim{color:var(--dim);font-size:.85rem}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.85rem}
th,td{padding:.3rem .5rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;
overflow-wrap:break-word}
th.sorts{cursor:pointer}td.number,th.number{text-align:right;white-space:nowrap}
code,pre{font:.85em ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap}
pre{background:var(--card);padding:.7rem;border-radius:.5rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr));gap:1rem}
svg{width:100%;height:auto}"""

# Sorts a table by the column whose heading is clicked: numbers by their value, a second click the other way round.
SCRIPT = """document.querySelectorAll('th.sorts').forEach(th=>th.addEventListener('click',()=>{
const rows=th.closest('table').tBodies[0],at=th.cellIndex,up=th.dataset.up!=='1';th.dataset.up=up?'1':'0';
const key=row=>row.cells[at].dataset.value??row.cells[at].textContent;
[...rows.rows].sort((a,b)=>{const x=key(a),y=key(b),d=x-y;return (isNaN(d)?x.localeCompare(y):d)*(up?1:-1)})
.forEach(row=>rows.append(row))}))"""


def page(record: Mapping[str, Any]) -> str:
    """The HTML of a record, `Report.to_dict()` or as much of it as `record_of_annotations` finds."""
    sections = (
        _summary(record),
        _notes(record),
        _retraining(record),
        _layers(record),
        _histograms(record),
        _removed(record),
        _left_alone(record),
        _origin(record),
    )
    name = (record.get("after") or {}).get("path") or "pruned model"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)}</title><style>{STYLE}</style></head><body><h1>{escape(name)}</h1>"
        f"{''.join(sections)}<script>{SCRIPT}</script></body></html>\n"
    )


def command(record: Mapping[str, Any]) -> str:
    """The command line that gives the result again."""
    words = [
        "onnxprune",
        *((record.get(end) or {}).get("path") or end.upper() for end in ("before", "after")),
    ]
    defaults = {setting.name: setting.default for setting in fields(PruneConfig)}
    for name, value in record["settings"].items():
        default = defaults.get(name, MISSING)
        if value == default or (value == [] and default == ()):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
        elif isinstance(value, list):
            words += [
                f"--{flag} '{'='.join(map(str, one)) if isinstance(one, list) else one}'" for one in value
            ]
        elif value is not None:
            words.append(f"--{flag} {value}")
    return " ".join(words)


def _summary(record: Mapping[str, Any]) -> str:
    cards = [_card(*card) for card in _cards(record)]
    return f'<div class="cards">{"".join(cards)}</div>'


def _cards(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What, after, and before in words."""
    layers = record["layers"]
    kept, size = sum(layer["kept"] for layer in layers), sum(layer["size"] for layer in layers)
    yield "weights removed", f"{1 - kept / max(size, 1):.1%}", f"{kept:,} of {size:,} are left"
    before, after = record.get("before"), record.get("after")
    if before and after:
        yield "file", bytes_text(after["bytes"]), f"before: {bytes_text(before['bytes'])}"
        yield (
            "multiply-adds",
            f"{after['multiply_adds']:,}",
            f"before: {before['multiply_adds']:,}, zeros counted",
        )
        joules, joules_before = (end["nonzero"] * DRAM_JOULES for end in (after, before))
        yield (
            "energy to fetch the weights",
            f"{joules * 1e6:.3g} µJ",
            f"before: {joules_before * 1e6:.3g} µJ; an estimate: 640 pJ for each 32-bit read from DRAM at 45 nm",
        )
    evaluation = record["evaluation"]
    on = f"{evaluation['samples']:,} samples of {evaluation['data']}"
    if evaluation["before"] is not None:
        ends = [_metric(evaluation[end]) for end in ("after", "before")]
        name = "error" if evaluation["before"]["name"] == "top-1" else "mean squared error"
        yield name, ends[0], f"before: {ends[1]}; {on}"
    for output in evaluation["outputs"]:
        agreement = output["agreement"]
        same = "" if agreement is None else f"same top-1 on {agreement:.2%}; "
        yield f"cosine of {output['output']}", f"{output['cosine']:.4f}", f"{same}with the model before; {on}"


def _metric(metric: Mapping[str, Any]) -> str:
    return f"{1 - metric['value']:.2%}" if metric["name"] == "top-1" else f"{metric['value']:.4g}"


def _card(what: str, value: str, detail: str) -> str:
    return f'<div class="card">{escape(what)}<b>{escape(value)}</b><span>{escape(detail)}</span></div>'


def _notes(record: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in record.get("notes", ()))
    return f"<ul>{items}</ul>" if items else ""


def _retraining(record: Mapping[str, Any]) -> str:
    epochs = record.get("retraining") or ()
    charts = []
    for key, label in (("loss", "held-out loss"), ("accuracy", "held-out error")):
        points = [
            (epoch["epoch"], epoch[key] if key == "loss" else 1 - epoch[key])
            for epoch in epochs
            if epoch[key] is not None
        ]
        if points:
            charts.append(f"<div>{line_chart({label: points}, 'epoch', label)}</div>")
    return _section("Retraining", f'<div class="charts">{"".join(charts)}</div>') if charts else ""


def _layers(record: Mapping[str, Any]) -> str:
    headings = ("weight", "operator", "shape", "kept", "of", "removed", "bytes", "stored as")
    rows: list[list[tuple[str, float | None]]] = []
    for layer in record["layers"]:
        shape = layer.get("shape")
        after = layer.get("shape_after", shape)
        shapes = "" if shape is None else shape_text(tuple(shape))
        shapes += f" → {shape_text(tuple(after))}" if after != shape else ""
        size = layer.get("bytes_after")
        rows.append([
            (layer["name"], None),
            (layer.get("op_type", ""), None),
            (shapes, None),
            (f"{layer['kept']:,}", layer["kept"]),
            (f"{layer['size']:,}", layer["size"]),
            (f"{1 - layer['kept'] / max(layer['size'], 1):.2%}", 1 - layer["kept"] / max(layer["size"], 1)),
            ("" if size is None else bytes_text(size), 0 if size is None else size),
            (layer.get("format", ""), None),
        ])  # fmt: skip
    return _section("Layers", _table(headings, rows))


def _histograms(record: Mapping[str, Any]) -> str:
    figures = [
        f"<figure style='margin:0'><h3>{escape(name)}</h3>{histogram(parts['edges'], parts['counts'])}</figure>"
        for name, parts in (record.get("histograms") or {}).items()
    ]
    text = (
        "Values of the weights that are not zero: before, those that stayed as they were before, and after."
    )
    body = f'<p class="dim">{text}</p><div class="charts">{"".join(figures)}</div>'
    return _section("Weights", body) if figures else ""


def _removed(record: Mapping[str, Any]) -> str:
    surgery = record.get("surgery") or {}
    rows = [
        [
            (layer["name"], None),
            *((f"{layer[key]:,}", layer[key]) for key in ("outputs_before", "outputs_after")),
        ]
        for layer in surgery.get("layers", ())
        if layer["outputs_before"] != layer["outputs_after"]
    ]
    return (
        _section("Removed channels and neurons", _table(("layer", "before", "after"), rows)) if rows else ""
    )


def _left_alone(record: Mapping[str, Any]) -> str:
    rows = [
        [(str(one[key]), None) for key in ("weight", "op_type", "node", "reason")]
        for one in record.get("unprunable") or ()
    ]
    return _section("Left as they are", _table(("weight", "operator", "node", "why"), rows)) if rows else ""


def _origin(record: Mapping[str, Any]) -> str:
    facts = {"SHA-256 of the model before": record["source_sha256"], **record["versions"]}
    settings = [
        [(name, None), ("" if value is None else str(value), None)]
        for name, value in record["settings"].items()
    ]
    rows = [[(name, None), (str(value), None)] for name, value in facts.items()]
    return (
        _section("Again", f"<pre>{escape(command(record))}</pre>")
        + _section("Settings", _table(("setting", "value"), settings))
        + _section("Versions", _table(("what", ""), rows))
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[tuple[str, float | None]]]) -> str:
    """Cells are texts, with a number to sort by where they have one."""
    lines = list(rows)
    numeric = [bool(lines) and value is not None for _, value in (lines[0] if lines else ())]
    head = "".join(
        f'<th class="sorts{" number" if number else ""}">{escape(heading)}</th>'
        for heading, number in zip(headings, numeric or [False] * len(headings), strict=True)
    )
    body = "".join(f"<tr>{''.join(_cell(*cell) for cell in line)}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, value: float | None) -> str:
    number = "" if value is None else f' class="number" data-value="{value}"'
    return f"<td{number}>{escape(text)}</td>"
