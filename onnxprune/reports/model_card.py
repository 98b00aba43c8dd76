"""A model card in Markdown, with the YAML that the Hugging Face Hub reads: tags, base model, and metrics with values.

The format: https://huggingface.co/docs/hub/model-cards, its evaluation results as `model-index`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import yaml

from onnxprune.reports.page import command
from onnxprune.reports.publishing import published
from onnxprune.reports.summary import cards, sentence

# The Hub's names of metrics that it does not call as they are called here.
HUB_METRICS = {"top-1": "accuracy", "top-5": "accuracy-top-5", "iou": "mean_iou", "spearman": "spearmanr"}
CLASSES = 10


def model_card(given: Mapping[str, Any], base_model: str | None = None) -> str:
    """The card of a pruned model; `base_model`: the repository of the input model on the Hub."""
    record = published(given)
    name = PurePath((record.get("pruned") or {}).get("path") or "pruned model").name
    front = yaml.safe_dump(_front_matter(record, PurePath(name).stem, base_model), sort_keys=False)
    baseline = PurePath((record.get("baseline") or {}).get("path") or "").name
    origin = base_model or baseline
    parts = (
        f"---\n{front}---\n",
        f"# {name}\n",
        f"Pruned by onnxprune {record['versions'].get('onnxprune', '')}{f' from `{origin}`' if origin else ''}. "
        f"{sentence(record)}\n",
        _table(("", "baseline", "pruned", ""), cards(record)),
        *_worst_classes(record),
        f"## How to reproduce\n\n```sh\n{command(record)}\n```\n",
        f"SHA-256 of the input model: `{record['source_sha256']}`\n",
    )
    return "\n".join(parts)


def _front_matter(record: Mapping[str, Any], name: str, base_model: str | None) -> dict[str, Any]:
    settings = record["settings"]
    pattern = settings.get("pattern")
    tags = ["onnx", "pruning", "sparse", *([pattern] if pattern else [])]
    tags += [settings["quantize"]] if settings.get("quantize") not in (None, "none") else []
    front: dict[str, Any] = {"library_name": "onnx"}
    if base_model is not None:
        front["base_model"] = base_model
    front["tags"] = tags
    if results := _results(record):
        front["metrics"] = [metric["type"] for metric in results["metrics"]]
        front["model-index"] = [{"name": name, "results": [results]}]
    return front


def _results(record: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of the pruned model as the Hub reads them; nothing without labels."""
    evaluation = record.get("evaluation") or {}
    scores = [scores["pruned"] for scores in evaluation.get("scores", ())]
    if not scores:
        return {}
    classes = (evaluation.get("answers") or {}).get("classes")
    images = record["settings"].get("transform") is not None
    return {
        "task": {"type": "image-classification" if classes and images else "other"},
        "dataset": {"name": evaluation["data"], "type": evaluation["data"]},
        "metrics": [
            {
                "type": HUB_METRICS.get(score["name"], score["name"]),
                "name": _value_name(score),
                "value": score["value"],
            }
            for score in scores
        ],
    }


def _value_name(score: Mapping[str, Any]) -> str:
    """What the value is: scores that are shown as errors are shares of what is right."""
    title = str(score.get("title") or score["name"])
    return title.replace(" error", " accuracy")


def _worst_classes(record: Mapping[str, Any]) -> Iterator[str]:
    """The classes that lose most, where the evaluation counted them."""
    answers = (record.get("evaluation") or {}).get("answers") or {}
    rows = [
        (str(label), f"{samples:,}", 1 - old / samples, 1 - new / samples)
        for label, samples, old, new in answers.get("classes", ())
    ]
    rows.sort(key=lambda row: row[2] - row[3])
    if rows:
        shown = [(label, samples, f"{old:.2%}", f"{new:.2%}") for label, samples, old, new in rows[:CLASSES]]
        title = "Error by class" if len(rows) <= CLASSES else f"The {CLASSES} classes that lose most"
        yield f"## {title}\n\n{_table(('class', 'samples', 'baseline', 'pruned'), shown)}"


def _table(headings: tuple[str, ...], rows: Any) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "".join(f"| {' | '.join(_cell(text) for text in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
