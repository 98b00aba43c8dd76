"""The removal of whole channels in a job: at each step of the schedule, and what could not be removed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import NothingToPruneError, SettingError, some
from onnxprune.job.pruners.calibrated import Calibration
from onnxprune.job.pruners.calibrated_channels import Findings, compensate, study, try_out
from onnxprune.job.pruners.timed import Clock, Found, within_time
from onnxprune.job.pruners.work import Work
from onnxprune.job.requirements import is_calibrated
from onnxprune.model.weights import Weight, constants_by_name
from onnxprune.pruning.allocation import excluded_weights
from onnxprune.pruning.channels import Choice, choose_channels, group_importance, layers_of, widest
from onnxprune.pruning.criteria import find_criterion
from onnxprune.pruning.pruner import Arrays
from onnxprune.pruning.schedule import ONE_SHOT, PruningStep
from onnxprune.pruning.selectors import select
from onnxprune.reports.record import Detail
from onnxprune.runtime.cpu import cpu_name
from onnxprune.surgery import UnitGroups, remove_dead_units, zero_units

# Channels are coarse: a rate that is missed by less than this needs no note.
SHORTFALL = 0.02
# Rounded layers may lose so much more than is asked for: what they gain in speed is several times that.
EXCESS = 0.05
NAMES_SHOWN = 8
# A layer's deviation, measured alone, is weighed by its number of readers to these powers, and the outputs tell which
# is right: channels of a residual stream cost more than they seem to once other layers are pruned too. ResNet-20 at
# half of its multiply-adds, from 384 inputs, has 16.4 % error at a power of 0 and 14.4 % at 0.25 (2,000 test images).
POWERS = (0.0, 0.125, 0.3)
# Of the multiply-adds, in floating point.
ROUNDING = 1e-9


Choose = Callable[[PruningStep], Choice]


class ChannelPruning:
    """The pruner of `--pattern channel` for a model and its groups.

    `trained`: whether a training follows. Without one, and without measurements, residual streams with norms lose
    channels last: MiniLM-L3 loses less so at any share of the multiply-adds (surgery/README.md).

    Raises:
        SelectorError: a selector matches nothing.
        SettingError: a layer of --layer-rate has no channels that can be removed.
        NothingToPruneError: there is a rate, but no channel can be removed.
        SettingError: --round-to or --min-channels lets no layer lose a channel.
    """

    def __init__(
        self,
        model: ir.Model,
        weights: Sequence[Weight],
        config: PruneConfig,
        groups: UnitGroups,
        calibration: Calibration | None = None,
        work: Work | None = None,
        clock: Clock | None = None,
        *,
        trained: bool = True,
    ):
        self._model = model
        self._config = config
        self._calibration = calibration
        self._work = work
        self._clock = clock
        self._found: Found | None = None
        self._groups = groups
        self._excluded = {weight.name for weight in excluded_weights(weights, config)}
        self._own_rates = self._rates_of_layers(weights)
        inside = zip(groups.positions, groups.in_stream, strict=True)
        self._last_axes = {at for group, in_stream in inside if in_stream and not trained for at in group}
        self._last: Choice | None = None
        self._told: tuple[str, ...] = ()
        self._present = {weight.value: mask for weight in weights if not (mask := weight.present()).all()}
        self._elements = {weight.name: weight.size for weight in weights if weight.name not in self._excluded}
        usable = any(self._excluded.isdisjoint(name for name, _ in group) for group in self._groups.positions)
        if config.rate != 0 and not usable:
            raise NothingToPruneError(
                f"no channel can be removed{_reason(model, self._excluded)}: give --pattern unstructured, or fewer "
                "--exclude"
            )
        if config.rate != 0 and not self._own_rates:
            self._check_limits(weights)

    def _check_limits(self, weights: Sequence[Weight]) -> None:
        """Refuse --round-to and --min-channels that let no layer lose a channel."""
        config = self._config
        found = widest(
            self._groups.positions,
            self._excluded,
            round_to=config.round_to or 1,
            min_channels=config.min_channels,
            max_rate=config.max_channel_rate,
        )
        too_large = {"--round-to": config.round_to or 1, "--min-channels": config.min_channels}
        too_large = {flag: number for flag, number in too_large.items() if number > 1}
        if found.movable or not too_large:
            return
        made = {(weight.name, weight.out_axis) for weight in weights}
        name = next((name for name, axis in found.axes if (name, axis) in made), found.axes[0][0])
        flags = " and ".join(f"{flag} {number}" for flag, number in too_large.items())
        raise SettingError(
            f"with {flags} no layer can lose a channel: the widest one that has any to lose, of {name!r}, has "
            f"{found.channels:,}; give {' and '.join(too_large)} well below that, or leave it out"
        )

    def prune(self, step: PruningStep, gradients: Arrays) -> Arrays:
        """Zero whole channels: the masks of weights and biases."""
        config = self._config
        values, weights = constants_by_name(self._model), self._groups.weights
        criterion = find_criterion(config.criterion)
        assert criterion.channel_norm is not None
        scores = {
            name: array
            if criterion.needs == "gradients" and values[name] not in gradients
            else criterion.score(array, gradients.get(values[name], array))
            for name, array in weights.items()
        }
        norms = group_importance(self._groups.positions, scores, criterion.channel_norm)
        findings = self._study(norms, greedy=criterion.solve is not None)
        choose = partial(
            self._choose,
            weights=weights,
            allocation=config.allocation,
            round_to=config.round_to or 1,
            importance=norms if findings is None else findings.importance,
        )
        way: Choose = choose
        if findings is not None and config.allocation == "sensitivity":
            way = self._best([partial(choose, curves=findings.weighed(power)) for power in POWERS], step)
        self._last = None
        if self._clock is not None and (self._found is None or step.part == 1):
            found = self._in_time(way, self._clock)
            self._last = found.choice if step.part == 1 else None
        self._last = self._last or way(step)
        masks = zero_units(self._model, self._groups, self._last.chosen)
        by_value = {values[name]: mask for name, mask in masks.items()}
        # Zeros of the input model stay.
        by_value |= {value: mask & by_value.get(value, True) for value, mask in self._present.items()}
        fitted, together = 0, tuple[str, ...]()
        if self._calibration is not None and is_calibrated(config):
            fitted = compensate(self._calibration, by_value, self._excluded)
            together = tuple(self._calibration.fit_together(by_value))
        self._told = (*_told(config, findings, fitted), *together)
        return by_value

    def reaches(self, round_to: int) -> bool:
        """Whether layers that keep multiples of `round_to` come as near to what is asked for as any number does."""
        (over, under), (least_over, least_under) = self._missed(round_to), self._missed(1)
        # A budget holds; a rate may be missed on both sides.
        more = SHORTFALL if self._work is None else ROUNDING
        return over <= least_over + more and under <= least_under + EXCESS

    def _missed(self, round_to: int) -> tuple[float, float]:
        """The shares of the weights, or of the multiply-adds, that are left too much, and that go too much."""
        alike = np.ones(len(self._groups.positions))
        found = self._choose(
            ONE_SHOT, weights=self._groups.weights, allocation="uniform", round_to=round_to, importance=alike
        )
        if self._work is None:
            more = (self._config.rate or 0.0) - found.rate
        else:
            more = (found.kept + found.least - self._most) / self._work.total
        return max(more, 0.0), max(-more, 0.0)

    def _choose(
        self, step: PruningStep, *, weights: Mapping[str, np.ndarray], round_to: int, **how: Any
    ) -> Choice:
        config = self._config
        return choose_channels(
            self._groups.positions,
            weights,
            step.rate(config.rate or 0.0),
            round_to=round_to,
            min_channels=config.min_channels,
            max_rate=config.max_channel_rate,
            own_rates={at: step.rate(rate) for at, rate in self._own_rates.items()},
            exclude=self._excluded,
            budget=None if self._work is None else self._work.budget(step),
            last=self._last_axes,
            dead=self._groups.dead,
            **how,
        )

    @property
    def _most(self) -> float:
        """What all that channels can be removed from may cost."""
        assert self._work is not None
        return self._work.budget(ONE_SHOT).most

    def _in_time(self, choose: Choose, clock: Clock) -> Found:
        """Set the share of the layers' time so that the whole model takes the share that is asked for."""
        work, asked = self._work, self._config.latency
        assert work is not None and asked is not None

        def at(share: float) -> Choice:
            self._work = replace(work, share=share)
            return choose(ONE_SHOT)

        begin = asked if self._found is None else work.share
        self._found = within_time(at, clock.time, asked, begin)
        self._work = replace(work, share=self._found.share)
        return self._found

    def _best(self, ways: Sequence[Choose], step: PruningStep) -> Choose:
        """The way to choose that moves the outputs least at a step, of those that differ."""
        distinct = {choose(step).chosen.tobytes(): choose for choose in ways}
        chosen = [np.frombuffer(key, np.int64) for key in distinct]
        ways = list(distinct.values())
        if len(ways) == 1 or self._calibration is None or not is_calibrated(self._config):
            return ways[0]
        deviations = try_out(self._calibration, self._groups, chosen, self._excluded)
        return ways[int(np.argmin(deviations))]

    def _study(self, norms: np.ndarray, *, greedy: bool) -> Findings | None:
        """What calibration inputs tell of the channels, where something is chosen by them."""
        scan = self._config.allocation == "sensitivity"
        if self._calibration is None or not (greedy or scan):
            return None
        layers = layers_of(self._groups.positions, self._excluded)
        return study(self._calibration, self._groups, layers, norms, greedy=greedy, scan=scan)

    def notes(self) -> Iterator[str]:
        """What the last step could not remove, and why."""
        if self._last is None or self._config.rate == 0:
            return
        yield from self._told
        yield from self._on_stuck(self._last)
        yield from self._on_shortfall(self._last)

    def _on_stuck(self, choice: Choice) -> Iterator[str]:
        whole = max(sum(self._elements.values()), 1)
        shares = {name: count / whole for name, count in choice.stuck.items() if name in self._elements}
        if not shares:
            return
        named = sorted(shares, key=lambda name: -shares[name])
        texts = [
            name
            + ("" if choice.stuck[name] == self._elements[name] else " (in part)")
            + f" {shares[name]:.1%}"
            for name in named
        ]
        # A budget is a share of the whole model.
        counted = ", and do not count towards --rate" if self._work is None else ""
        yield (
            f"{sum(shares.values()):.1%} of the weights are in no channel that can be removed{counted}: "
            f"{some(texts, NAMES_SHOWN)} (--json tells why)."
        )

    def _on_shortfall(self, choice: Choice) -> Iterator[str]:
        config = self._config
        if config.rate is None:
            yield from self._on_budget(choice)
            return
        if choice.rate >= config.rate - SHORTFALL:
            return
        yield (
            f"Only {choice.rate:.1%} of the weights in removable channels are gone, {config.rate - choice.rate:.1%} of "
            f"them less than --rate {config.rate:g} asks for: give {self._fixes(choice)}, or a lower --rate."
        )

    def _on_budget(self, choice: Choice) -> Iterator[str]:
        if self._found is not None:
            yield from self._on_latency(choice, self._found)
            return
        work = self._work
        assert work is not None
        most, left = self._most, choice.kept + choice.least
        if left > most + ROUNDING * work.total:
            share = work.share + (left - most) / work.total
            yield (
                f"{share:.1%} of the multiply-adds are left, more than --flops {work.share:g} asks for: give "
                f"{self._fixes(choice)}, or a larger --flops."
            )

    def _on_latency(self, choice: Choice, found: Found) -> Iterator[str]:
        asked, timing = self._config.latency, found.timing
        share = timing.other / timing.dense
        assert asked is not None
        took = f"{timing.other * 1e3:.3g} instead of {timing.dense * 1e3:.3g} ms a run, in onnxruntime on {cpu_name()}"
        if share <= asked:
            yield f"The pruned model takes {share:.1%} of the latency of the input model: {took}."
            return
        floor = ""
        if found.least is not None:
            choice, timing = found.least
            floor = f"; {timing.other / timing.dense:.1%} without all channels that may go"
        yield (
            f"The pruned model takes {share:.1%} of the latency of the input model ({took}{floor}), more than "
            f"--latency {asked:g} asks for: give {self._fixes(choice)}, or a larger --latency."
        )

    def _fixes(self, choice: Choice) -> str:
        """What would let more channels go."""
        config = self._config
        fixes = []
        if choice.full:
            layers = "1 layer has" if choice.full == 1 else f"{choice.full:,} layers have"
            fixes.append(
                f"a higher --max-channel-rate ({layers} lost {config.max_channel_rate:.1%} of the channels, the most "
                "that it allows)"
            )
        elif not len(choice.chosen):
            fixes.append("a higher --max-channel-rate")
        if (config.round_to or 1) > 1:
            fixes.append("a smaller --round-to")
        if config.min_channels > 1:
            fixes.append("a smaller --min-channels")
        if config.exclude:
            fixes.append("fewer --exclude")
        # Zeros among others make no runtime of whole layers faster.
        if config.latency is None:
            fixes.append("--pattern unstructured")
        return " or ".join(fixes or ["a higher --max-channel-rate"])

    def _rates_of_layers(self, weights: Sequence[Weight]) -> dict[tuple[str, int], float]:
        """The rates of --layer-rate by name and output axis of a weight."""
        rates = {}
        for selector, rate in self._config.layer_rates:
            for weight in select(selector, weights):
                at = weight.name, weight.out_axis
                if not any(at in group for group in self._groups.positions):
                    raise SettingError(
                        f"--layer-rate {selector}={rate:g} is for {weight.name!r}, which has no output channels that "
                        "can be removed (--json of a job without it tells why): name other layers"
                    )
                rates[at] = rate
        return rates


def _told(config: PruneConfig, findings: Findings | None, fitted: int) -> Iterator[str]:
    """What calibration inputs were used for."""
    parts = []
    if findings is not None and find_criterion(config.criterion).solve is not None:
        parts.append("channels were ranked by second-order importance in the layers that read them")
    if findings is not None and config.allocation == "sensitivity":
        saved = (
            "weight" if config.rate is not None else "multiply-add" if config.latency is None else "second"
        )
        parts.append(
            f"the number of each layer was chosen by how much the outputs change for each {saved} saved"
        )
    if fitted:
        layers = "1 layer was" if fitted == 1 else f"{fitted:,} layers were"
        parts.append(f"{layers} fitted by least squares to their outputs in the input model")
    if parts:
        yield Detail(f"By the calibration inputs, {', '.join(parts)}.")
    if findings is not None and findings.by_norm:
        layers = "1 layer" if findings.by_norm == 1 else f"{findings.by_norm:,} layers"
        yield Detail(
            f"The channels of {layers} were ranked by their norms: what reads them cannot be fitted."
        )


def _reason(model: ir.Model, excluded: Collection[str]) -> str:
    """Why the channels of the first layer that has to keep them stay."""
    layers = remove_dead_units(model.clone()).layers
    first = next((layer for layer in layers if layer.frozen and layer.name not in excluded), None)
    return "" if first is None else f" (those of {first.name!r}: {first.frozen})"
