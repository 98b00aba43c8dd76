"""Errors that a user can fix; their messages say what is wrong, where, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence


class OnnxPruneError(Exception):
    """Something the user can fix; the command line prints it as one line and exits with `exit_status`."""

    exit_status = 2


class ModelFileError(OnnxPruneError):
    """The model file is missing, broken, or not one that onnxruntime runs."""


class MissingOperatorError(ModelFileError):
    """onnxruntime does not have an operator of the model, or not for its types."""


class NothingToPruneError(OnnxPruneError):
    """The model has no weight that can be pruned, or every weight is excluded."""


class SettingError(OnnxPruneError):
    """A setting is out of its range, or two settings contradict each other."""


class SelectorError(SettingError):
    """A selector matches no weight, or is not well-formed."""


class DataError(OnnxPruneError):
    """Data whose names, dtypes or shapes do not fit the model, or that cannot be read."""


class NotFiniteError(OnnxPruneError):
    """A training, a calibration or the pruned model gives NaN or infinity where the input model does not."""


class OutputError(OnnxPruneError):
    """The output file cannot be written."""


class MissingPackageError(OnnxPruneError):
    """A package that only some jobs need is not installed."""


class WorkerError(OnnxPruneError):
    """A worker of --workers was lost repeatedly at the same part of a job."""


class ValidationError(OnnxPruneError):
    """The pruned model is worse than --max-drop allows; the target is left unchanged."""

    exit_status = 1


def first_line(error: Exception) -> str:
    """The first line of another library's error, for a message of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def some(texts: Sequence[str], most: int = 4, where: str = "") -> str:
    """The first texts of a list, for a sentence, and how many more there are; `where`: where those are to be seen."""
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more:,} more{where}" if more > 0 else "")
