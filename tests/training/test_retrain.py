import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper

from onnxprune.config import PruneConfig
from onnxprune.data import Dataset, input_specs
from onnxprune.errors import DataError
from onnxprune.model.weights import find_weights
from onnxprune.pruning.allocation import allocate
from onnxprune.pruning.masks import apply_masks, make_masks
from onnxprune.training.retrain import Retrainer
from tests.builders import cnn, mlp

CLASSES = 4


def blobs(samples: int, width: int = 8, seed: int = 0) -> Dataset:
    """Points around one centre a class: what a small network learns in a few steps."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((CLASSES, width)) * 2
    labels = rng.integers(0, CLASSES, samples)
    points = centres[labels] + rng.standard_normal((samples, width))
    return Dataset({"x": points.astype(np.float32)}, labels, "blobs")


def unlabelled(data: Dataset) -> Dataset:
    return Dataset(data.inputs, None, data.name)


class Job:
    """A model, pruned once, and its retrainer."""

    def __init__(self, proto, data, **settings):
        self.config = PruneConfig(
            **{"rate": 0.8, "epochs": 10, "batch_size": 32, "learning_rate": 1e-2} | settings
        )
        self.model = ir.from_proto(proto)
        training, held_out = data.split(0.1, seed=0)
        self.retrainer = Retrainer(self.model, training, held_out, input_specs(self.model), self.config)
        self.weights = find_weights(self.model).prunable
        self.masks = make_masks(allocate(self.weights, self.config))
        apply_masks(self.weights, self.masks)

    def fit(self, until=1.0):
        masks = {
            weight.value: self.masks[weight.name] for weight in self.weights if weight.name in self.masks
        }
        return self.retrainer.fit(masks, until)


@pytest.mark.parametrize("regularization", ["l1", "l2", "none"])
def test_masks_hold_exactly_after_100_optimiser_steps(regularization):
    job = Job(mlp(), blobs(356), regularization=regularization, weight_decay=1e-2)
    before = {weight.name: weight.array().copy() for weight in job.weights}
    job.fit()
    assert job.retrainer.updates == 100
    for weight in job.weights:
        kept = job.masks[weight.name]
        assert (weight.array()[~kept] == 0).all()
        assert (weight.array()[kept] != before[weight.name][kept]).mean() > 0.5


def test_weights_outside_the_masks_are_trained_freely():
    job = Job(mlp(), blobs(356), exclude=("fc2",))
    before = job.weights[1].array().copy()
    job.fit()
    assert "fc2.weight" not in job.masks and (job.weights[1].array() != before).all()


def test_retraining_makes_the_held_out_loss_smaller_with_labels_and_without():
    for data in (blobs(600), unlabelled(blobs(600))):
        history = Job(mlp(), data).fit()
        assert min(epoch.loss for epoch in history) < 0.7 * history[0].loss


def test_the_state_kept_is_the_best_on_held_out_data():
    job = Job(mlp(), blobs(356), learning_rate=3.0, mixup=False)
    history = job.fit()
    best = history[0]
    for epoch in history:
        best = epoch if epoch.better_than(best) else best
    assert job.fit(until=0)[0].loss == pytest.approx(best.loss)


def test_the_same_seed_gives_the_same_weights():
    arrays = []
    for seed in (0, 0, 1):
        job = Job(mlp(), blobs(356), seed=seed)
        job.fit()
        arrays.append(job.weights[0].array())
    assert (arrays[0] == arrays[1]).all() and (arrays[0] != arrays[2]).any()


def test_names_types_and_structure_of_the_onnx_graph_stay():
    proto = cnn()
    rng = np.random.default_rng(0)
    images = Dataset({"x": rng.random((60, 1, 8, 8), dtype=np.float32)}, rng.integers(0, 4, 60), "images")
    job = Job(proto, images, epochs=2)
    job.fit()
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
    data = Dataset({"x": data.inputs["x"].astype(np.float16)}, data.labels, "half")
    job = Job(proto, data)
    history = job.fit()
    assert history[-1].loss < history[0].loss
    assert job.weights[0].array().dtype == np.float16
    assert (job.weights[0].array()[~job.masks["fc1.weight"]] == 0).all()


def test_a_part_of_the_loss_without_a_target_is_refused():
    with pytest.raises(DataError, match="--distill"):
        Job(mlp(), unlabelled(blobs(100)), distill=0.5)


def test_float_labels_are_learned_as_targets():
    data = blobs(400)
    targets = np.tanh(data.inputs["x"][:, :CLASSES])
    job = Job(mlp(), Dataset(data.inputs, targets, "targets"), distill=0.0, mixup=False, rate=0.3)
    history = job.fit()
    assert history[-1].accuracy is None and history[-1].loss < 0.5 * history[0].loss
