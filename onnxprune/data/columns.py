"""Columns of tables: which make which input or label, and their values as arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.data.dataset import LABELS
from onnxprune.data.labels import LABEL_NAMES, class_note, read_labels
from onnxprune.data.ragged import as_rows, is_ragged
from onnxprune.data.source import Arrays
from onnxprune.data.specs import InputSpec, dims_text, type_name
from onnxprune.errors import DataError, some

# So many columns are named in a message.
NAMED = 10


@dataclass(frozen=True)
class InputColumns:
    """The columns of an input: one, whose rows may be lists, or one for each of its values."""

    spec: InputSpec
    columns: tuple[str, ...]

    def read(self, batch: Any, path: str, first: int) -> np.ndarray:
        """The input's values of a batch of pyarrow whose first row is number `first`, samples along the first axis.

        Raises:
            DataError: values are missing, or not of the input's type or shape.
        """
        arrays = [array_of(batch.column(name), name, self.spec, path, first) for name in self.columns]
        values = np.stack(arrays, 1) if len(self.columns) > 1 else arrays[0]
        if is_ragged(values):
            return values
        wanted = self.spec.shape[1:]
        fixed = [dim for dim in wanted if isinstance(dim, int)]
        if len(fixed) < len(wanted):
            return values[:, None] if values.ndim == 1 and len(wanted) == 1 else values
        if math.prod(values.shape[1:]) != math.prod(fixed):
            raise DataError(
                f"the column {self.columns[0]!r} of {path} has {math.prod(values.shape[1:])} values in a row, the "
                f"input {self.spec.name!r} takes {math.prod(fixed)} ({dims_text(self.spec)}): give them as a list"
            )
        return values.reshape(len(values), *fixed)


@dataclass(frozen=True)
class Columns:
    """The columns of all inputs, and those of the labels by the name of their array; `notes` about both."""

    inputs: tuple[InputColumns, ...]
    labels: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def used(self) -> list[str]:
        """All columns that are read, each once."""
        return list(
            dict.fromkeys([name for array in self.inputs for name in array.columns] + [*self.labels.values()])
        )


@dataclass(frozen=True)
class LabelCode:
    """The numbers of labels that are texts: the sorted texts and their numbers, by the name of the array.

    `names`: of the classes of "labels", where the texts are names.
    """

    numbers: Mapping[str, tuple[list[str], np.ndarray]]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def labels(self, key: str, texts: Any) -> np.ndarray:
        """The numbers of an array of pyarrow with texts."""
        import pyarrow
        from pyarrow import compute

        known, numbers = self.numbers[key]
        places = compute.index_in(
            texts.cast(pyarrow.string()), value_set=pyarrow.array(known, pyarrow.string())
        )
        return numbers[places.to_numpy(zero_copy_only=False)]


def choose_columns(schema: Any, specs: Sequence[InputSpec], path: str) -> Columns:
    """The columns of a schema of pyarrow for the inputs and the labels.

    An input takes the column of its name; the only input of a model, [N, W], all W columns of numbers but the labels.

    Raises:
        DataError: columns are missing, or several may be the labels.
    """
    names: list[str] = schema.names
    own = {spec.name for spec in specs}
    labels = [name for name in names if name.strip().lower() in LABEL_NAMES and name not in own]
    if len(labels) > 1:
        raise DataError(f"{path} has several columns that may be labels ({', '.join(labels)}): leave one")
    chosen = dict(zip((LABELS,), labels, strict=False))
    chosen |= {name: name for name in names if name.startswith(f"{LABELS}.") and name not in own}
    missing = [spec for spec in specs if spec.name not in names]
    if not missing:
        inputs = tuple(InputColumns(spec, (spec.name,)) for spec in specs)
    elif len(specs) == 1 and len(specs[0].shape) in (1, 2):
        inputs = (InputColumns(specs[0], _numeric(schema, specs[0], set(chosen.values()), path)),)
    else:
        wanted = ", ".join(spec.name for spec in missing)
        raise DataError(
            f"{path} has no column {wanted} but {some(names, NAMED) or 'none'}: name columns like the inputs"
        )
    columns = Columns(inputs, chosen)
    unused = [name for name in names if name not in columns.used()]
    notes = [f"The labels of {path} are in the column {name!r}." for name in labels if name != LABELS]
    if unused:
        notes.append(f"{len(unused)} columns of {path} are not used: {some(unused, NAMED)}.")
    return Columns(inputs, chosen, tuple(notes))


def _numeric(schema: Any, spec: InputSpec, labels: set[str], path: str) -> tuple[str, ...]:
    from pyarrow import types

    names = tuple(
        field.name
        for field in schema
        if field.name not in labels
        and any(
            # An empty column may be one of numbers; that values are missing is found when they are read.
            is_kind(field.type)
            for is_kind in (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
        )
    )
    width = spec.shape[1] if len(spec.shape) == 2 else 1
    if not names or (isinstance(width, int) and len(names) != width):
        raise DataError(
            f"{path} has {len(names)} columns of numbers beside labels ({some(names, NAMED) or 'none'}), the "
            f"input {spec.name!r} "
            f"takes {width if isinstance(width, int) else 'at least 1'}: call that of the labels 'label' and remove "
            f"others, or give a column {spec.name!r} of lists"
        )
    return names


def is_text(kind: Any) -> bool:
    """Whether a type of pyarrow is that of texts, also of a dictionary of them."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def code_labels(texts: Mapping[str, Any], columns: Columns, path: str) -> LabelCode:
    """The numbers of labels that are texts, from all texts that there are, by the name of their array."""
    numbers = {}
    names: tuple[str, ...] = ()
    notes = []
    for key, chunks in texts.items():
        known = sorted(set(chunks.unique().to_pylist()))
        values, named = read_labels(known)
        numbers[key] = (known, values)
        if named:
            notes.append(class_note(named, f"the column {columns.labels[key]!r} of {path}"))
        if key == LABELS:
            names = tuple(named)
    return LabelCode(numbers, names, tuple(notes))


def read_batch_labels(batch: Any, columns: Columns, code: LabelCode, path: str, first: int) -> Arrays:
    """The labels of a batch whose first row is number `first`.

    Raises:
        DataError: values are missing, or no labels.
    """
    arrays = {}
    for key, name in columns.labels.items():
        chunk = batch.column(name)
        if key in code.numbers:
            arrays[key] = code.labels(key, without_nulls(chunk, name, path, first))
        else:
            values = array_of(chunk, name, None, path, first)
            arrays[key] = values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
    return arrays


def array_of(chunk: Any, name: str, spec: InputSpec | None, path: str, first: int) -> np.ndarray:
    """A column as an array, of the input's type if it is for one; lists of one length make further axes.

    Raises:
        DataError: values are missing or not finite, lists differ in length, or types do not fit.
    """
    from pyarrow import compute, types

    dims: list[int] = []
    chunk = without_nulls(chunk, name, path, first)
    if spec is not None and len(spec.shape) > 1 and not isinstance(spec.shape[1], int) and _differ(chunk):
        return _lists(chunk, name, spec, path, first)
    while (
        types.is_list(chunk.type) or types.is_large_list(chunk.type) or types.is_fixed_size_list(chunk.type)
    ):
        lengths = compute.unique(compute.list_value_length(chunk)).to_pylist()
        if len(lengths) > 1:
            raise DataError(
                f"the column {name!r} of {path} has lists of the lengths {lengths[0]} and {lengths[1]}: make them equal"
            )
        dims += lengths
        chunk = without_nulls(chunk.flatten(), name, path, first, math.prod(dims))
    values: np.ndarray = chunk.to_numpy(zero_copy_only=False)
    kinds = "OUT" if spec is not None and spec.dtype.kind == "O" else "iubf"
    if values.dtype.kind not in kinds:
        raise DataError(
            f"the column {name!r} of {path} has the type {chunk.type}, "
            + (
                f"the input {spec.name!r} takes {type_name(spec.dtype)}"
                if spec
                else "labels take numbers or texts"
            )
            + ": convert it"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        _refuse(
            int(np.flatnonzero(~np.isfinite(values))[0]),
            "no finite number",
            name,
            path,
            first,
            math.prod(dims),
        )
    if spec is not None and spec.dtype.kind in "iu" and values.dtype.kind == "f" and (values % 1 != 0).any():
        _refuse(int(np.flatnonzero(values % 1)[0]), "no whole number", name, path, first, math.prod(dims))
    values = values.reshape(-1, *dims)
    return values if spec is None else values.astype(spec.dtype, copy=False)


def _differ(chunk: Any) -> bool:
    """Whether a column has lists of several lengths."""
    from pyarrow import compute, types

    listed = types.is_list(chunk.type) or types.is_large_list(chunk.type)
    return listed and len(compute.unique(compute.list_value_length(chunk))) > 1


def _lists(chunk: Any, name: str, spec: InputSpec, path: str, first: int) -> np.ndarray:
    """A column of lists of several lengths, as ragged rows."""
    from pyarrow import compute

    ends = np.cumsum(compute.list_value_length(chunk).to_numpy(zero_copy_only=False))
    inner = InputSpec(spec.name, spec.dtype, spec.shape[1:])
    try:
        return as_rows(np.split(array_of(chunk.flatten(), name, inner, path, first), ends[:-1]))
    except DataError:
        # Row by row, to tell the number of the row.
        for place in range(len(chunk)):
            array_of(chunk.slice(place, 1), name, spec, path, first + place)
        raise


def without_nulls(chunk: Any, name: str, path: str, first: int | None, width: int = 1) -> Any:
    """A column, of `width` values in a row, not as a dictionary.

    Raises:
        DataError: values are missing.
    """
    from pyarrow import types

    chunk = chunk.dictionary_decode() if types.is_dictionary(chunk.type) else chunk
    if chunk.null_count:
        empty = chunk.is_null().to_numpy(zero_copy_only=False)
        _refuse(int(np.flatnonzero(empty)[0]), "no value", name, path, first or 0, width)
    return chunk


def _refuse(place: int, what: str, name: str, path: str, first: int, width: int) -> None:
    row = first + place // max(width, 1) + 1
    raise DataError(
        f"the column {name!r} of {path} has {what} in row {row} (the first is 1): fill it in or remove the row"
    )
