"""The folder of a sweep: an index of its finished runs, their models, and the states of those that are not finished."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnxprune.errors import SettingError
from onnxprune.job.folders import (
    SWEEP_INDEX,
    make_folder,
    read_index,
    remove_files,
    remove_unused,
    write_files,
    write_index,
)
from onnxprune.job.scored import Scored
from onnxprune.job.sweep.results import Sweep
from onnxprune.job.sweep.runs import Finished, Run, state_name

INDEX = SWEEP_INDEX
ADVICE = "give another --folder"


class SweepFolder:
    """A folder of runs; `origin` has the SHA-256 of the model, and the settings that are no axes.

    A sweep can go on with other values of its axes, other axes and other seeds: runs are known by their settings.
    """

    def __init__(self, path: Path, origin: dict[str, Any], axes: Collection[str], runs: dict[str, Run]):
        self.path = path
        self.runs = runs
        self._origin = origin
        self._axes = sorted(axes)

    @classmethod
    def begin(cls, path: Path, origin: dict[str, Any], axes: Collection[str], resume: bool) -> SweepFolder:
        """A new folder, one without models, or with `resume` that of an earlier sweep; its failed runs are repeated.

        Raises:
            SettingError: it holds a sweep already, or one of another model or with other settings.
            OutputError: it cannot be written.
        """
        earlier = _read(path) if (path / INDEX).exists() else {"runs": []}
        known = [_run(each) for each in earlier["runs"] if each["error"] is None]
        if not known:
            make_folder(path, "--folder")
            folder = cls(path, origin, axes, {})
            try:
                folder._write(None)
            except BaseException:
                folder.discard()
                raise
            return folder
        if not resume:
            raise SettingError(
                f"{path} holds a sweep already: go on with it with --resume, or give another --folder"
            )
        # The value of a setting that was an axis before, or is one now, tells runs apart, not sweeps.
        free = {*axes, *earlier["axes_of_runs"]}
        before = earlier["origin"]
        changed = [key for key in origin if key not in free and before.get(key) != origin[key]]
        if changed:
            raise SettingError(
                f"{path} belongs to a sweep with other {', '.join(changed)}: use the same ones, or give another "
                "--folder"
            )
        return cls(path, origin, free, {run.name: run for run in known if (path / run.model).exists()})

    def add(self, finished: Finished) -> None:
        """Record a run whose files are written, or are written now.

        Raises:
            OutputError: a file cannot be written.
        """
        write_files(self.path, finished.files)
        self.runs[finished.run.name] = finished.run
        self._write(None)
        remove_files(self.path, [state_name(finished.run.name)])

    def discard(self) -> None:
        """Remove the folder of a sweep that has neither a run nor the state of one."""
        if not self.runs:
            remove_unused(self.path, INDEX)

    def finish(self, sweep: Sweep) -> None:
        """Record the results.

        Raises:
            OutputError: the index cannot be written.
        """
        self._write(sweep.to_dict())

    def _write(self, results: Mapping[str, Any] | None) -> None:
        runs = {name: asdict(self.runs[name]) for name in sorted(self.runs)}
        content = {
            "origin": self._origin,
            "axes_of_runs": self._axes,
            **(results or {}),
            "finished": results is not None,
            # All of the folder: those of other values that an earlier sweep has tried too.
            "runs": list(runs.values()),
        }
        write_index(self.path / INDEX, content)


def read_results(path: Path) -> dict[str, Any] | None:
    """The results of a finished sweep, as `Sweep.to_dict()`; None if there are none yet.

    Raises:
        SettingError: the folder holds no sweep.
    """
    content = _read(path)
    return content if content["finished"] else None


def _read(path: Path) -> dict[str, Any]:
    content = read_index(path, INDEX, "sweep", ADVICE)
    if not {"origin", "axes_of_runs", "runs", "finished"} <= content.keys():
        raise SettingError(
            f"{path} is not the folder of a sweep: its {INDEX} is damaged, or of another version; {ADVICE}"
        )
    return content


def _run(record: Mapping[str, Any]) -> Run:
    return Run(record["name"], record["seconds"], Scored(**record["scored"]))
