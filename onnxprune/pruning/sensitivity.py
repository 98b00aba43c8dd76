"""A sensitivity scan: every weight pruned alone at a ladder of rates (Han et al. 2015, section 4), resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnxprune.errors import OutputError, SettingError
from onnxprune.model.replace import replacing
from onnxprune.model.weights import Weight
from onnxprune.pruning.criteria import magnitude
from onnxprune.pruning.patterns import keep_largest

RATES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# A layer may lose so much more than the whole: of what is left at the rate asked for, it may keep but this share.
SPARED = 0.25


def ladder_for(rate: float) -> tuple[float, ...]:
    """The rates to try where layers share out `rate`, some losing more, some less: RATES, and halvings of the rest."""
    rates = list(RATES)
    while rates[-1] < 1 - SPARED * (1 - rate):
        rates.append(1 - (1 - rates[-1]) / 2)
    return tuple(rates)


class Loss(Protocol):
    """What pruning did: `outputs` their relative squared deviation, `error` the share of labels missed, if any."""

    @property
    def outputs(self) -> float: ...
    @property
    def error(self) -> float | None: ...


Variants = Callable[[Weight], Mapping[float, np.ndarray]]
Judge = Callable[[Sequence[Weight], Variants], Iterable[tuple[Weight, Mapping[float, Loss]]]]
"""Tries every variant (arrays by rate) of every weight, and gives what it cost, weight after weight."""


@dataclass
class Scan:
    """What a scan has found so far; `about` says of what, and on what."""

    about: dict[str, Any]
    layers: dict[str, dict[float, tuple[float, float | None]]] = field(default_factory=dict)
    """By weight and rate: the deviation of the outputs, and the error (None without classes)."""

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
            raise OutputError(f"{path} cannot be written: {error.strerror}; name another file") from error

    @classmethod
    def load(cls, path: Path) -> Scan:
        """Read a scan that `save` wrote.

        Raises:
            SettingError: the file is none.
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
                f"{path} is no sensitivity scan: {error}; delete it, or name another file"
            ) from None


def scan(
    weights: Sequence[Weight], judge: Judge, rates: Sequence[float], about: dict[str, Any], state: Path | None
) -> Iterator[Scan]:
    """Scan weight after weight, smallest magnitudes first; yields what is found so far, after each.

    `state`: a file that keeps it; a scan of the same things that was interrupted goes on from there.

    Raises:
        SettingError: the file holds a scan of something else.
    """
    found = Scan(about)
    if state is not None and state.exists():
        found = Scan.load(state)
        if found.about != about:
            differing = ", ".join(key for key in about if found.about.get(key) != about[key])
            raise SettingError(f"{state} holds another scan (it differs in {differing}): name another file")
    missing = [weight for weight in weights if weight.name not in found.layers]
    for weight, losses in judge(missing, lambda weight: _pruned_alone(weight, rates)):
        found.layers[weight.name] = {rate: (loss.outputs, loss.error) for rate, loss in losses.items()}
        if state is not None:
            found.save(state)
        yield found
    if not missing:
        yield found


def _pruned_alone(weight: Weight, rates: Sequence[float]) -> dict[float, np.ndarray]:
    array, zero, scores = weight.array(), weight.encoding.zero, magnitude(weight)
    return {rate: np.where(keep_largest([scores], rate)[0], array, zero) for rate in rates}
