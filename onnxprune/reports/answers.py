"""The answers in the report: errors by class, and the samples whose answer changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxprune.reports.html import Cell, caption, charts, details, paragraph, picture, section, table

# More classes open by a click, those that lose least.
CLASSES = 20
THUMBNAIL = 96


def by_class(record: Mapping[str, Any]) -> str:
    """A table of the classes, those that lose most first."""
    answers = _answers(record)
    if not answers.get("classes"):
        return ""
    most = max(1 - min(right) / samples for _, samples, *right in answers["classes"]) or 1.0
    rows = [_row(counts, most) for counts in answers["classes"]]
    rows.sort(key=lambda row: -(row[-1].value or 0.0))
    headings = ("class", "samples", "baseline", "pruned", "change")
    body = table(headings, rows[:CLASSES], stacked=False)
    if more := rows[CLASSES:]:
        others = table(headings, more, filtered=True, stacked=False)
        body += details(f"{len(more)} more classes, which lose less", others)
    return section("Error by class", body)


def _row(counts: Sequence[int], most: float) -> list[Cell]:
    """Errors with bars relative to the largest one, `most`; `counts`: see `Answers.result`."""
    label, samples, baseline, pruned = counts
    old, new = 1 - baseline / samples, 1 - pruned / samples
    return [
        Cell(str(label), label),
        Cell(f"{samples:,}", samples),
        Cell(f"{old:.2%}", old, old / most),
        Cell(f"{new:.2%}", new, new / most),
        Cell(f"{new - old:+.2%}", new - old),
    ]


def changed(record: Mapping[str, Any]) -> str:
    """How many answers changed, and some of the samples, as pictures where they are images."""
    answers = _answers(record)
    counts = answers.get("changed")
    if counts is None:
        return ""
    evaluation = record["evaluation"]
    total = sum(counts.values())
    if not total:
        same = f"The top-1 class of {answers['output']} is the same for all {evaluation['samples']:,} samples of "
        return section("Changed answers", paragraph(f"{same}{evaluation['data']}."))
    text = (
        f"The top-1 class of {answers['output']} is another one for {total:,} of {evaluation['samples']:,} samples of "
        f"{evaluation['data']}: {counts['lost']:,} were right with the baseline and are wrong now, "
        f"{counts['gained']:,} were wrong and are right now, {counts['other']:,} are wrong in another way."
    )
    return section("Changed answers", paragraph(text) + _samples(answers["shown"]))


def _samples(shown: Sequence[Mapping[str, Any]]) -> str:
    drawn = [each for each in shown if "picture" in each]
    if drawn:
        return charts(map(_figure, drawn), "samples")
    rows = [
        [Cell(f"{each[name]}", each[name]) for name in ("sample", "label", "baseline", "pruned")]
        for each in shown
    ]
    return table(("sample", "label", "baseline", "pruned"), rows, stacked=False) if rows else ""


def _figure(sample: Mapping[str, Any]) -> str:
    text = f"label {sample['label']}: {sample['baseline']} → {sample['pruned']}"
    return picture(sample["picture"], text, THUMBNAIL) + caption(text, f"sample {sample['sample']:,}")


def _answers(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return (record.get("evaluation") or {}).get("answers") or {}
