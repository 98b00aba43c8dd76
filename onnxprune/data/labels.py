"""Labels that are written as text: numbers, or names of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# What arrays and columns of labels are called, in the order in which they are looked for, in any case.
LABEL_NAMES = ("labels", "label", "y", "target", "targets", "class")


def is_label(name: str) -> bool:
    """Whether an array of this name, which no input has, is of labels."""
    return name.strip().lower() in LABEL_NAMES or name.startswith(f"{LABEL_NAMES[0]}.")


def read_labels(texts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Labels as whole numbers (int64), numbers (float32), or places of sorted names (int64) and those names."""
    if all(text.removeprefix("-").isdecimal() for text in texts):
        return np.array(texts, np.int64), []
    try:
        numbers = np.array(texts, np.float32)
        if np.isfinite(numbers).all():
            return numbers, []
    except ValueError:
        pass
    names = sorted(set(texts))
    places = {name: place for place, name in enumerate(names)}
    return np.array([places[text] for text in texts], np.int64), names


def class_note(names: Sequence[str], name: str) -> str:
    """How classes were numbered, for the summary of a job."""
    return (
        f"The {len(names)} classes of {name} are numbered by their sorted names: {names[0]} is 0, {names[-1]} is "
        f"{len(names) - 1}."
    )


def class_count(labels: np.ndarray | None, names: Sequence[str] = ()) -> int | None:
    """How many outputs class numbers need; None where labels are no classes."""
    if labels is None or labels.dtype.kind not in "iu" or not labels.size:
        return None
    return max(int(labels.max()) + 1, len(names))
