"""The loss on labels of every kind, by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from onnxprune.data.batch import IGNORED
from onnxprune.errors import DataError
from onnxprune.training.losses import Objective
from onnxprune.training.samples import Samples
from onnxprune.training.truths import Truth, check_truths, loss_name

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
SHARES = LOGITS.sigmoid()
ONES = torch.tensor([[1, 0, 1], [0, 0, 1]])


def loss(truth, labels, output, **settings):
    end = settings.pop("end", "Gemm")
    objective = Objective(0.0, 1.0, ("y",), (end,), trained={"": truth}, **settings)
    return objective((output,), Samples((), {"": labels}), None)


def cross_entropies(shares, ones):
    return -(ones * shares.log() + (1 - ones) * (1 - shares).log())


@pytest.mark.parametrize("probabilities", [False, True])
def test_yes_or_no_is_binary_cross_entropy_of_logits_or_probabilities(probabilities):
    output = SHARES if probabilities else LOGITS
    expected = float(cross_entropies(SHARES, ONES).mean())
    truth = Truth("multi-label", probabilities=probabilities)
    assert float(loss(truth, ONES, output)) == pytest.approx(expected)
    assert float(loss(truth, ONES, output, loss="cross-entropy")) == pytest.approx(expected)
    column = Truth("binary", probabilities=probabilities)
    # An output (N, 1) has labels of its shape.
    first = cross_entropies(SHARES[:, :1], ONES[:, :1]).mean()
    assert float(loss(column, ONES[:, :1], output[:, :1])) == pytest.approx(float(first))


def test_ignored_labels_count_in_no_loss():
    given = torch.where(torch.tensor([[True, False, True], [True, True, True]]), ONES, IGNORED)
    counted = cross_entropies(SHARES, ONES).ravel()[[0, 2, 3, 4, 5]]
    assert float(loss(Truth("multi-label"), given, LOGITS)) == pytest.approx(float(counted.mean()))
    squares = ((LOGITS - ONES) ** 2).ravel()[[0, 2, 3, 4, 5]]
    assert float(loss(Truth("multi-label"), given, LOGITS, loss="mse")) == pytest.approx(
        float(squares.mean())
    )
    classes = torch.tensor([IGNORED, 2])
    expected = float(F.cross_entropy(LOGITS[1:], classes[1:]))
    assert float(loss(Truth("classes"), classes, LOGITS)) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["auto", "dice"])
@pytest.mark.parametrize("kind", ["classes", "binary", "multi-label"])
def test_a_batch_without_labels_that_count_has_the_loss_0_and_gradients_of_0(kind, name):
    output = LOGITS.clone().requires_grad_()
    labels = torch.full((2,) if kind == "classes" else (2, 3), IGNORED)
    found = loss(Truth(kind), labels, output, loss=name)
    found.backward()
    assert float(found.detach()) == 0 and not output.grad.any()


def test_label_smoothing_of_yes_or_no_moves_towards_a_half():
    expected = cross_entropies(SHARES, ONES * 0.8 + 0.1).mean()
    assert float(loss(Truth("multi-label"), ONES, LOGITS, label_smoothing=0.2)) == pytest.approx(
        float(expected)
    )


@pytest.mark.parametrize("probabilities", [False, True])
def test_dice_of_one_unit_is_over_all_pixels_and_of_several_the_mean_over_classes(probabilities):
    output = (SHARES if probabilities else LOGITS).T.reshape(3, 1, 2, 1)
    masks = ONES.T.reshape(3, 1, 2, 1)
    together = 1 - 2 * (SHARES * ONES).sum() / (SHARES + ONES).sum()
    found = loss(Truth("binary", probabilities=probabilities), masks, output, loss="dice")
    assert float(found) == pytest.approx(float(together))
    each = 1 - (2 * (SHARES * ONES).sum(0) / (SHARES + ONES).sum(0)).mean()
    given = SHARES if probabilities else LOGITS
    found = loss(Truth("multi-label", probabilities=probabilities), ONES, given, loss="dice")
    assert float(found) == pytest.approx(float(each))


def test_dice_leaves_out_ignored_pixels():
    masks = torch.tensor([[[[1, IGNORED, 0]]]])
    output = torch.tensor([[[[40.0, 40.0, -40.0]]]])
    assert float(loss(Truth("binary"), masks, output, loss="dice")) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("shape", "axis"), [((2, 3), 1), ((2, 5, 3), 2), ((2, 3, 4, 4), 1)])
def test_probabilities_of_classes_have_the_cross_entropy_with_them(shape, axis):
    random = torch.Generator().manual_seed(0)
    logits, given = (torch.randn(shape, generator=random) for _ in range(2))
    labels = given.softmax(axis)
    expected = float(-(labels * logits.log_softmax(axis)).sum(axis).mean())
    assert float(loss(Truth("soft", axis), labels, logits)) == pytest.approx(expected, rel=1e-5)
    probable = Truth("soft", axis, probabilities=True)
    assert float(loss(probable, labels, logits.softmax(axis))) == pytest.approx(expected, rel=1e-4)


def test_classes_of_an_output_of_sigmoids_have_the_cross_entropy_of_its_logits():
    labels = torch.tensor([0, 2])
    expected = float(F.cross_entropy(LOGITS, labels))
    assert float(loss(Truth("classes"), labels, SHARES, end="Sigmoid")) == pytest.approx(expected, rel=1e-4)
    saturated = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], requires_grad=True)
    loss(Truth("classes"), labels, saturated, end="Sigmoid").backward()
    assert saturated.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 3)])
def test_cosine_takes_outputs_of_any_rank(shape):
    output, labels = torch.ones(shape), -torch.ones(shape)
    assert float(loss(Truth("targets"), labels, output, loss="cosine")) == pytest.approx(2)


def test_a_squared_error_of_minus_1_and_1_is_from_these_numbers():
    squares = (LOGITS - (2 * ONES - 1)) ** 2
    found = loss(Truth("multi-label", low=-1), ONES, LOGITS, loss="mse")
    assert float(found) == pytest.approx(float(squares.mean()))


def distance(truth, end="Gemm"):
    teacher = LOGITS + torch.tensor([[1.0], [2.0]])
    trained = {} if truth is None else {"": truth}
    objective = Objective(1.0, 1.0, ("y",), (end,), trained=trained, scales=(1.0,))
    return float(objective((LOGITS,), Samples((), {}), (teacher,)))


def test_only_outputs_that_are_one_distribution_are_distilled_by_kl():
    # The same number added to all logits changes a sigmoid of them, and no softmax.
    for truth in (None, Truth("classes"), Truth("soft"), Truth("other")):
        assert distance(truth) == pytest.approx(0, abs=1e-6)
    for truth, end in ((Truth("multi-label"), "Gemm"), (Truth("targets"), "Gemm"), (None, "Sigmoid")):
        assert distance(truth, end) == pytest.approx(2.5)


def test_a_loss_of_ones_own_gets_all_labels_and_must_depend_on_the_outputs():
    given = {}

    def keep(outputs, labels):
        given["labels"] = labels
        return outputs[0].mean()

    boxes, texts = torch.rand(2, 7, 5), np.array(["a", "b"], object)
    samples = Samples((), {"": boxes, "words": texts})
    trained = {"": Truth("other"), "words": Truth("other")}
    Objective(0.0, 1.0, ("y",), ("Gemm",), custom=keep, trained=trained)((LOGITS,), samples, None)
    assert given["labels"][""] is boxes and given["labels"]["words"] is texts
    objective = Objective(
        0.0,
        1.0,
        ("y",),
        ("Gemm",),
        loss="my_losses:still",
        custom=lambda outputs, labels: outputs[0].detach().mean(),
        trained=trained,
    )
    with pytest.raises(DataError, match="--loss my_losses:still returned a number that the outputs cannot"):
        objective((LOGITS.clone().requires_grad_(),), samples, None)


@pytest.mark.parametrize(
    ("truth", "name", "words"),
    [
        (Truth("classes"), "auto", "cross-entropy of logits"),
        (Truth("soft", probabilities=True), "auto", "cross-entropy of probabilities"),
        (Truth("binary"), "auto", "binary cross-entropy of logits"),
        (Truth("multi-label", probabilities=True), "cross-entropy", "binary cross-entropy of probabilities"),
        (Truth("binary"), "dice", "Dice loss of logits"),
        (Truth("binary"), "mse", "mean squared error"),
        (Truth("targets"), "auto", "mean squared error"),
    ],
)
def test_the_loss_is_named(truth, name, words):
    check_truths({"": truth}, name)
    assert loss_name(truth, name) == words
