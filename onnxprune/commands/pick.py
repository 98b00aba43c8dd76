"""Another point of a search that is over: the model of one of its trials, as it was judged."""

from __future__ import annotations

import os
from pathlib import Path

from onnxprune.errors import SettingError
from onnxprune.job.frontier import Frontier, Trial, best_beyond, best_within
from onnxprune.model.io import staging


def pick(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    *,
    rate: float | None = None,
    max_drop: float | None = None,
) -> Trial:
    """Copy a trial's model to `output`: the best that removes `rate` or more, or the highest rate within `max_drop`.

    Raises:
        SettingError: not one of the two is given, no trial is so, or the folder is none of a search.
        OutputError: the output cannot be written.
    """
    if (rate is None) == (max_drop is None):
        raise SettingError(
            "say which trial: --rate R for the best that removes R or more, or --max-drop DROP"
        )
    frontier = Frontier.read(Path(folder))
    if rate is not None:
        trial, wanted = best_beyond(frontier.trials, rate), f"removes {rate:.2%} or more"
    else:
        assert max_drop is not None
        trial, wanted = best_within(frontier.trials, max_drop), f"is worse by no more than {max_drop:.2%}"
    if trial is None:
        raise SettingError(
            f"no trial in {folder} {wanted}: `onnxprune pick {folder}` shows those that there are"
        )
    assert trial.model is not None, "no other trial beats the one chosen"
    with staging(Path(output)) as stage:
        stage.copy(frontier.folder / trial.model)
        stage.commit()
    return trial
