from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.config.settings import PruneConfig
from onnxprune.config.training import SCHEDULES
from onnxprune.data.dataset import Dataset
from onnxprune.data.specs import input_specs
from onnxprune.errors import DataError
from onnxprune.evaluation.runs import check_runs
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.fine_tune import prune_and_fine_tune
from onnxprune.job.pruners.pruner import make_pruner
from onnxprune.job.samples.inputs import JobData
from onnxprune.model.weights import find_weights
from tests.builders import cnn, floats, initializer, mlp, model_of, normal

CLASSES = 4


def blobs(samples: int, width: int = 8, seed: int = 0) -> Dataset:
    """Points around one center a class: what a small network learns in a few steps."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(1).standard_normal((CLASSES, width)) * 2
    labels = rng.integers(0, CLASSES, samples)
    points = centers[labels] + rng.standard_normal((samples, width))
    return Dataset.of({"x": points.astype(np.float32)}, labels, "blobs")


def unlabeled(data: Dataset) -> Dataset:
    return Dataset.of(data.read().inputs, None, data.name)


class Job:
    """A model, pruned and fine-tuned; `history` holds a record of every state that was evaluated."""

    def __init__(self, proto, data, **settings):
        self.config = PruneConfig(
            **{
                "rate": 0.8,
                "allocation": "uniform",
                "schedule": "one-shot",
                "optimizer": "adam",
                "warmup": 100,
                "batch_norm": "frozen",
                "mixup": True,
                "precision": "float32",
                "epochs": 10,
                "batch_size": 32,
                "learning_rate": 1e-2,
                "weight_decay": 1e-4,
                "data": "blobs",
            }
            | settings
        )
        self.model = ir.from_proto(proto)
        self.weights = find_weights(self.model).prunable
        self.before = {weight.name: weight.array().copy() for weight in self.weights}
        specs = input_specs(self.model)
        training, validation = check_runs(make_session(proto, "a model"), data).split(0.1, seed=0)
        data = JobData(specs, training, validation, validation, None, None)
        pruner = make_pruner(self.model, self.weights, self.config)
        self.history = [
            SimpleNamespace(**record)
            for record in prune_and_fine_tune(
                self.model, pruner, data, self.config, lambda fraction: None
            ).epochs
        ]

    def array(self, name):
        return next(weight.array() for weight in self.weights if weight.name == name)


@pytest.mark.parametrize("schedule", SCHEDULES[1:])  # the first is auto
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_every_schedule_trains_to_exactly_the_rate(schedule, allocation):
    job = Job(mlp(), blobs(356), schedule=schedule, allocation=allocation)
    sizes = [weight.size for weight in job.weights]
    kept = [weight.nonzero() for weight in job.weights]
    if allocation == "global":
        assert sum(kept) == sum(sizes) - round(0.8 * sum(sizes))
    else:
        assert kept == [size - round(0.8 * size) for size in sizes]
    for weight in job.weights:
        stayed = weight.array() != 0
        assert (weight.array()[stayed] != job.before[weight.name][stayed]).mean() > 0.5
    assert job.history[-1].epoch == 10
    assert min(epoch.loss for epoch in job.history) < job.history[0].loss


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("regularization", ["l1", "l2", "none"])
def test_masks_hold_under_every_optimizer_and_regularization(optimizer, regularization):
    settings = {"optimizer": optimizer, "regularization": regularization, "weight_decay": 1e-2}
    job = Job(mlp(), blobs(356), clip_norm=1.0, learning_rate_schedule="step", **settings)
    for weight in job.weights:
        order = np.abs(job.before[weight.name]).ravel().argsort()
        assert (weight.array().ravel()[order[: round(0.8 * weight.size)]] == 0).all()
        assert (weight.array().ravel()[order[round(0.8 * weight.size) :]] != 0).all()


def test_excluded_weights_are_all_trained():
    job = Job(mlp(), blobs(356), exclude=("fc2",))
    assert (job.array("fc2.weight") != job.before["fc2.weight"]).all()


def test_zeros_of_the_input_model_stay_zero_on_every_schedule():
    proto = mlp()
    weight = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weight[:4] = 0
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "fc1.weight"))
    for schedule in ("gradual", "prune-and-regrow", "rigl", "ac-dc"):
        job = Job(proto, blobs(356), schedule=schedule, rate=0.5)
        assert (job.array("fc1.weight")[:4] == 0).all()
        assert np.count_nonzero(job.array("fc1.weight")) == weight.size // 2


def test_alternating_families_are_pruned_to_the_rate_in_all():
    rng = np.random.default_rng(0)
    images = Dataset.of({"x": rng.random((60, 1, 8, 8), dtype=np.float32)}, rng.integers(0, 4, 60), "images")
    job = Job(
        cnn(),
        images,
        schedule="iterative",
        alternate=True,
        steps=3,
        epochs=6,
        batch_size=8,
        allocation="global",
    )
    size = sum(weight.size for weight in job.weights)
    assert sum(weight.nonzero() for weight in job.weights) == size - round(0.8 * size)
    assert max(record.step for record in job.history) == 6


def test_fine_tuning_lowers_the_validation_loss_with_labels_and_without():
    for data in (blobs(600), unlabeled(blobs(600))):
        history = Job(mlp(), data).history
        assert min(epoch.loss for epoch in history) < 0.7 * history[0].loss


def test_the_state_kept_is_the_best_on_validation_data():
    job = Job(mlp(), blobs(356), learning_rate=3.0, mixup=False)
    again = Job(ir.to_proto(job.model), blobs(356), mixup=False, epochs=1, distill=0.0)
    best = max(job.history, key=lambda epoch: (epoch.score, -epoch.loss))
    assert best.score > job.history[-1].score
    assert again.history[0].score == best.score


def test_the_same_seed_gives_the_same_weights():
    arrays = [Job(mlp(), blobs(356), seed=seed).array("fc1.weight") for seed in (0, 0, 1)]
    assert (arrays[0] == arrays[1]).all() and (arrays[0] != arrays[2]).any()


def test_names_types_and_structure_of_the_onnx_graph_stay():
    proto = cnn()
    rng = np.random.default_rng(0)
    images = Dataset.of({"x": rng.random((60, 1, 8, 8), dtype=np.float32)}, rng.integers(0, 4, 60), "images")
    job = Job(proto, images, epochs=2)
    after = ir.to_proto(job.model)
    assert after.graph.node == proto.graph.node
    assert {(t.name, t.data_type, tuple(t.dims)) for t in after.graph.initializer} == {
        (t.name, t.data_type, tuple(t.dims)) for t in proto.graph.initializer
    }


def test_float16_weights_are_trained_and_come_back_as_float16():
    proto = mlp()
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    data = blobs(300)
    data = Dataset.of({"x": data.read().inputs["x"].astype(np.float16)}, data.read().labels[""], "half")
    job = Job(proto, data)
    assert job.history[-1].loss < job.history[0].loss
    assert job.array("fc1.weight").dtype == np.float16
    assert np.count_nonzero(job.array("fc1.weight")) == 128 - round(0.8 * 128)


def test_a_part_of_the_loss_without_a_target_is_refused():
    with pytest.raises(
        DataError, match=r"--distill 0\.5 needs labels for the rest of the loss, and --data has none"
    ):
        Job(mlp(), unlabeled(blobs(100)), distill=0.5)


def test_float_labels_are_regression_targets():
    data = blobs(400)
    targets = np.tanh(data.read().inputs["x"][:, :CLASSES])
    job = Job(mlp(), Dataset.of(data.read().inputs, targets, "targets"), distill=0.0, mixup=False, rate=0.3)
    last = job.history[-1]
    assert last.score == pytest.approx(last.loss) and last.loss < 0.5 * job.history[0].loss


def test_a_model_with_a_three_dimensional_convolution_is_trained():
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "c1", pads=[1] * 6),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["y"], "fc"),
    ]
    weights = {"w1": normal(8, 1, 3, 3, 3), "w2": normal(8, 3)}
    model = model_of(nodes, [floats("x", "N", 1, 4, 6, 6)], [floats("y", "N", 3)], weights)
    data = {"x": normal(64, 1, 4, 6, 6), "labels": np.arange(64) % 3}
    result = onnxprune.prune(model, rate=0.5, data=data, epochs=2, format="dense", remove_dead=False)
    after = initializer(result.model, "w1")
    kept = after != 0
    assert not kept.all() and not np.array_equal(after[kept], weights["w1"][kept])


def test_a_weight_that_is_an_output_too_is_trained():
    model = mlp()
    model.graph.output.append(floats("fc1.weight", 16, 8))
    data = {"x": normal(16, 8), "labels": np.arange(16) % 4}
    trained = onnxprune.prune(model, rate=0.5, data=data, epochs=1).model
    _, weight = make_session(trained, "a test model").run(None, {"x": data["x"]})
    assert np.count_nonzero(weight) == 64
