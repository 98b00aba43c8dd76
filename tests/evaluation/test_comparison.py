"""Two models compared on data: metrics on labels, and differences of outputs."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.data.dataset import Dataset
from onnxprune.data.specs import InputSpec
from onnxprune.evaluation.comparison import compare
from onnxprune.evaluation.sessions import make_session
from tests.builders import floats, mlp, model_of, normal

SPECS = [InputSpec("x", np.dtype(np.float32), (None, 8))]


def linear(weight, batch="N"):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")
    return model_of([node], [floats("x", batch, 8)], [floats("y", batch, weight.shape[1])], {"w": weight})


def session(model):
    return make_session(model, "a test model")


def dataset(count, labels=None):
    return Dataset.of({"x": normal(count, 8)}, labels, "samples")


def test_top_1_counts_the_samples_that_are_right():
    weight = normal(8, 4, seed=1)
    right = (normal(600, 8) @ weight).argmax(1)
    right[:30] = (right[:30] + 1) % 4
    result = compare(session(linear(weight)), session(linear(-weight)), dataset(600, right), SPECS)
    assert result.baseline.value == 570 / 600 and result.pruned.value < 0.5
    assert result.drop() == result.baseline.value - result.pruned.value


def test_float_labels_are_evaluated_by_mean_squared_error():
    weight = normal(8, 3, seed=1)
    target = normal(40, 8) @ weight
    result = compare(session(linear(weight)), session(linear(weight * 0)), dataset(40, target), SPECS)
    assert result.baseline.value == pytest.approx(0, abs=1e-10)
    assert result.pruned.value == pytest.approx((target**2).mean(), rel=1e-5)


def test_the_error_of_the_drop_counts_only_samples_that_the_models_differ_on():
    weight = normal(8, 4, seed=1)
    worse = weight + normal(8, 4, seed=2) / 2
    x = normal(600, 8)
    labels = (x @ (weight + normal(8, 4, seed=3) / 2)).argmax(1)
    result = compare(session(linear(weight)), session(linear(worse)), dataset(600, labels), SPECS)
    lost = ((x @ weight).argmax(1) == labels) * 1.0 - ((x @ worse).argmax(1) == labels)
    assert result.drop() == pytest.approx(lost.mean())
    assert result.drop_error == pytest.approx(lost.std() / np.sqrt(600))
    same = compare(session(linear(weight)), session(linear(weight)), dataset(600, labels), SPECS)
    assert same.drop() == 0 and same.drop_error == pytest.approx(1 / 600)


def test_the_error_of_a_relative_drop_is_that_of_resampling():
    weight, random = normal(8, 3, seed=1), np.random.default_rng(0)
    x, noise = normal(400, 8), normal(400, 3, seed=3)
    labels = x @ weight + noise
    worse = weight + normal(8, 3, seed=2) / 5
    result = compare(session(linear(weight)), session(linear(worse)), dataset(400, labels), SPECS)
    old, new = (((x @ each - labels) ** 2).sum(1) for each in (weight, worse))
    draws = [random.integers(0, 400, 400) for _ in range(2000)]
    resampled = np.std([new[draw].sum() / old[draw].sum() for draw in draws])
    assert result.drop_error == pytest.approx(resampled, rel=0.1)


def test_differences_are_those_of_the_outputs():
    weight = normal(8, 4, seed=1)
    output = compare(session(linear(weight)), session(linear(weight * 0.5)), dataset(50), SPECS).outputs[0]
    full = normal(50, 8) @ weight
    assert output.cosine == pytest.approx(1) and output.agreement == 1
    assert output.absolute == pytest.approx(np.abs(full).max() / 2, rel=1e-5)
    assert output.relative == pytest.approx(0.5, rel=1e-5)


def test_equal_models_do_not_differ():
    output = compare(session(mlp()), session(mlp()), dataset(50), SPECS).outputs[0]
    assert (output.absolute, output.relative, output.agreement) == (0, 0, 1)


def test_a_fixed_batch_evaluates_every_sample_once():
    weight = normal(8, 4, seed=1)
    fixed = [InputSpec("x", np.dtype(np.float32), (16, 8))]
    labels = (normal(50, 8) @ weight).argmax(1)
    result = compare(session(linear(weight, 16)), session(linear(weight, 16)), dataset(50, labels), fixed)
    assert result.samples == result.baseline.samples == 50 and result.baseline.value == 1
