"""Tables, as CSV or Parquet: columns become inputs and labels.

A table that fits in memory is kept there as arrays. A larger Parquet file is read by row groups; a larger CSV file is
refused, because it can be read from its start only.
"""

from __future__ import annotations

import math
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from onnxprune.data.columns import (
    Columns,
    LabelCode,
    choose_columns,
    code_labels,
    is_text,
    read_batch_labels,
    without_nulls,
)
from onnxprune.data.labels import class_count
from onnxprune.data.ragged import bytes_of, joined_rows
from onnxprune.data.request import Request
from onnxprune.data.source import Arrays, ArraySource, Source
from onnxprune.errors import DataError, first_line
from onnxprune.system.packages import require_package

SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")
# What a table, or a row group of a larger one, may take in memory, in bytes.
MEMORY = 1 << 30
# Row groups that were read last, in bytes.
CACHE = 256 << 20
# Rows of a Parquet file that are converted at once.
ROWS = 1 << 16


class TableSource(ArraySource):
    """A table in memory. `classes`: how many outputs its class numbers need; `notes`: for the summary of a job."""

    def __init__(self, arrays: Arrays, name: str, columns: Columns, code: LabelCode):
        super().__init__(arrays, name)
        self.class_names = code.names
        self.classes = class_count(arrays.get("labels"), code.names)
        self.notes = (*columns.notes, *code.notes)


class ParquetSource(Source):
    """A Parquet file that is larger than memory, read by row groups, of which the last ones are kept.

    `lengths`: of the row groups. `classes`: how many outputs its classes need, where they have names.
    """

    def __init__(self, path: str, columns: Columns, code: LabelCode, lengths: Sequence[int]):
        self.path = path
        self.columns = columns
        self.code = code
        self.starts = np.cumsum([0, *lengths])
        self.class_names = code.names
        self.classes = len(code.names) or None
        size = f"{path} is read as needed, by its {len(lengths)} row groups."
        self.notes = (*columns.notes, *code.notes, size)
        self._groups: OrderedDict[int, Arrays] = OrderedDict()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_groups": OrderedDict()}

    def read(self, index: np.ndarray) -> Arrays:
        groups = np.searchsorted(self.starts, index, side="right") - 1
        order, parts = [], []
        for group in np.unique(groups):
            places = np.flatnonzero(groups == group)
            order.append(places)
            rows = index[places] - self.starts[group]
            parts.append({key: array[rows] for key, array in self._group(int(group)).items()})
        back = np.argsort(np.concatenate(order), kind="stable")
        return {key: array[back] for key, array in _join(parts, self.path).items()}

    def _group(self, group: int) -> Arrays:
        import pyarrow.parquet

        if group in self._groups:
            self._groups.move_to_end(group)
            return self._groups[group]
        # Opened each time and read by this thread, so that processes share neither a file nor a pool of threads.
        with _arrow_errors(self.path), pyarrow.parquet.ParquetFile(self.path) as file:
            batches = file.iter_batches(ROWS, [group], self.columns.used(), use_threads=False)
            arrays = _convert(batches, self.columns, self.code, self.path, int(self.starts[group]))
        self._groups[group] = arrays
        while len(self._groups) > 1 and sum(map(_bytes, self._groups.values())) > CACHE:
            self._groups.popitem(last=False)
        return arrays


def is_table(text: str) -> bool:
    """Whether a text names a CSV or Parquet file."""
    return _suffix(text) in (*SEPARATORS, *PARQUET)


def read_table(text: str, request: Request) -> TableSource | ParquetSource:
    """The columns of a CSV or Parquet file that make the inputs, and its labels.

    Raises:
        DataError: columns are missing, values are missing or not of the input's type, or a CSV file is too large.
        MissingPackageError: pyarrow is not installed.
    """
    require_package("pyarrow", f"reading {text}")
    if not os.path.isfile(text):
        raise DataError(f"there is no data file {text}: check its path")
    with _arrow_errors(text):
        return _read_parquet(text, request) if _suffix(text) in PARQUET else _read_csv(text, request)


def _read_csv(path: str, request: Request) -> TableSource:
    import pyarrow
    from pyarrow import csv

    parse = csv.ParseOptions(delimiter=_separator(path), newlines_in_values=True)
    with csv.open_csv(path, parse_options=parse) as reader:
        schema = reader.schema
    if all(map(_is_number, schema.names)):
        raise DataError(f"{path} has no names of columns in its first line: add them")
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise DataError(f"{path} has several columns {twice!r}: rename them")
    columns = choose_columns(schema, request.row_specs, path)
    # As texts, since a label of a later block may be a name after numbers.
    types = {name: pyarrow.string() for name in columns.labels.values()}
    for array in columns.inputs:
        kind = {"f": pyarrow.float64(), "O": pyarrow.string()}.get(array.spec.dtype.kind, pyarrow.int64())
        types |= dict.fromkeys(array.columns, kind)
    convert = csv.ConvertOptions(include_columns=columns.used(), column_types=types, strings_can_be_null=True)
    with _arrow_errors(path, schema.names), csv.open_csv(path, None, parse, convert) as reader:
        return _collect(reader, columns, path)


def _collect(batches: Iterable[Any], columns: Columns, path: str) -> TableSource:
    """The batches of a CSV file, whose labels are texts.

    Raises:
        DataError: they take too much memory.
    """
    import pyarrow

    parts: list[Arrays] = []
    texts: dict[str, list[Any]] = {key: [] for key in columns.labels}
    first = size = 0
    for batch in batches:
        parts.append({array.spec.name: array.read(batch, path, first) for array in columns.inputs})
        for key, name in columns.labels.items():
            texts[key].append(without_nulls(batch.column(name), name, path, first))
            size += texts[key][-1].nbytes
        first += batch.num_rows
        size += _bytes(parts[-1])
        if size > MEMORY:
            raise DataError(
                f"{path} takes more than {MEMORY >> 20} MB in memory: write it as Parquet, which can be read in parts"
            )
    if not first:
        raise DataError(f"{path} has no rows: give at least 2 samples")
    whole = {key: pyarrow.chunked_array(chunks, pyarrow.string()) for key, chunks in texts.items()}
    code = code_labels(whole, columns, path)
    labels = {key: code.labels(key, chunks) for key, chunks in whole.items()}
    return TableSource(_join(parts, path) | labels, path, columns, code)


def _read_parquet(path: str, request: Request) -> TableSource | ParquetSource:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        columns = choose_columns(schema, request.row_specs, path)
        texts = {
            key: _texts(file, name, path)
            for key, name in columns.labels.items()
            if is_text(schema.field(name).type)
        }
        code = code_labels(texts, columns, path)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        sizes = [_group_bytes(group, columns) for group in groups]
        lengths = [group.num_rows for group in groups]
        if not sum(lengths):
            raise DataError(f"{path} has no rows: give at least 2 samples")
        if sum(sizes) <= MEMORY:
            batches = file.iter_batches(ROWS, columns=columns.used())
            return TableSource(_convert(batches, columns, code, path, 0), path, columns, code)
        if max(sizes) > MEMORY:
            raise DataError(
                f"{path} has a row group of {lengths[int(np.argmax(sizes))]} rows, more than {MEMORY >> 20} MB in "
                "memory: write it with smaller ones, such as row_group_size=10000"
            )
        return ParquetSource(path, columns, code, lengths)


def _texts(file: Any, name: str, path: str) -> Any:
    """The different texts of a column, some of them several times."""
    import pyarrow

    found, first = [], 0
    for batch in file.iter_batches(ROWS, columns=[name]):
        found.append(without_nulls(batch.column(0), name, path, first).unique().cast(pyarrow.string()))
        first += batch.num_rows
    return pyarrow.chunked_array(found, pyarrow.string())


def _group_bytes(group: Any, columns: Columns) -> int:
    """What a row group takes in memory, as float32; a file may store repeated values once."""
    used = set(columns.used())
    fields = [group.column(number) for number in range(group.num_columns)]
    return sum(4 * field.num_values for field in fields if field.path_in_schema.split(".")[0] in used)


def _convert(batches: Iterable[Any], columns: Columns, code: LabelCode, path: str, first: int) -> Arrays:
    """Inputs and labels of batches of a Parquet file, whose first row is number `first`."""
    parts = []
    for batch in batches:
        inputs = {array.spec.name: array.read(batch, path, first) for array in columns.inputs}
        parts.append(inputs | read_batch_labels(batch, columns, code, path, first))
        first += batch.num_rows
    return _join(parts, path)


def _join(parts: Sequence[Arrays], path: str) -> Arrays:
    try:
        return {key: joined_rows([part[key] for part in parts]) for key in parts[0]}
    except ValueError as error:
        raise DataError(f"rows of {path} differ in length ({first_line(error)}): make them equal") from None


def _bytes(arrays: Arrays) -> int:
    return sum(map(bytes_of, arrays.values()))


def _suffix(text: str) -> str:
    name = text.lower()
    return os.path.splitext(name.removesuffix(".gz") if name.endswith(".csv.gz") else name)[1]


def _separator(path: str) -> str:
    """That of the suffix; a CSV file may have semicolons, where commas are in numbers."""
    if path.lower().endswith(".csv"):
        with open(path, "rb") as stream:
            line = stream.readline()
        return ";" if b";" in line and b"," not in line else ","
    return SEPARATORS[_suffix(path)]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@contextmanager
def _arrow_errors(path: str, names: Sequence[str] = ()) -> Iterator[None]:
    """Errors of pyarrow as DataError; `names`: of the columns that it numbers."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = re.sub(
            r"CSV column #(\d+)",
            lambda match: f"column {names[int(match[1])]!r}" if int(match[1]) < len(names) else match[0],
            first_line(error),
        )
        raise DataError(f"{path} cannot be read: {reason}; correct it or write it again") from None
