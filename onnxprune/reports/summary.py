"""The head of the page: what a reader in a hurry wants to know, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from onnxprune.evaluation.metrics import METRICS, score_text
from onnxprune.reports.html import paragraph
from onnxprune.reports.latency import BEFORE, KERNELS, STOCK
from onnxprune.reports.text import bytes_text

# In a 45 nm process: reading 32 bits from DRAM, and multiplying and adding floats of 32 bits (Horowitz 2014; Han et al.
# 2015, table 1).
DRAM_JOULES = 640e-12
MULTIPLY_ADD_JOULES = 3.7e-12 + 0.9e-12

# Times faster; below that busy machines differ by themselves.
WORTH_SAYING = 1.1


def summary(record: Mapping[str, Any]) -> str:
    """A sentence and a card for each figure."""
    cards = "".join(_card(*card) for card in _cards(record))
    return f'{paragraph(_sentence(record), "lead")}<div class="cards">{cards}</div>'


def _sentence(record: Mapping[str, Any]) -> str:
    layers = record["layers"]
    kept, size = sum(layer["kept"] for layer in layers), sum(layer["size"] for layer in layers)
    said = f"{1 - kept / max(size, 1):.1%} of the weights are gone"
    before, after = record.get("baseline"), record.get("pruned")
    if before and after:
        said += f"; the file is {times(before['bytes'], after['bytes'])}"
    evaluation = record["evaluation"]
    if evaluation["baseline"] is not None:
        old, new = (score_text(evaluation[end]) for end in ("baseline", "pruned"))
        said += f"; {metric_name(evaluation)} went from {old} to {new}"
    ratios = (record.get("latency") or {}).get("times") or {}
    if ratios:
        best = max((name for name in ratios if name != BEFORE), key=ratios.__getitem__)
        kernels = " with our kernels" if best == KERNELS else ""
        faster = f"{ratios[best]:.1f} times as fast here{kernels}"
        said += f"; it runs {faster if ratios[best] >= WORTH_SAYING else 'about as fast here as before'}"
    return f"{said}."


def _cards(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """What, before, after, and details."""
    layers = record["layers"]
    kept, size = sum(layer["kept"] for layer in layers), sum(layer["size"] for layer in layers)
    yield "weights that can be pruned", f"{size:,}", f"{kept:,}", times(size, kept)
    before, after = record.get("baseline"), record.get("pruned")
    if before and after:
        sizes = before["bytes"], after["bytes"]
        yield "file", bytes_text(sizes[0]), bytes_text(sizes[1]), times(*sizes)
        if before["multiply_adds"]:
            all_of, ours = before["multiply_adds"], after["multiply_adds"]
            left = after.get("nonzero_multiply_adds", ours)
            yield (
                "multiply-adds of a sample",
                count_text(before.get("nonzero_multiply_adds", all_of)),
                count_text(left),
                f"{times(all_of, left)}, zeros not counted; {count_text(ours)} with them",
            )
    yield from _speed(record.get("latency") or {})
    evaluation = record["evaluation"]
    on = f"on {evaluation['samples']:,} samples of {evaluation['data']}"
    if evaluation["baseline"] is not None:
        old, new = (score_text(evaluation[end]) for end in ("baseline", "pruned"))
        yield metric_name(evaluation), old, new, on
    old_data = record.get("old_evaluation")
    if old_data and old_data["baseline"] is not None:
        old, new = (score_text(old_data[end]) for end in ("baseline", "pruned"))
        yield f"{metric_name(old_data)}, old data", old, new, f"on {old_data['samples']:,} samples"
    for output in evaluation["outputs"]:
        agreement = output["agreement"]
        same = "" if agreement is None else f"same top-1 on {agreement:.2%}, "
        yield f"cosine of {output['output']}", "", f"{output['cosine']:.4f}", f"after with before, {same}{on}"
    if before and after:
        joules = [_joules(end) for end in (before, after)]
        yield (
            "energy of a sample, estimated",
            joules_text(joules[0]),
            joules_text(joules[1]),
            "from a table for 45 nm: 640 pJ to read each weight that is not zero from DRAM, 4.6 pJ for each "
            "multiply-add; not measured",
        )


def _speed(latency: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    milliseconds, ratios = latency.get("milliseconds") or {}, latency.get("times") or {}
    for name in (STOCK, KERNELS):
        if name in milliseconds:
            how = "stock onnxruntime" if name == STOCK else "our kernels"
            detail = (
                f"{ratios[name]:.2f} times as fast, one sample at a time, in turns on {latency['machine']}"
            )
            ends = (milliseconds[BEFORE], milliseconds[name])
            yield f"latency, {how}", f"{ends[0]:.3g} ms", f"{ends[1]:.3g} ms", detail


def _joules(end: Mapping[str, Any]) -> float:
    operations = end.get("nonzero_multiply_adds", end["multiply_adds"])
    return end["nonzero"] * DRAM_JOULES + operations * MULTIPLY_ADD_JOULES


def _card(what: str, before: str, after: str, detail: str) -> str:
    change = f'<span class="old">{escape(before)} <span aria-label="to">→</span></span> ' if before else ""
    return (
        f'<div class="card">{escape(what)}<div>{change}<b>{escape(after)}</b></div>'
        f"<small>{escape(detail)}</small></div>"
    )


def metric_name(evaluation: Mapping[str, Any]) -> str:
    """The name of what is told of a model's score."""
    return METRICS[evaluation["baseline"]["name"]].title


def times(before: float, after: float) -> str:
    return f"{before / after:.1f} times smaller" if after else "nothing is left"


def count_text(count: float) -> str:
    """2.29 million, 15.5 billion."""
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,.0f}"


def joules_text(joules: float) -> str:
    return f"{joules * 1e3:.3g} mJ" if joules >= 1e-3 else f"{joules * 1e6:.3g} µJ"
