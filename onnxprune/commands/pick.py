"""`onnxprune.pick`: write the model of another trial of a search."""

from __future__ import annotations

import os
from pathlib import Path

from onnxprune.errors import SettingError
from onnxprune.evaluation.metrics import drop_text
from onnxprune.job.search.frontier import Frontier, Trial, best_at_least, best_within
from onnxprune.model.files.staging import staging


def pick(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    *,
    rate: float | None = None,
    max_drop: float | None = None,
) -> Trial:
    """Copy a trial's model to `output`: the best trial at `rate` or above, or the highest rate within `max_drop`.

    `max_drop`: in the unit of the metric.

    Raises:
        SettingError: not exactly one of the two is given, no trial fits, or the folder holds no search.
        OutputError: the output cannot be written.
    """
    if (rate is None) == (max_drop is None):
        raise SettingError(
            "give either --rate R, for the best trial at this rate or above, or --max-drop DROP, for the highest rate"
        )
    frontier = Frontier.read(Path(folder))
    if not frontier.trials:
        raise SettingError(f"the search in {folder} has finished no trial yet: go on with it with --resume")
    trials = [each for each in frontier.trials if each.model is not None]
    if rate is not None:
        trial, wanted = best_at_least(trials, rate), f"has a rate of {rate:.2%} or more"
    else:
        assert max_drop is not None
        trial = best_within(trials, max_drop)
        wanted = f"has a drop of {drop_text(frontier.trials[0].metric, max_drop)} or less"
    if trial is None:
        raise SettingError(f"no trial in {folder} {wanted}: `onnxprune pick {folder}` lists the trials")
    assert trial.model is not None, "only trials with a model were looked at"
    with staging(Path(output)) as stage:
        stage.copy(frontier.folder / trial.model)
        stage.commit()
    return trial
