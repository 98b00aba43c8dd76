"""The summary at the top of the report: one sentence, and one card per measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from onnxprune.evaluation.metrics import drop_text, score_text, score_title
from onnxprune.reports.cost import cost_card
from onnxprune.reports.energy import energy_card
from onnxprune.reports.html import paragraph
from onnxprune.reports.latency import BASELINE, KERNELS, STOCK
from onnxprune.reports.text import bytes_text

# Smaller speedups are within the noise of a busy machine.
LEAST_SPEEDUP = 1.1


def summary(record: Mapping[str, Any]) -> str:
    """A sentence, and a card for each measurement."""
    shown = "".join(_card(*card) for card in cards(record))
    return f'{paragraph(sentence(record), "lead")}<div class="cards">{shown}</div>'


def sentence(record: Mapping[str, Any]) -> str:
    layers = record["layers"]
    kept, size = sum(layer["kept"] for layer in layers), sum(layer["size"] for layer in layers)
    text = f"{1 - kept / max(size, 1):.1%} of the weights are removed"
    baseline, pruned = record.get("baseline"), record.get("pruned")
    if baseline and pruned:
        text += f"; the file is {times(baseline['bytes'], pruned['bytes'])}"
    if primary := next(score_texts(record["evaluation"]), None):
        title, old, new = primary
        text += f"; the {title} changes from {old} to {new}"
    speedups = (record.get("latency") or {}).get("speedup") or {}
    if speedups:
        best = max((name for name in speedups if name != BASELINE), key=speedups.__getitem__)
        kernels = " with the sparse kernels" if best == KERNELS else ""
        faster = f"{speedups[best]:.1f} times as fast as the baseline on this machine{kernels}"
        text += "; the pruned model is "
        text += faster if speedups[best] >= LEAST_SPEEDUP else "about as fast as the baseline on this machine"
    return f"{text}."


def cards(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Title, baseline, pruned, and details of each card."""
    layers = record["layers"]
    kept, size = sum(layer["kept"] for layer in layers), sum(layer["size"] for layer in layers)
    yield "prunable weights, non-zero", f"{size:,}", f"{kept:,}", times(size, kept)
    baseline, pruned = record.get("baseline"), record.get("pruned")
    if baseline and pruned:
        sizes = baseline["bytes"], pruned["bytes"]
        packed = baseline.get("gzip_bytes"), pruned.get("gzip_bytes")
        travels = f"; compressed {bytes_text(packed[0])} → {bytes_text(packed[1])}" if all(packed) else ""
        yield "file size", bytes_text(sizes[0]), bytes_text(sizes[1]), f"{times(*sizes)}{travels}"
        if baseline["multiply_adds"]:
            total, remaining = baseline["multiply_adds"], pruned["multiply_adds"]
            nonzero = pruned.get("nonzero_multiply_adds", remaining)
            yield (
                "multiply-adds per sample",
                count_text(baseline.get("nonzero_multiply_adds", total)),
                count_text(nonzero),
                f"{times(total, nonzero)}, without those with zeros; {count_text(remaining)} with them",
            )
    yield from _speed(record.get("latency") or {})
    yield from filter(None, (cost_card(record), energy_card(record)))
    evaluation = record["evaluation"]
    on = "" if evaluation is None else f"on {evaluation['samples']:,} samples of {evaluation['data']}"
    for index, (title, old, new) in enumerate(score_texts(evaluation)):
        yield title, old, new, on if index else f"{_drop(evaluation)}{on}"
    if old_data := record.get("old_evaluation"):
        for title, old, new in score_texts(old_data):
            yield f"{title}, old data", old, new, f"on {old_data['samples']:,} samples"
    for output in evaluation["outputs"] if evaluation else ():
        agreement = output["agreement"]
        same = "" if agreement is None else f"same top-1 class for {agreement:.2%}, "
        details = f"pruned model and baseline, {same}{on}"
        # Records of earlier versions do not tell.
        if unlike := output.get("unlike"):
            yield f"output {output['output']}", "", unlike, f"baseline and pruned model, {on}"
        else:
            yield f"cosine similarity of {output['output']}", "", f"{output['cosine']:.4f}", details


def _drop(evaluation: Mapping[str, Any] | None) -> str:
    """How much worse the primary metric is, with its standard error; nothing if it is not known."""
    if evaluation is None or evaluation.get("drop_error") is None or evaluation["baseline"] is None:
        return ""
    drop, name = evaluation["drop"], evaluation["baseline"]["name"]
    change = "better" if drop < 0 else "worse"
    error = drop_text(name, evaluation["drop_error"])
    return f"{change} by {drop_text(name, abs(drop))} (standard error {error}), "


def _speed(latency: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    milliseconds, speedups = latency.get("milliseconds") or {}, latency.get("speedup") or {}
    for name in (STOCK, KERNELS):
        if name in milliseconds:
            title = "stock onnxruntime" if name == STOCK else "sparse kernels"
            details = f"{speedups[name]:.2f} times as fast, batch size 1, on {latency['machine']}"
            old, new = milliseconds[BASELINE], milliseconds[name]
            yield f"latency, {title}", f"{old:.3g} ms", f"{new:.3g} ms", details


def _card(title: str, baseline: str, pruned: str, details: str) -> str:
    change = ""
    if baseline:
        change = f'<span class="old">{escape(baseline)} <span aria-label="to">→</span></span> '
    return (
        f'<div class="card">{escape(title)}<div>{change}<b>{escape(pruned)}</b></div>'
        f"<small>{escape(details)}</small></div>"
    )


def score_texts(evaluation: Mapping[str, Any] | None) -> Iterator[tuple[str, str, str]]:
    """The title and both models' text of each score, the primary one first; older reports have only that."""
    if evaluation is None:
        return
    primary = [] if evaluation["baseline"] is None else [evaluation]
    for scores in evaluation.get("scores", primary):
        yield score_title(scores["baseline"]), score_text(scores["baseline"]), score_text(scores["pruned"])


def times(baseline: float, pruned: float) -> str:
    return f"{baseline / pruned:.1f} times smaller" if pruned else "nothing remains"


def count_text(count: float) -> str:
    """2.29 million, 15.5 billion."""
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,.0f}"
