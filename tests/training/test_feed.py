"""Training batches: fixed by seed and epoch, read in parts, and by worker processes."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from onnxprune.data.axes import BatchAxes
from onnxprune.data.dataset import Dataset
from onnxprune.data.request import Request
from onnxprune.data.sources import load_data
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError
from onnxprune.training.feed import Feed, in_order, worker_count

SPECS = [InputSpec("x", np.dtype(np.float32), ("N", 1))]
ROWS = np.arange(50, dtype=np.float32)[:, None]


class Items(torch.utils.data.Dataset):
    """Samples that say where they were read."""

    def __init__(self, dies=None):
        self.dies = dies

    def __len__(self):
        return 50

    def __getitem__(self, index):
        if index == self.dies and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return ROWS[index], os.getpid()


def batches():
    for start in range(0, 50, 7):
        yield {"x": ROWS[start : start + 7]}


class Stream:
    def __iter__(self):
        return batches()


def feed(source=None, **settings):
    data = load_data({"x": ROWS} if source is None else source, Request(SPECS))
    return Feed(data, SPECS, settings.pop("size", 8), seed=settings.pop("seed", 0), **settings)


def alone(updates):
    """The only run of each update."""
    for (samples,) in updates:
        yield samples


def numbers(updates):
    return [[int(row) for samples in runs for row in samples.inputs[0][:, 0]] for runs in updates]


@pytest.mark.parametrize("source", [None, Items(), Stream()], ids=["arrays", "items", "a stream"])
def test_batches_depend_on_the_seed_and_the_update_alone(source):
    each = feed(source, workers=0)
    assert each.an_epoch == 6
    straight = numbers(each.from_update(0, 18))
    assert len(straight) == 18 and all(len(batch) == 8 for batch in straight)
    for start in (0, 5, 6, 13):
        assert numbers(feed(source, workers=0).from_update(start, 18)) == straight[start:]
    for epoch in range(3):
        seen = {number for batch in straight[6 * epoch : 6 * epoch + 6] for number in batch}
        assert len(seen) == 48
    assert (
        straight[:6] != straight[6:12]
        and numbers(feed(source, seed=1, workers=0).from_update(0, 6)) != straight[:6]
    )


def test_worker_processes_read_the_same_batches():
    with_workers = list(feed(Items(), workers=2).from_update(3, 15))
    assert numbers(with_workers) == numbers(feed(Items(), workers=0).from_update(3, 15))
    pids = {int(pid) for batch in alone(with_workers) for pid in batch.labels[""]}
    assert len(pids) == 2 and os.getpid() not in pids


def test_arrays_need_no_workers_and_items_have_some(monkeypatch):
    here = feed(Items(), workers=0)
    assert {int(pid) for batch in alone(here.from_update(0, 6)) for pid in batch.labels[""]} == {os.getpid()}
    monkeypatch.setattr("onnxprune.training.feed.usable_cores", lambda: 2)
    default = feed(Items())
    assert os.getpid() not in {
        int(pid) for batch in alone(default.from_update(0, 2)) for pid in batch.labels[""]
    }


@pytest.mark.parametrize(
    ("cores", "processes", "expected"), [(1, 1, 0), (2, 1, 2), (4, 4, 0), (16, 4, 4), (64, 1, 8), (1, 2, 0)]
)
def test_each_process_has_a_worker_for_each_of_its_cores_and_none_for_one(
    monkeypatch, cores, processes, expected
):
    monkeypatch.setattr("onnxprune.training.feed.usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    items = load_data(Items(), Request(SPECS))
    assert worker_count(None, items, None) == expected
    assert worker_count(3, items, None) == 3
    assert worker_count(None, load_data({"x": ROWS}, Request(SPECS)), None) == 0


def test_processes_read_disjoint_parts_of_the_batches_of_one(tmp_path):
    whole = numbers(feed(Items(), workers=0).from_update(0, 12))
    parts = []
    for rank in range(2):
        each = feed(Items(), workers=0)
        each.part = slice(4 * rank, 4 * rank + 4)
        parts.append(numbers(each.from_update(0, 12)))
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


def test_validation_is_read_in_order_with_the_rest():
    data = load_data(Items(), Request(SPECS))
    for workers in (0, 2):
        read = numbers((batch,) for batch in in_order(data, SPECS, 8, workers))
        assert [number for batch in read for number in batch] == list(range(50))


def test_a_worker_that_dies_or_a_sample_that_fails_ends_in_one_line():
    with pytest.raises(DataError, match="a process that reads <Items> died, perhaps for lack of memory"):
        list(feed(Items(dies=20), workers=1).from_update(0, 12))

    class Broken(Items):
        def __getitem__(self, index):
            if index == 20:
                raise ValueError("no such pixel")
            return ROWS[index]

    with pytest.raises(
        DataError, match=r"^<Broken> failed at one of the samples .*: ValueError: no such pixel$"
    ):
        list(feed(Broken(), workers=1).from_update(0, 12))


def test_a_fixed_batch_size_drops_the_rest_and_needs_one_batch():
    data = load_data({"x": ROWS}, Request(SPECS))

    def fixed(run, size):
        return Feed(replace(data, axes=BatchAxes({"x": 0}, size=run)), SPECS, size, 0)

    each = fixed(20, 128)
    assert (each.an_epoch, each.size) == (1, 40)
    ((first, second),) = each.from_update(0, 1)
    assert len(first) == len(second) == 20
    assert [fixed(4, size).size for size in (1, 4, 10, 12)] == [4, 4, 8, 12]
    with pytest.raises(DataError, match="has 50 samples, and the model has a fixed batch size of 60"):
        fixed(60, 128)
    assert feed(size=128).size == 50


@pytest.mark.parametrize("kind", ["a list", "a stream"])
def test_samples_of_several_sizes_are_run_in_parts_of_one_size(kind):
    given = [np.full(2 + number % 3, number, np.float32) for number in range(50)]
    labels = np.arange(50)

    class Mixed:
        def __iter__(self):
            yield from ({"x": [row], "labels": labels[place : place + 1]} for place, row in enumerate(given))

    specs = [InputSpec("x", np.dtype(np.float32), ("N", "T"))]
    source = {"x": given, "labels": labels} if kind == "a list" else Mixed()
    data = load_data(source, Request(specs))
    each = Feed(data, specs, 10, 0)
    seen = []
    for runs in each.from_update(0, 5):
        assert sum(map(len, runs)) == 10 and len({samples.inputs[0].shape for samples in runs}) == len(runs)
        for samples in runs:
            assert (samples.inputs[0][:, 0] == samples.labels[""]).all()
            seen += samples.labels[""].tolist()
    assert sorted(seen) == list(range(50))
    ordered = list(in_order(data, specs, 16, 0))
    assert [int(label) for samples in ordered for label in samples.labels[""]] == list(range(50))
    assert {samples.inputs[0].shape for samples in ordered} == {(1, 2), (1, 3), (1, 4)}


def test_labels_of_every_kind_become_tensors_of_their_kind():
    for labels, kind in (
        (np.arange(50, dtype=np.uint8), torch.int64),
        (ROWS, torch.float32),
        (ROWS > 3, torch.bool),
    ):
        data = Dataset.of({"x": ROWS}, labels)
        ((batch,),) = Feed(data, SPECS, 50, 0).from_update(0, 1)
        assert batch.labels[""].dtype == kind
