"""BatchNormalization and Dropout while a model is fine-tuned."""

import copy

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper

import onnxprune
from tests.builders import floats, initializer, mlp, model_of, normal


def normalized(dropout=False):
    """x [N, 3, 6, 6] -> Conv -> BatchNormalization -> Relu (-> Dropout) -> Flatten -> Gemm -> y [N, 4]."""
    drop = [helper.make_node("Dropout", ["r", "ratio"], ["d"], "drop")] if dropout else []
    return model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv", kernel_shape=[3, 3]),
            helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "variance"], ["b"], "norm"),
            helper.make_node("Relu", ["b"], ["r"], "relu"),
            *drop,
            helper.make_node("Flatten", ["d" if dropout else "r"], ["f"], "flatten"),
            helper.make_node("Gemm", ["f", "fc"], ["y"], "fc"),
        ],
        [floats("x", "N", 3, 6, 6)],
        [floats("y", "N", 4)],
        {
            "w": normal(5, 3, 3, 3),
            "scale": np.ones(5, np.float32),
            "bias": np.zeros(5, np.float32),
            "mean": normal(5, seed=1),
            "variance": np.ones(5, np.float32),
            "fc": normal(80, 4, seed=2),
        }
        | ({"ratio": np.array(0.5, np.float32)} if dropout else {}),
    )


DATA = {"x": normal(128, 3, 6, 6, seed=3)}


def fine_tuned(batch_norm, **settings):
    return onnxprune.prune(
        normalized(),
        rate=0.5,
        data=DATA,
        epochs=2,
        batch_size=16,
        schedule="one-shot",
        format="dense",
        remove_dead=False,
        batch_norm=batch_norm,
        **settings,
    ).model


def convolved(model):
    """What the batch normalization gets, over all data: its mean and variance by channel."""
    probe = copy.deepcopy(model)
    probe.graph.output.append(helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, None))
    values = ort.InferenceSession(probe.SerializeToString()).run(["c"], DATA)[0]
    return values.mean((0, 2, 3)), values.var((0, 2, 3))


def test_frozen_statistics_stay_to_the_bit():
    model = fine_tuned("frozen")
    for name in ("mean", "variance"):
        assert (initializer(model, name) == initializer(normalized(), name)).all()


def test_re_estimated_statistics_are_those_of_the_pruned_model_on_the_data():
    model = fine_tuned("re-estimate")
    mean, variance = convolved(model)
    np.testing.assert_allclose(initializer(model, "mean"), mean, atol=0.1 * np.sqrt(variance.max()))
    np.testing.assert_allclose(initializer(model, "variance"), variance, rtol=0.2)


def test_trained_statistics_move_towards_those_of_the_batches():
    before, after = normalized(), fine_tuned("train")
    mean, _ = convolved(after)
    distances = [np.abs(initializer(model, "mean") - mean).sum() for model in (before, after)]
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize("batch_norm", ["frozen", "re-estimate", "train"])
def test_a_module_in_evaluation_computes_what_onnxruntime_does(batch_norm):
    model = normalized(dropout=True)
    session = onnxprune.pruning_session(model, 1, rate=0.0, batch_norm=batch_norm, dropout={"fc": 0.3})
    (expected,) = ort.InferenceSession(model.SerializeToString()).run(None, DATA)
    with torch.no_grad():
        (given,) = session.module.eval()(torch.from_numpy(DATA["x"]))
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-4, atol=1e-4)


def dropouts(session):
    return [each.p for each in session.module.modules() if isinstance(each, torch.nn.Dropout)]


def test_dropout_of_the_graph_is_on_in_training_and_shrinks_as_connections_are_removed():
    session = onnxprune.pruning_session(normalized(dropout=True), 10, rate=0.75, schedule="one-shot")
    (ratio,) = dropouts(session)
    kept = np.count_nonzero(initializer(session.finish(), "w")) / 135
    assert ratio == pytest.approx(0.5 * kept**0.5)
    inputs = torch.from_numpy(DATA["x"])
    assert not torch.equal(session.module.train()(inputs)[0], session.module(inputs)[0])
    assert torch.equal(session.module.eval()(inputs)[0], session.module(inputs)[0])


def test_dropout_can_be_added_after_a_layer_and_is_not_in_the_file():
    session = onnxprune.pruning_session(mlp(), 10, rate=0.75, schedule="one-shot", dropout="fc1=0.4")
    assert dropouts(session) == pytest.approx([0.2])
    assert "relu" in session.module.code and session.module.code.index("relu") < session.module.code.index(
        "dropout_0"
    )
    assert session.finish().graph.node == mlp().graph.node


def test_masks_hold_in_every_mode_of_batch_normalization():
    for batch_norm in ("re-estimate", "train"):
        model = fine_tuned(batch_norm, clip_norm=1.0)
        assert np.count_nonzero(initializer(model, "w")) == 135 - round(0.5 * 135)
