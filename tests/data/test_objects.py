"""Datasets of torch and of Hugging Face, loaders, and iterables, as sources of samples."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

from onnxprune.data.objects import ItemSource, TableSource
from onnxprune.data.request import Request
from onnxprune.data.sources import load_data
from onnxprune.data.specs import InputSpec
from onnxprune.data.stream import StreamSource
from onnxprune.errors import DataError

FLOAT = np.dtype(np.float32)
ONE = Request([InputSpec("x", FLOAT, ("N", 3))])
TWO = Request([InputSpec("a", FLOAT, ("N", 2)), InputSpec("b", FLOAT, ("N", 1))])
X = np.arange(30, dtype=np.float32).reshape(10, 3)
Y = np.arange(10) % 4


class Named(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {"x": torch.from_numpy(X[index]), "target": int(Y[index])}


class Several(Named):
    def __getitem__(self, index):
        return X[index, :2], X[index, 2:], {"first": Y[index], "second": float(index)}


class Flowing(IterableDataset):
    def __iter__(self):
        yield from zip(torch.from_numpy(X), Y.tolist(), strict=True)


class Table:
    """The part of a Hugging Face Dataset that is used."""

    column_names, features = ["x", "label"], {}

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {"x": [X[each].tolist() for each in index], "label": [int(Y[each]) for each in index]}


PAIRS = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
SOURCES = {
    "a dataset of tuples": (PAIRS, ItemSource),
    "a dataset of dicts": (Named(), ItemSource),
    "a loader in order": (DataLoader(PAIRS, batch_size=4), ItemSource),
    "a shuffling loader": (DataLoader(PAIRS, batch_size=4, shuffle=True), ItemSource),
    "a dataset that yields": (Flowing(), StreamSource),
    "a loader of a dataset that yields": (DataLoader(Flowing(), batch_size=4), StreamSource),
    "a Hugging Face table": (Table(), TableSource),
    "batches in a list": ([{"x": X[:4], "y": Y[:4]}, {"x": X[4:], "y": Y[4:]}], None),
    "a memory-mapped array": ({"x": X, "labels": Y}, None),
}


@pytest.mark.parametrize(("given", "kind"), SOURCES.values(), ids=SOURCES.keys())
def test_samples_come_by_number_with_their_labels(given, kind):
    data = load_data(given, ONE)
    assert kind is None or type(data.source) is kind
    batch = data.take(np.array([1, 4, 9])).read()
    assert (batch.inputs["x"] == X[[1, 4, 9]]).all() and batch.inputs["x"].dtype == np.float32
    assert batch.labels[""].tolist() == Y[[1, 4, 9]].tolist()
    assert len(data) == 10 and data.labeled
    assert [len(each) for each in data.batches(4)] == [4, 4, 2]


def test_inputs_come_in_the_order_of_the_model_and_labels_by_output():
    batch = load_data(Several(), TWO).take(slice(2, 4)).read()
    assert (batch.inputs["a"] == X[2:4, :2]).all() and (batch.inputs["b"] == X[2:4, 2:]).all()
    assert batch.labels["first"].tolist() == [2, 3] and batch.labels["second"].tolist() == [2.0, 3.0]


def test_a_loader_with_an_order_of_its_own_keeps_it():
    sampler = WeightedRandomSampler([0.0] * 9 + [1.0], 12)
    data = load_data(DataLoader(PAIRS, batch_size=4, sampler=sampler), ONE)
    assert len(data) == 12 and (data.read().inputs["x"] == X[9]).all()


def test_labels_without_inputs_in_a_dataset_of_one_value():
    data = load_data(TensorDataset(torch.from_numpy(X)), ONE)
    assert not data.labeled and (data.read().inputs["x"] == X).all()


class Failing(Named):
    def __getitem__(self, index):
        if index == 7:
            raise OSError("cannot read image")
        return X[index]


class Ragged(Named):
    def __getitem__(self, index):
        return {"x": np.zeros(3 if index < 5 else 4, np.float32)}


REFUSED = {
    "a sample that fails": (
        Failing(),
        ONE,
        "failed at one of the samples 0 to 9: OSError: cannot read image",
    ),
    "samples of a shape that the input does not take": (
        Ragged(),
        ONE,
        r"has shape \[N, 4\], the input takes \[N, 3\]",
    ),
    "labels of fewer samples in a batch": (
        [{"x": X[:4], "y": Y[:3]}],
        ONE,
        r"batch 0 of <list> have different lengths \(x 4, y 3\)",
    ),
    "one label for all samples": (
        {"x": X, "labels": np.array(1)},
        ONE,
        r"the arrays of <dict> have different lengths \(x 10, labels 1\)",
    ),
    "labels that a loader makes for fewer samples": (
        DataLoader(PAIRS, 4, collate_fn=lambda pairs: (torch.stack([x for x, _ in pairs]), torch.zeros(1))),
        ONE,
        "has labels for 1 of 2 samples: give one for each",
    ),
    "too many values": (
        TensorDataset(*[torch.zeros(4, 3)] * 3),
        ONE,
        "have 3 values, the model has 1 inputs: give the inputs in the model's order and then the labels",
    ),
}


@pytest.mark.parametrize(("given", "request_", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_samples_is_refused_in_words(given, request_, words):
    with pytest.raises(DataError, match=words):
        load_data(given, request_).read()


def test_label_names_are_found_and_other_arrays_are_told():
    for name in ("labels", "label", "y", "Y", "target", "targets", "class"):
        data = load_data({"x": X, name: Y}, ONE)
        told = () if name == "labels" else (f"The labels of <dict> are in the array {name!r}.",)
        assert data.labeled and data.notes == told
    data = load_data({"x": X, "lables": Y}, ONE)
    assert not data.labeled and "not used: lables. There are no labels: call them 'labels'" in data.notes[0]
    # Where the model has an input of that name, it is no label.
    assert not load_data({"y": X}, Request([InputSpec("y", FLOAT, ("N", 3))])).labeled


def test_a_loader_with_a_sampler_gives_the_same_samples_in_every_pass():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    sampler = torch.utils.data.SubsetRandomSampler(range(len(X)))
    source = load_data(torch.utils.data.DataLoader(data, 2, sampler=sampler), ONE).source
    first, second = (list(source.scan(np.arange(len(X)), 4, epoch)) for epoch in (0, 1))
    assert all((a["x"] == b["x"]).all() for a, b in zip(first, second, strict=True))
    assert sampler.generator is None and not source.notes
