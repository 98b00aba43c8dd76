"""What retraining minimizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import onnxprune
from onnxprune.errors import DataError, SelectorError, SettingError
from onnxprune.training.losses import Objective
from onnxprune.training.samples import Samples
from onnxprune.training.truths import Truth
from tests.builders import mlp, normal
from tests.fuzz.models import written

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
LABELS = torch.tensor([0, 2])


def truth_of(labels):
    return Truth("targets" if labels.is_floating_point() else "classes")


def loss(labels=LABELS, outputs=(LOGITS,), teacher=None, **settings):
    given = {"distill": 0.0, "temperature": 1.0, "names": ("y", "z"), "last_operators": ("Gemm",)} | settings
    by_output = {} if labels is None else labels if isinstance(labels, dict) else {"": labels}
    given.setdefault("trained", {name: truth_of(each) for name, each in by_output.items()})
    return float(Objective(**given)(outputs, Samples((), by_output), teacher))


def test_label_smoothing_gives_every_class_a_share():
    logs = F.log_softmax(LOGITS, 1)
    expected = 0.9 * loss() + 0.1 * float(-logs.mean())
    assert loss(label_smoothing=0.1) == pytest.approx(expected)


def test_segmentation_takes_class_maps_by_cross_entropy_or_dice():
    maps = torch.zeros(1, 2, 2, 2)
    truth = torch.tensor([[[0, 1], [1, 0]]])
    right = torch.stack([1 - truth, truth], 1).float() * 40
    assert loss(truth, (maps,)) == pytest.approx(float(np.log(2)))
    assert loss(truth, (maps,), loss="dice") == pytest.approx(0.5)
    assert loss(truth, (right,), loss="dice") == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"), [("mse", 2.5), ("l1", 1.5), ("huber", 1.0), ("cosine", 1 - 5 / (10**0.5 * 5**0.5))]
)
def test_regression_losses_have_their_values_by_hand(name, expected):
    assert loss(torch.tensor([[1.0, 2.0]]), (torch.tensor([[3.0, 1.0]]),), loss=name) == pytest.approx(
        expected
    )


def test_several_outputs_are_distilled_by_cosine_or_scaled_squared_error():
    outputs = torch.tensor([[1.0, 0.0]]), torch.tensor([[[2.0], [0.0]]])
    teacher = torch.tensor([[0.0, 1.0]]), torch.tensor([[[1.0], [0.0]]])
    settings = {"distill": 1.0, "last_operators": ("Gemm", "Conv"), "scales": (1.0, 0.25)}
    assert loss(None, outputs, teacher, distance="mse", **settings) == pytest.approx((1 + 0.5 / 0.25) / 2)
    assert loss(None, outputs, teacher, distance="cosine", **settings) == pytest.approx((1 + 0) / 2)


def test_intermediate_values_are_not_treated_as_classes():
    values = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 1.0]])
    settings = {"distill": 1.0, "last_operators": ("Gemm",), "scales": (1.0, 1.0)}
    found = loss(None, (LOGITS, values[0]), (LOGITS, values[1]), **settings)
    assert found == pytest.approx(0.5)


ROWS = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
SETTINGS = {"rate": 0.7, "epochs": 4, "batch_size": 16, "format": "dense", "learning_rate": 1e-2}


def cosine(**settings):
    result = onnxprune.prune(mlp(), data={"x": ROWS}, **SETTINGS, **settings)
    return result.report.evaluation["outputs"][0]["cosine"]


def test_intermediate_values_can_be_distilled_and_leave_no_trace_in_the_file():
    result = onnxprune.prune(mlp(), data={"x": ROWS}, distill_features="r", **SETTINGS)
    assert [output.name for output in result.model.graph.output] == ["y"]
    assert cosine(distill_features="r") != cosine()
    assert cosine(distill_features="op:Relu") == cosine(distill_features="r")
    with pytest.raises(SelectorError, match=r"selector 'nothing\*' matches no value"):
        cosine(distill_features="nothing*")


def test_every_distillation_loss_brings_the_outputs_closer_than_one_shot():
    one_shot = onnxprune.prune(mlp(), rate=0.7, eval_data={"x": ROWS}).report.evaluation["outputs"][0][
        "cosine"
    ]
    for name in ("kl", "mse", "cosine"):
        assert cosine(distill_loss=name) > one_shot


def test_bfloat16_trains_float32_weights():
    full, half = cosine(), cosine(precision="bfloat16")
    assert half != full and half == pytest.approx(full, abs=0.05)


def test_a_custom_loss_is_a_function_in_a_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_loss.py").write_text(
        "calls = []\ndef far(outputs, labels):\n    calls.append(labels)\n    return (outputs[0] - 5).square().mean()\n"
    )
    labels = np.zeros(200, int)
    data = {"x": ROWS, "labels": labels}
    model = onnxprune.prune(
        mlp(), data=data, loss="own_loss:far", distill=0.0, **{**SETTINGS, "epochs": 30}
    ).model
    import onnxruntime as ort

    (outputs,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": ROWS})
    assert np.abs(outputs - 5).mean() < 2.5
    with pytest.raises(
        SettingError, match=r"--loss own_loss:near: .*; give a function of \(outputs, labels\)"
    ):
        onnxprune.prune(mlp(), data=data, loss="own_loss:near", **SETTINGS)


@pytest.mark.parametrize(
    ("name", "labels", "takes"),
    [
        ("mse", np.zeros(200, int), "float labels, but the labels are integers: use --loss cross-entropy"),
        (
            "dice",
            np.full((200, 4), 0.5, np.float32),
            "integer labels, but the labels are floats: use --loss mse",
        ),
    ],
)
def test_a_loss_that_does_not_fit_the_labels_is_refused(name, labels, takes):
    with pytest.raises(DataError, match=f"--loss {name} needs {takes}"):
        onnxprune.prune(mlp(), data={"x": ROWS, "labels": labels}, loss=name, **SETTINGS)


def test_a_function_that_fails_or_returns_no_loss_is_refused():
    def fails(outputs, labels):
        raise ValueError("boxes outside\nof the image")

    batch = Samples((torch.zeros(2, 3),), {"": torch.tensor([0, 1])})
    for function, words in (
        (fails, "--loss fails failed with ValueError: boxes outside"),
        (lambda outputs, labels: outputs[0], r"returned a tensor of shape \[2, 3\]"),
        (lambda outputs, labels: 3.0, "returned float"),
    ):
        objective = Objective(0.0, 1.0, ("y",), ("Gemm",), custom=function, trained={"": Truth("other")})
        with pytest.raises(DataError, match=words):
            objective(batch.inputs, batch, None)


def test_outputs_without_elements_have_no_part_in_the_distance_from_the_teacher():
    none, moved = torch.zeros(2, 0), (LOGITS + torch.tensor([1.0, 0.0, 0.0]))
    alone = loss(None, (LOGITS,), (moved,), distill=1.0, scales=(1.0,), distance="mse")
    assert alone == pytest.approx(1 / 3)
    assert loss(None, (none, LOGITS), (none, moved), distill=1.0, scales=(0.0, 1.0), distance="mse") == alone


def test_rows_that_one_model_selects_and_the_other_does_not_are_refused():
    with pytest.raises(DataError, match=r"output 'y' has the shape \[2, 3\].* \[1, 3\].*--train-until"):
        loss(None, (LOGITS,), (LOGITS[:1],), distill=1.0, scales=(1.0,))


def test_a_training_towards_outputs_that_have_no_elements_is_refused():
    model = written(
        "g (float[N,8] x) => (float[N,0] y) { a = MatMul (x, w) y = Slice (a, zero, zero, one) }",
        {"w": normal(8, 4), "zero": np.array([0]), "one": np.array([1])},
    )
    with pytest.raises(DataError, match=r"no output has elements on .*give data on which there are some"):
        onnxprune.prune(model, rate=0.5, data={"x": normal(16, 8)}, epochs=1)
