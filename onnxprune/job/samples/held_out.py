"""Which calibration samples a job is fitted to and, where there is no test data, which it is evaluated on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune.data.dataset import Dataset

# Samples that a job is evaluated on, at most.
MOST = 1_000
# Where there are no others, this share of the samples is not fitted to, and no fewer than `HANDFUL` of them. Where
# that would be more than `LARGEST_SHARE`, all are fitted to.
SHARE, HANDFUL, LARGEST_SHARE = 1 / 8, 5, 0.2
# Not --seed: jobs with different ones are evaluated on the same samples.
SEED = 0


def fitted_samples(given: Dataset, most: int) -> Dataset:
    """The calibration samples that a job is fitted to: at most `most`, as `Dataset.spread` chooses them.

    `most`: --calibration-samples. At least a run of a model that fixes how many samples it takes.
    """
    return given.spread(max(most, given.axes.size or 1))


def some_samples(given: Dataset) -> Dataset:
    """At most `MOST` samples, drawn at random, of a sequential source the first ones; in whole groups."""
    if len(given) <= MOST or given.source.sequential:
        return given.spread(MOST)
    return given.split(MOST / len(given), SEED)[1]


def held_out(given: Dataset, most: int) -> tuple[Dataset, Dataset]:
    """Calibration samples to fit to, at most `most`, and others to evaluate on, of which nothing else may be read.

    Those beyond `fitted_samples` are evaluated on, where there are enough; otherwise a part is set apart. Of very few
    samples, all are fitted to and evaluated on. Notes of the latter say what was done.
    """
    count = len(given)
    fitted = fitted_samples(given, most)
    run = given.axes.size or 1
    fewest = max(HANDFUL, round(SHARE * min(count, most)))
    fewest = -(-fewest // run) * run
    others = given.take(np.flatnonzero(~np.isin(given.numbers(), fitted.numbers())))
    if len(others) >= fewest:
        return fitted, _evaluated(some_samples(others), given, _trained_on(given))
    if fewest > LARGEST_SHARE * count or count < 2 * given.group:
        note = (
            f"{given.name} has only {count} sample{'s' * (count != 1)}, so the evaluation is on those that the model "
            "was fitted to, and on others it may be worse: give --eval-data, or more samples."
        )
        return fitted, replace(given, notes=(*given.notes, note))
    rest, apart = given.split(fewest / count, SEED)
    note = (
        f"Nothing was fitted to {len(apart)} of the {count} samples of {given.name}, which the evaluation is on: with "
        "--eval-data DATA, all are fitted to."
    )
    return fitted_samples(rest, most), _evaluated(apart, given, (note, *_trained_on(given)))


def _evaluated(part: Dataset, given: Dataset, notes: tuple[str, ...]) -> Dataset:
    name = f"a part of {given.name} that nothing was fitted to"
    return replace(part, name=name, notes=(*given.notes, *notes))


def _trained_on(given: Dataset) -> tuple[str, ...]:
    """What the score of the input model may not say."""
    if not given.labeled:
        return ()
    return (
        f"If the input model was trained on {given.name}, its score there is too good: give --eval-data with samples "
        "that it was not trained on.",
    )
