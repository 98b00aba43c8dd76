"""The average of the weights over the updates."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import onnxprune
from onnxprune.training.averaging import Average
from onnxprune.training.fine_tuning import FineTuner
from onnxprune.training.validation import Epoch
from tests.builders import initializer
from tests.training.folded import images, outputs, residual
from tests.training.module.test_modes import normalized


def fake_session(statistics=()):
    """A settled session with one weight of two numbers."""
    weight = torch.nn.Parameter(torch.zeros(2))
    frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
    modes = SimpleNamespace(statistics=lambda module: dict(enumerate(statistics)))
    return SimpleNamespace(
        settled=True, parameters={"w": weight, "f": frozen}, modes=modes, module=None, weight=weight
    )


def followed(session, average, values):
    for value in values:
        session.weight.data = torch.tensor([value, 0.0])
        average.follow()
    with average.in_place():
        return session.weight.tolist()


VALUES = [3.0, 1.0, -2.0, 5.0]


def test_the_equal_average_is_the_mean_of_all_states():
    session = fake_session()
    found = followed(session, Average(session, "swa", 1), VALUES)
    assert found == pytest.approx([np.mean(VALUES), 0.0])
    assert found[1] == 0
    assert session.weight.tolist() == [5.0, 0.0], "the weights are back"


@pytest.mark.parametrize(
    ("horizon", "decays"), [(1000, [1 / 10, 2 / 11, 3 / 12]), (5, [1 / 10, 2 / 11, 1 / 4])]
)
def test_the_moving_average_forgets_its_start_and_then_decays_by_its_horizon(horizon, decays):
    session = fake_session()
    expected = VALUES[0]
    for decay, value in zip(decays, VALUES[1:], strict=True):
        expected = decay * expected + (1 - decay) * value
    assert followed(session, Average(session, "ema", horizon), VALUES)[0] == pytest.approx(expected)
    late = Average(session, "ema", 4)
    followed(session, late, [0.0] * 100)
    assert followed(session, late, [1.0])[0] == pytest.approx(1 / 4)


def test_nothing_is_averaged_before_the_masks_are_settled_or_without_the_setting():
    session = fake_session()
    session.settled = False
    average, none = Average(session, "ema", 10), Average(session, "none", 10)
    average.follow()
    session.settled = True
    for _ in range(3):
        none.follow()
    average.follow()
    assert not average.differs and not none.differs
    average.follow()
    assert average.differs


def test_statistics_come_back_with_the_weights():
    mean = torch.tensor([1.0])
    session = fake_session([mean])
    average = Average(session, "ema", 10)
    followed(session, average, VALUES)
    with average.in_place():
        mean.fill_(7)
    assert mean.tolist() == [1.0]


def job(proto=None, **settings):
    return onnxprune.prune(
        residual() if proto is None else proto,
        **{
            "rate": 0.8,
            "data": images(),
            "epochs": 4,
            "batch_size": 32,
            "schedule": "gradual",
            "optimizer": "sgd",
            "learning_rate": 0.05,
            "learning_rate_schedule": "constant",
            "distill": 0.0,
            "warmup": 0,
            "mixup": False,
            "format": "dense",
            "remove_dead": False,
            "restore_norms": "always",
        }
        | settings,
    )


WEIGHTS = [tensor.name for tensor in residual().graph.initializer if tensor.name.endswith("weight")]


@pytest.mark.parametrize(
    "settings",
    [
        {"average": "ema"},
        {"average": "swa", "schedule": "prune-and-regrow"},
        {"average": "ema", "schedule": "iterative", "mixup": True},
    ],
)
def test_an_average_that_is_better_is_written_with_exactly_the_rate(monkeypatch, settings):
    x, seen = images()["x"][:50], []
    considered = FineTuner._considered

    def spy(self, training_loss, averaged=False):
        found = considered(self, training_loss, averaged)
        if averaged:
            with torch.no_grad():
                seen.append(self._session.module(torch.from_numpy(x))[0].numpy())
        return found

    monkeypatch.setattr(FineTuner, "_considered", spy)
    monkeypatch.setattr(Epoch, "better_than", lambda self, other: self.averaged or not other.averaged)
    found = job(**settings)
    assert found.report.fine_tuning[-1]["averaged"]
    np.testing.assert_allclose(outputs(found.model, x), seen[-1], rtol=1e-3, atol=1e-4)
    for name in WEIGHTS:
        size = initializer(residual(), name).size
        assert np.count_nonzero(initializer(found.model, name)) == size - round(0.8 * size)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (residual, {}),
        (normalized, {"batch_norm": "train", "restore_norms": "never"}),
        (normalized, {"batch_norm": "re-estimate", "restore_norms": "never"}),
    ],
)
def test_averaging_does_not_alter_the_training(make, settings):
    data = images() if make is residual else images_of_6()
    runs = {
        how: job(make(), average=how, data=data, **settings).report.fine_tuning for how in ("none", "ema")
    }
    losses = {how: [epoch["training_loss"] for epoch in records] for how, records in runs.items()}
    assert losses["none"] == losses["ema"]
    assert not any(epoch["averaged"] for epoch in runs["none"])


def images_of_6():
    data = images()
    return {"x": np.ascontiguousarray(data["x"][:, :, :6, :6]), "labels": data["labels"]}


def test_the_statistics_of_trained_norms_are_those_of_the_averaged_weights(monkeypatch):
    """The norm's mean is that of the convolution's results over the first epoch's batches."""
    seen = []
    considered = FineTuner._considered

    def spy(self, training_loss, averaged=False):
        found = considered(self, training_loss, averaged)
        module = self._session.module
        if averaged:
            inputs = torch.cat([each[0] for each in self._validation.statistics_inputs()])
            result = torch.nn.functional.conv2d(inputs, dict(module.named_parameters())["w"])
            seen.append((module.get_buffer("mean").clone(), result.mean((0, 2, 3)).detach()))
        return found

    monkeypatch.setattr(FineTuner, "_considered", spy)
    job(normalized(), average="ema", data=images_of_6(), batch_norm="train", restore_norms="never")
    assert seen
    for mean, expected in seen:
        torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"restore_norms": "never", "distill": 0.5, "distill_features": ("auto",)}]
)
def test_a_stopped_job_resumes_to_the_same_bytes(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(Epoch, "better_than", lambda self, other: self.averaged or not other.averaged)
    settings = {"average": "ema", **settings}
    saved = {"checkpoint": tmp_path / "state", "checkpoint_minutes": 0}
    straight = job(**settings)
    assert any(epoch["averaged"] for epoch in straight.report.fine_tuning)
    count, update = 0, FineTuner._update

    def stopping(self, *arguments):
        nonlocal count
        count += 1
        if count == 34:
            raise KeyboardInterrupt
        return update(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FineTuner, "_update", stopping)
        with pytest.raises(KeyboardInterrupt):
            job(**settings, **saved)
    assert torch.load(tmp_path / "state", weights_only=True)["average"]["count"] > 0
    resumed = job(**settings, **saved, resume=True)
    assert resumed.report.fine_tuning == straight.report.fine_tuning
    assert resumed.model.graph.initializer == straight.model.graph.initializer
