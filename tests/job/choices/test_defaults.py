"""The settings that a job chooses by rule."""

from dataclasses import replace

import numpy as np
import pytest

import onnxprune
from onnxprune.config.settings import PruneConfig
from onnxprune.data.axes import BatchAxes
from onnxprune.data.dataset import Dataset
from onnxprune.data.ragged import as_rows
from onnxprune.job.choices import defaults
from onnxprune.job.choices.defaults import (
    Facts,
    batch_size,
    by_rule,
    chosen,
    run_of,
    untried_allocation,
    untried_learning_rate,
)
from tests.builders import mlp

MANY = Facts(samples=50_000, labeled=True, norms=False, work=1_000, run=None)


def settled(facts, **settings):
    return by_rule(PruneConfig(**{"rate": 0.9, "augment": "none", "learning_rate": 1e-3} | settings), facts)


def test_a_small_network_with_much_data():
    config = settled(MANY)
    assert (config.schedule, config.optimizer, config.batch_norm) == ("gradual", "adam", "frozen")
    assert (config.batch_size, config.epochs, config.warmup) == (128, 20, 100)
    assert (config.mixup, config.precision) == (True, "float32")


def test_trained_norms_take_sgd_without_mixup():
    config = settled(replace(MANY, norms=True))
    assert (config.optimizer, config.batch_norm, config.mixup) == ("sgd", "train", False)


@pytest.mark.parametrize("facts", [{"samples": 999}, {"run": 8}])
def test_statistics_of_few_samples_or_small_batches_are_not_trained(facts):
    config = settled(replace(MANY, norms=True, **facts))
    assert (config.optimizer, config.batch_norm) == ("adam", "frozen")


@pytest.mark.parametrize(
    ("settings", "facts"),
    [({"rate": 0.95}, {}), ({"augment": "flip"}, {}), ({}, {"labeled": False})],
)
def test_no_mixtures_at_high_rates_with_augmentation_or_without_labels(settings, facts):
    assert settled(replace(MANY, **facts), **settings).mixup is False


@pytest.mark.parametrize(
    ("settings", "labeled", "decay"),
    [
        ({}, True, 1e-4),
        ({}, False, 0.0),
        ({"distill": 1.0}, True, 0.0),
        ({"regularization": "l1"}, False, 1e-4),
        ({"weight_decay": 1e-3}, False, 1e-3),
    ],
)
def test_what_only_follows_the_input_model_is_not_drawn_to_zero(settings, labeled, decay):
    assert settled(replace(MANY, labeled=labeled), **settings).weight_decay == decay


@pytest.mark.rehearses
def test_little_data_is_passed_over_more_often_in_smaller_batches():
    config = settled(replace(MANY, samples=300))
    # 300 samples are 18 batches of 16, which is the smallest size.
    assert (config.batch_size, config.epochs, config.warmup) == (16, 100, 100)
    assert settled(replace(MANY, samples=12_800)).epochs == 40


@pytest.mark.parametrize(("samples", "size"), [(4_096, 128), (4_095, 64), (1_024, 32), (20, 16)])
def test_a_batch_is_halved_while_an_epoch_has_few_updates(samples, size):
    assert batch_size(PruneConfig(rate=0.5), samples) == size


def test_a_given_batch_stays():
    assert batch_size(PruneConfig(rate=0.5, batch_size=256), 20) == 256


def test_samples_of_several_sizes_are_counted_as_run_one_by_one():
    plain = Dataset.of({"x": np.zeros((20, 3), np.float32)})
    several = Dataset.of({"x": as_rows([np.zeros(3 + place % 2, np.float32) for place in range(20)])})
    fixed = Dataset.of({"x": np.zeros((20, 3), np.float32)}, axes=BatchAxes({"x": 0}, size=4))
    assert [run_of(data) for data in (plain, several, fixed)] == [None, 1, 4]


def test_samples_that_are_run_one_by_one_are_not_mixed():
    assert (
        settled(MANY).mixup
        and not settled(replace(MANY, run=1)).mixup
        and settled(replace(MANY, run=8)).mixup
    )


@pytest.mark.parametrize(
    "settings", [{"criterion": "wanda"}, {"pattern": "2:4", "rate": 0.5}, {"alternate": True}]
)
def test_slow_steps_are_few(settings):
    assert settled(MANY, **settings).schedule == "iterative"


def test_large_networks_are_trained_in_bfloat16_where_the_processor_has_it(monkeypatch):
    precision = pytest.importorskip("onnxprune.training.precision")
    large = replace(MANY, work=defaults.BFLOAT16_WORK)
    for has, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda has=has: has)
        assert settled(large).precision == name
        assert settled(MANY).precision == "float32"


def test_what_is_given_stays_and_what_was_chosen_is_told_as_flags():
    given = PruneConfig(rate=0.9, optimizer="adamw", epochs=3, mixup=False, augment="none")
    config = replace(by_rule(given, MANY), allocation="global", learning_rate=3e-3)
    assert (config.optimizer, config.epochs, config.mixup) == ("adamw", 3, False)
    assert chosen(given, config) == (
        "--allocation global --criterion magnitude --schedule gradual --batch-size 128 --learning-rate 0.003 "
        "--warmup 100 --weight-decay 0.0001 --batch-norm frozen --precision float32"
    )


def test_auto_is_a_word_for_every_open_setting():
    words = dict.fromkeys(
        ("epochs", "batch_size", "learning_rate", "warmup", "mixup", "weight_decay", "augment"), "auto"
    )
    assert PruneConfig(rate=0.5, **words) == PruneConfig(rate=0.5)


@pytest.mark.rehearses
@pytest.mark.parametrize(
    ("settings", "allocation"),
    [
        ({"rate": 0.5}, "erk"),
        ({"rate": 0.5, "pattern": "1x4"}, "erk"),
        ({"rate": 0.5, "pattern": "2:4"}, "uniform"),
        ({"rate": 0.5, "pattern": "channel"}, "uniform"),
        ({"std_threshold": 1.0}, "uniform"),
    ],
)
def test_without_training_small_layers_are_spared(settings, allocation):
    result = onnxprune.prune(mlp(), **settings)
    assert result.report.settings["allocation"] == allocation


@pytest.mark.rehearses
def test_a_network_loses_little_where_one_rate_for_all_layers_loses_much():
    test = "models/mnist-sample/t10k-images-idx3-ubyte.gz"
    errors = {}
    for allocation in ("auto", "uniform"):
        result = onnxprune.prune("models/lenet-5.onnx", rate=0.5, allocation=allocation, eval_data=test)
        errors[allocation] = 1 - result.report.evaluation["pruned"]["value"]
    assert errors["auto"] < 0.01 < 0.03 < errors["uniform"]


@pytest.mark.rehearses
def test_few_inputs_without_labels_fit_the_layers():
    rows = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    result = onnxprune.prune(mlp(), rate=0.5, calibration_data={"x": rows})
    assert result.report.settings["criterion"] == "second-order"
    trained = onnxprune.prune(mlp(), rate=0.5, data={"x": rows}, epochs=1).report
    names = ("criterion", "schedule", "allocation", "learning_rate")
    assert [trained.settings[name] for name in names] == ["second-order", "one-shot", "sensitivity", 3e-5]
    assert any("--criterion second-order" in note for note in trained.notes)


@pytest.mark.rehearses
def test_few_inputs_without_labels_fit_the_layers_that_lose_channels():
    rows = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    for settings in ({"calibration_data": {"x": rows}}, {"data": {"x": rows}, "epochs": 1}):
        found = onnxprune.prune(mlp(), rate=0.3, pattern="channel", **settings).report.settings
        names = ("criterion", "schedule", "allocation")
        assert [found[name] for name in names] == ["second-order", "one-shot", "sensitivity"]


@pytest.mark.parametrize(
    ("rate", "labeled", "chosen"),
    [
        (0.8, False, ("second-order", "one-shot")),
        (0.85, False, ("magnitude", "gradual")),
        (0.8, True, ("magnitude", "gradual")),
    ],
)
def test_without_labels_layers_are_fitted_before_a_training_up_to_a_moderate_rate(rate, labeled, chosen):
    config = settled(replace(MANY, labeled=labeled), rate=rate)
    assert (config.criterion, config.schedule) == chosen


@pytest.mark.rehearses
@pytest.mark.parametrize(
    "settings",
    [
        {"selection": "probability"},
        {"schedule": "gradual"},
        {"criterion": "magnitude"},
    ],
)
def test_few_inputs_are_not_fitted_where_nothing_can_be(settings):
    rows = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    report = onnxprune.prune(mlp(), rate=0.5, data={"x": rows}, epochs=1, **settings).report
    assert report.settings["criterion"] == "magnitude"


@pytest.mark.rehearses
def test_channels_are_fitted_before_a_training_too():
    config = settled(MANY, pattern="channel")
    assert (config.criterion, config.reconstruct, config.schedule) == ("second-order", True, "one-shot")
    assert untried_allocation(config) == "sensitivity"
    weights = settled(replace(MANY, labeled=False), rate=0.5)
    scans = (0, defaults.MOST_SCANNED, defaults.MOST_SCANNED + 1)
    assert [untried_allocation(weights, scanned) for scanned in scans] == [
        "sensitivity",
        "sensitivity",
        "erk",
    ]
    rates = [untried_learning_rate(replace(config, optimizer="sgd"), count) for count in (50_000, 300)]
    assert rates == pytest.approx([0.01, 0.0009])


@pytest.mark.parametrize(
    ("settings", "facts"),
    [({"schedule": "gradual"}, {}), ({"criterion": "magnitude"}, {}), ({}, {"streamed": True})],
)
def test_channels_are_removed_while_training_where_they_cannot_be_fitted(settings, facts):
    config = settled(replace(MANY, **facts), pattern="channel", **settings)
    assert (config.criterion, config.reconstruct, config.schedule) == ("magnitude", None, "gradual")


@pytest.mark.rehearses
def test_labeled_data_trains_from_magnitude():
    rows = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    data = {"x": rows, "labels": np.arange(64) % 4}
    assert onnxprune.prune(mlp(), rate=0.5, data=data, epochs=1).report.settings["criterion"] == "magnitude"
