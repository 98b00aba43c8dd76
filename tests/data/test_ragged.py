"""Samples of several sizes: kept apart at rest, and given to a model in batches of one size."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from onnxprune.data import readers, tables
from onnxprune.data.axes import BatchAxes
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.ragged import (
    alike,
    as_rows,
    by_shape,
    is_ragged,
    joined_rows,
    put_rows,
    ragged,
    repeated,
    taken,
)
from onnxprune.data.request import Request
from onnxprune.data.sources import load_data
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError
from onnxprune.evaluation.labels import LabelForm, Normalized, with_given_labels

LENGTHS = [3, 3, 2, 5, 2, 2, 3]
ROWS = [np.arange(length) + 10 * place for place, length in enumerate(LENGTHS)]
LABELS = np.arange(7) % 3
IDS = Request([InputSpec("ids", np.dtype(np.int64), ("N", "T"))])


class Items(torch.utils.data.Dataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return ROWS[index], int(LABELS[index])


class Table:
    """The part of a Hugging Face Dataset that is used."""

    column_names, features = ["ids", "label"], {}

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return {
            "ids": [ROWS[each].tolist() for each in index],
            "label": [int(LABELS[each]) for each in index],
        }


def folder_of_files(folder):
    for place, (row, label) in enumerate(zip(ROWS, LABELS, strict=True)):
        np.savez(folder / f"{place}.npz", ids=row[None], labels=label[None])
    return folder


def table(folder):
    columns = {"ids": [row.tolist() for row in ROWS], "label": LABELS}
    pq.write_table(pa.table(columns), folder / "t.parquet", row_group_size=3)
    return folder / "t.parquet"


GIVEN = {
    "lists in a mapping": lambda folder: {"ids": [row.tolist() for row in ROWS], "labels": LABELS},
    "an array of objects": lambda folder: {"ids": ragged(ROWS), "labels": LABELS},
    "batches of several shapes": lambda folder: [
        {"ids": np.stack(ROWS[:2]), "labels": LABELS[:2]},
        *({"ids": row[None], "labels": label[None]} for row, label in zip(ROWS[2:], LABELS[2:], strict=True)),
    ],
    "a torch dataset": lambda folder: Items(),
    "a Hugging Face table": lambda folder: Table(),
    "a folder of .npz files": folder_of_files,
    "a Parquet table": table,
}


@pytest.mark.parametrize("small", [True, False], ids=["in memory", "read as needed"])
@pytest.mark.parametrize("give", GIVEN.values(), ids=GIVEN.keys())
def test_samples_of_several_sizes_come_in_order_in_batches_of_one_size(tmp_path, monkeypatch, give, small):
    if not small:
        monkeypatch.setattr(readers, "KEPT_BYTES", 0)
        monkeypatch.setattr(tables, "MEMORY", 60)
    data = load_data(give(tmp_path), IDS)
    batches = list(data.batches(4))
    assert sum(map(len, batches)) == len(data) == 7 and all(
        not is_ragged(each.inputs["ids"]) for each in batches
    )
    rows = [row for batch in batches for row in batch.feeds()["ids"]]
    for row, expected in zip(rows, ROWS, strict=True):
        np.testing.assert_array_equal(row, expected)
    assert [label for batch in batches for label in batch.labels[""]] == LABELS.tolist()
    some = data.take(np.array([1, 3, 6])).read()
    assert [row.tolist() for row in some.inputs["ids"]] == [ROWS[place].tolist() for place in (1, 3, 6)]
    assert data.identity() == load_data(give(tmp_path), IDS).identity()


def test_the_sample_that_is_not_finite_is_named_in_samples_of_several_sizes_and_small_runs():
    rows = [row.astype(np.float32) for row in ROWS]
    rows[4][0] = np.nan
    several = Dataset.of({"x": as_rows(rows)}, None, "d")
    ones = Dataset.of({"x": np.array([row[:1] for row in rows])}, None, "d", BatchAxes({"x": 0}, size=1))
    for data in (several, ones):
        chosen = data.take(slice(2, None))
        for read in (chosen.check, chosen.read, lambda data=chosen: list(data.batches(2))):
            with pytest.raises(DataError, match="array 'x' of d has nan in sample 4"):
                read()


def test_labels_as_they_were_given_go_along_with_samples_of_several_sizes():
    data = Dataset.of({"ids": as_rows(ROWS)}, LABELS)
    data = with_given_labels(replace(data, prepare=Normalized(data.prepare, {"": LabelForm("targets", "d")})))
    runs = list(data.batches(8))
    for kind in ("given", "labels"):
        assert [label for run in runs for label in getattr(run, kind)[""]] == LABELS.tolist()
    assert runs[0].given[""].dtype == LABELS.dtype and runs[0].labels[""].dtype == np.float32


def test_neighbors_of_one_size_are_together_and_in_training_all_of_one_size():
    batch = Batch({"ids": as_rows(ROWS)}, {"": LABELS})
    assert [len(run) for run in batch.runs(8)] == [2, 1, 1, 2, 1]
    assert [len(run) for run in batch.runs(1)] == [1] * 7
    together = [index.tolist() for index in batch.places(8, ordered=False)]
    assert together == [[0, 1, 6], [2, 4, 5], [3]]


def test_samples_with_other_values_of_what_goes_with_all_are_run_apart():
    axes = BatchAxes({"x": 0, "scale": None})
    scale = np.array([[1.0], [1.0], [2.0], [1.0]])
    batch = Batch({"x": np.arange(8.0).reshape(4, 2), "scale": scale}, axes=axes)
    runs = list(batch.runs(8))
    assert [len(run) for run in runs] == [2, 1, 1]
    assert [run.feeds()["scale"].tolist() for run in runs] == [[1.0], [2.0], [1.0]]
    same = Batch({"x": np.arange(8.0).reshape(4, 2), "scale": repeated(np.array([3.0]), 4)}, axes=axes)
    assert list(alike(same.inputs, ["scale"])) == [None]
    part = same.take(np.array([0, 2]))
    assert part.inputs["scale"].strides[0] == 0 and part.feeds()["scale"].tolist() == [3.0]


def test_rows_of_several_shapes_are_joined_replaced_and_changed_by_shape():
    plain = np.arange(6.0).reshape(3, 2)
    joined = joined_rows([plain, np.ones((1, 3))])
    assert is_ragged(joined) and [row.shape for row in joined] == [(2,)] * 3 + [(3,)]
    assert not is_ragged(joined_rows([plain, plain[:0], plain])) and len(joined_rows([plain[:0], plain])) == 3
    changed = put_rows(plain.copy(), np.array([1]), np.ones((1, 3)))
    assert [row.tolist() for row in changed] == [[0.0, 1.0], [1.0, 1.0, 1.0], [4.0, 5.0]]
    doubled = by_shape(lambda rows: 2 * rows, joined)
    assert [row.tolist() for row in doubled] == [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0], [2.0, 2.0, 2.0]]
    assert taken(repeated(np.array(7), 4), np.array([3, 1])).tolist() == [7, 7]
    with pytest.raises(ValueError, match="number of axes"):
        as_rows([np.ones(2), np.ones((2, 2))])


def test_a_sample_that_the_input_does_not_take_is_refused_before_the_work():
    fixed = Request([InputSpec("ids", np.dtype(np.int64), ("N", 3))])
    for given in ({"ids": ROWS}, [{"ids": row[None]} for row in ROWS]):
        with pytest.raises(DataError, match=r"has shape \[N, [25]\], the input takes \[N, 3\]"):
            load_data(given, fixed)
