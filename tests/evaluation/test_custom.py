"""Users' own metrics and functions of outputs."""

import sys
import types

import numpy as np
import pytest
import torch

from onnxprune.errors import DataError, SettingError
from onnxprune.system.packages import import_torchvision
from tests.builders import normal
from tests.evaluation.test_metrics import LABELS, LOGITS, batches, running, scores

import_torchvision("a test")
import torchmetrics  # noqa: E402


def distance(outputs, labels):
    return np.abs(outputs["y"].argmax(1) - labels)


distance.higher_is_better = False


class Agreeing:
    def __init__(self):
        self.right = self.all = 0

    def update(self, outputs, labels):
        self.right += int((outputs["y"].argmax(1) == labels).sum())
        self.all += len(labels)

    def compute(self):
        return self.right / self.all

    def merge_state(self, other):
        self.right, self.all = self.right + other.right, self.all + other.all


class Unmergeable(Agreeing):
    merge_state = property()


def fails(outputs, labels):
    raise KeyError("logits")


def letters(outputs):
    return ["abcdefghij"[int(row.argmax())] for row in outputs["y"]]


@pytest.fixture(autouse=True)
def module(monkeypatch):
    made = types.ModuleType("own")
    for each in (distance, Agreeing, Unmergeable, fails, letters):
        setattr(made, each.__name__, each)
    made.matthews = torchmetrics.MatthewsCorrCoef(task="multiclass", num_classes=10)
    made.total = lambda outputs, labels: 1.0
    made.two = lambda outputs: [1, 2]
    made.halves = lambda outputs: outputs["y"][:, :5]
    made.number = 7
    monkeypatch.setitem(sys.modules, "own", made)


def test_a_function_gives_one_score_per_sample_and_their_mean_is_the_value():
    assert scores("own:distance", LABELS, LOGITS)["own:distance"] == np.abs(LOGITS.argmax(1) - LABELS).mean()
    (track,) = running("own:distance", LABELS, LOGITS).tracks
    assert track.metric.drop(2.0, 2.5) == 0.5 and track.metric.title == "distance"


def test_a_class_is_made_for_each_model_and_updated_by_batches():
    expected = scores("top-1", LABELS, LOGITS)["top-1"]
    for _ in range(2):
        assert scores("own:Agreeing", LABELS, LOGITS)["own:Agreeing"] == expected


def test_metrics_of_torchmetrics_get_tensors():
    import torchmetrics.functional as F

    expected = F.matthews_corrcoef(
        torch.from_numpy(LOGITS), torch.from_numpy(LABELS), "multiclass", num_classes=10
    )
    for _ in range(2):
        assert scores("own:matthews", LABELS, LOGITS)["own:matthews"] == pytest.approx(float(expected))


def test_states_are_merged_where_they_can_be():
    for name in ("Agreeing", "matthews", "Unmergeable"):
        parts = [running(f"own:{name}", LABELS, LOGITS) for _ in range(2)]
        for part, (outputs, batch) in zip(parts, batches(LABELS, LOGITS, 100), strict=True):
            part.add(outputs, batch)
        if name == "Unmergeable":
            with pytest.raises(DataError, match="merge_state"):
                parts[0].merge([parts[1].records()])
            continue
        parts[0].merge([parts[1].records()])
        assert parts[0].results()[0].value == pytest.approx(
            scores(f"own:{name}", LABELS, LOGITS)[f"own:{name}"]
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own:gone", "--metric own:gone: module 'own' has no attribute 'gone'; give a function of"),
        ("nowhere:f", "--metric nowhere:f: No module named 'nowhere'"),
        ("own:number", "--metric own:number is not a function"),
        ("own:fails", "--metric own:fails failed with KeyError: 'logits'"),
        (
            "own:total",
            "--metric own:total returned 1.0 for 7 samples|returned float .* for 7 samples: return one",
        ),
    ],
)
def test_what_is_wrong_with_a_metric_is_said(name, message):
    with pytest.raises((DataError, SettingError), match=message):
        scores(name, LABELS, LOGITS)


def test_postprocessed_texts_are_compared_by_edits():
    texts = np.array(["a", "bc", "dxe"])
    output = np.eye(10, dtype=np.float32)[[0, 1, 3]]
    # b for bc lacks c, and d for dxe lacks x and e.
    found = scores("cer", texts, output, postprocess="own:letters")
    assert found == {"cer": 3 / 6}


def test_texts_need_a_postprocess_function():
    with pytest.raises(
        DataError, match=r"--metric cer compares texts, .* give --postprocess MODULE:FUNCTION"
    ):
        scores("cer", np.array(["a", "b"]), normal(2, 10))


def test_an_array_that_is_made_takes_the_place_of_the_first_output():
    found = scores("top-1", LABELS % 5, LOGITS, postprocess="own:halves")
    assert found["top-1"] == (LOGITS[:, :5].argmax(1) == LABELS % 5).mean()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own:two", "returned 2 items for 200 samples"),
        ("own:number", "is not a function"),
        ("own:none", "no attribute"),
    ],
)
def test_what_is_wrong_with_a_postprocess_function_is_said(name, message):
    with pytest.raises((DataError, SettingError), match=f"--postprocess {name}.*{message}"):
        scores("top-1", LABELS, LOGITS, postprocess=name)


def test_labels_that_no_other_metric_takes_reach_a_users_metric_unchanged():
    identities = np.arange(200) + 500
    found = scores("own:distance", identities, LOGITS)
    assert found["own:distance"] == np.abs(LOGITS.argmax(1) - identities).mean()
