"""What the input file had of an earlier job, and the output file has not: a job keeps weights, not their form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxprune.config.pruning import BLOCKS
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import some
from onnxprune.reports.record import ANNOTATION_PREFIX, record_of_annotations
from onnxprune.sparse.opening import OpenedModel
from onnxprune.sparse.stored import Stored

# Patterns that weights removed one by one break, with the flags that keep them.
PATTERNS = {name: f"--pattern {name}" for name in BLOCKS} | {"2:4": "--pattern 2:4 --rate 0.5"}
TUNED = f"{ANNOTATION_PREFIX}tuned"


@dataclass(frozen=True)
class Earlier:
    """The form of the input file.

    `values`: types that values were rounded to, by weight; `settings`: of the job that wrote it, none where it was
    another program; `tuned`: whether `tune` chose its kernels.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    tuned: bool = False

    @classmethod
    def of(cls, opened: OpenedModel) -> Earlier:
        """That of an input model, before the job changes it."""
        metadata = opened.model.metadata_props
        record = record_of_annotations(metadata)
        return cls(opened.values, {} if record is None else record["settings"], TUNED in metadata)

    def notes(self, config: PruneConfig, stored: Mapping[str, Stored]) -> Iterator[str]:
        """What is lost, with what would keep it; `stored`: how each weight is stored in the output file."""
        format_before, pattern = (str(self.settings.get(name)) for name in ("format", "pattern"))
        if "format" in self.settings and format_before != config.format:
            yield (
                f"The input file was written with --format {format_before}, this one with --format {config.format}: "
                f"--format {format_before} keeps it."
            )
        if pattern in PATTERNS and pattern != config.pattern and config.rate != 0:
            yield (
                f"The input model was pruned with --pattern {pattern}, and further with --pattern {config.pattern}: "
                f"{PATTERNS[pattern]} keeps it."
            )
        if config.format != "ops":
            return
        yield from self._on_values(config, stored)
        if self.tuned and config.kernels == "estimated":
            yield (
                "The kernels that `onnxprune tune` chose for the input file are not those of this one: run it again, "
                "on the device that runs the model."
            )

    def _on_values(self, config: PruneConfig, stored: Mapping[str, Stored]) -> Iterator[str]:
        if config.quantizes or config.values != "fp32":
            return
        left = {
            name: values
            for name, values in self.values.items()
            if name in stored and stored[name].values != values and stored[name].format == "ops"
        }
        for values in dict.fromkeys(left.values()):
            names = [name for name, each in left.items() if each == values]
            yield (
                f"The values of {some(names)} were {values} in the input file, and are stored in floats, because the "
                f"job changed them: --values {values} rounds them again."
            )
