"""A resumable sensitivity scan: one weight pruned at a time, at several rates (Han et al. 2015, section 4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnxprune.errors import OutputError, SettingError
from onnxprune.model.files.replace import replacing
from onnxprune.model.weights import Weight
from onnxprune.pruning.criteria import magnitude
from onnxprune.pruning.patterns import keep_largest

RATES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# The lowest density of a layer that the scan covers, as a fraction of the density of the whole model.
LEAST_DENSITY = 0.25


def rates_to_scan(rate: float) -> tuple[float, ...]:
    """The rates to try before `rate` is distributed over the layers: RATES, then higher ones by halving the density."""
    rates = list(RATES)
    while rates[-1] < 1 - LEAST_DENSITY * (1 - rate):
        rates.append(1 - (1 - rates[-1]) / 2)
    return tuple(rates)


class Loss(Protocol):
    """The effect of pruning: `outputs`, their relative squared deviation; `error`, the fraction of wrong labels."""

    @property
    def outputs(self) -> float: ...
    @property
    def error(self) -> float | None: ...


PrunedArrays = Callable[[Weight], Mapping[float, np.ndarray]]
"""A weight to its pruned arrays, by rate."""
Measure = Callable[[Sequence[Weight], PrunedArrays], Iterable[tuple[Weight, Mapping[float, Loss]]]]
"""Measures the loss of each weight with each of its pruned arrays, by rate."""


@dataclass
class Scan:
    """The results of a scan so far; `about` identifies the model, the data and the rates."""

    about: dict[str, Any]
    layers: dict[str, dict[float, tuple[float, float | None]]] = field(default_factory=dict)
    """By weight and rate: the deviation of the outputs, and the error (None without classes)."""

    @property
    def scored(self) -> bool:
        """Whether there are errors: not where there are no labels, nor where the labels are no classes."""
        return any(error is not None for losses in self.layers.values() for _, error in losses.values())

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(rate, deviation) of a weight, rates ascending."""
        return [(rate, loss) for rate, (loss, _) in sorted(self.layers[name].items())]

    def save(self, path: Path) -> None:
        """Write the scan as JSON, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        layers = {
            name: [{"rate": rate, "deviation": loss, "error": error} for rate, (loss, error) in found.items()]
            for name, found in self.layers.items()
        }
        try:
            with replacing(path, "w") as file:
                file.write(json.dumps({"about": self.about, "layers": layers}, indent=2) + "\n")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}; give another file") from error

    @classmethod
    def load(cls, path: Path) -> Scan:
        """Read a scan that `save` wrote.

        Raises:
            SettingError: the file is not a scan.
        """
        try:
            content = json.loads(path.read_text())
            layers = {
                name: {row["rate"]: (row["deviation"], row["error"]) for row in rows}
                for name, rows in content["layers"].items()
            }
            return cls(content["about"], layers)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingError(
                f"{path} is not a sensitivity scan: {error}; delete it, or give another file"
            ) from None


def scan(
    weights: Sequence[Weight],
    measure: Measure,
    rates: Sequence[float],
    about: dict[str, Any],
    state: Path | None,
) -> Iterator[Scan]:
    """Prune one weight at a time by magnitude and measure the loss; yields the results so far after each weight.

    Where a file has all of them already, it yields these, once.

    `state`: a file to save the scan to; an interrupted scan with the same `about` is resumed from it.

    Raises:
        SettingError: the file holds a scan with another `about`.
    """
    found = Scan(about)
    if state is not None and state.exists():
        found = Scan.load(state)
        if found.about != about:
            differing = ", ".join(key for key in about if found.about.get(key) != about[key])
            raise SettingError(f"{state} holds a scan with other {differing}: give another file")
    missing = [weight for weight in weights if weight.name not in found.layers]
    for weight, losses in measure(missing, lambda weight: pruned_arrays(weight, rates)):
        found.layers[weight.name] = {rate: (loss.outputs, loss.error) for rate, loss in losses.items()}
        if state is not None:
            found.save(state)
        yield found
    if not missing:
        yield found


def pruned_arrays(weight: Weight, rates: Sequence[float]) -> dict[float, np.ndarray]:
    """A weight pruned by magnitude at each of the rates, in its shape and dtype."""
    array, zero, scores = weight.array(), weight.encoding.zero, magnitude(weight)
    return {rate: np.where(keep_largest([scores], rate)[0], array, zero) for rate in rates}
