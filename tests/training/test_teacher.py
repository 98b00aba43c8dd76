"""The teacher's outputs: of the folded network, and kept where inputs come again."""

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import onnxprune
from onnxprune import cli
from onnxprune.config.settings import PruneConfig
from onnxprune.data.images.augment import Augmentation
from onnxprune.data.request import Request
from onnxprune.data.sources import load_data
from onnxprune.data.specs import input_specs
from onnxprune.job.pruners.pruner import make_pruner
from onnxprune.model.weights import find_weights
from onnxprune.pruning.schedule import make_schedule
from onnxprune.training import teacher as teachers
from onnxprune.training.distributed import Processes
from onnxprune.training.feed import Feed
from onnxprune.training.module.norms import restore_norms
from onnxprune.training.precision import Precision
from onnxprune.training.samples import mix, random
from onnxprune.training.session import PruningSession
from onnxprune.training.teacher import KeptInOrder, Teacher, teacher_module
from tests.builders import initializer, mlp
from tests.training.folded import images, outputs, residual
from tests.training.test_feed import Items, Stream
from tests.training.test_feed import feed as small_feed

ALONE = Processes(1, 0, torch.device("cpu"))


class Counting(Teacher):
    """A teacher that counts the samples that its module has seen."""

    seen = 0

    def __init__(self, module, precision):
        super().__init__(module, precision)
        module.register_forward_pre_hook(self._count)

    def _count(self, module, inputs):
        self.seen += len(inputs[0])


def teacher_of(module):
    return Counting(module, Precision("float32", torch.device("cpu")))


def feed_of(source, **settings):
    specs = input_specs(ir.from_proto(residual()))
    return Feed(load_data(source, Request(specs)), specs, 32, 0, **settings)


def folded():
    return onnxprune.to_torch(residual())


def test_outputs_of_training_samples_are_computed_once_and_given_by_number():
    feed, teacher, fresh = feed_of(images(300)), teacher_of(folded()), folded().eval()
    teacher.keep(feed, ALONE)
    assert teacher.seen == 300
    for (samples,) in feed.from_update(0, 20):
        with torch.no_grad():
            torch.testing.assert_close(teacher(samples), fresh(*samples.inputs), rtol=1e-5, atol=1e-5)
    assert teacher.seen == 300


def test_mixed_samples_and_those_of_other_data_are_computed():
    feed, teacher, fresh = feed_of(images(300)), teacher_of(folded()), folded().eval()
    teacher.keep(feed, ALONE)
    mixed = mix(next(feed.from_update(0, 1))[0], random(0))
    with torch.no_grad():
        assert torch.equal(teacher(mixed)[0], fresh(*mixed.inputs)[0])
    assert teacher.seen == 332


@pytest.mark.parametrize(
    "feed",
    [
        lambda: feed_of(images(300), augmentation=Augmentation.parse("flip"), workers=0),
        lambda: small_feed(Items(), workers=0),
        lambda: small_feed(Stream(), workers=0),
    ],
    ids=["augmented", "a dataset in Python", "a stream"],
)
def test_inputs_that_may_change_have_no_kept_outputs(feed):
    made, teacher = feed(), teacher_of(torch.nn.Flatten())
    teacher.keep(made, ALONE)
    assert teacher.seen == 0
    assert all(samples.numbers is None for (samples,) in made.from_update(0, 3))


def test_large_outputs_are_not_kept(monkeypatch):
    monkeypatch.setattr(teachers, "KEPT_BYTES", 4 * 4 * 300 - 1)
    feed, teacher = feed_of(images(300)), teacher_of(folded())
    teacher.keep(feed, ALONE)
    before = teacher.seen
    teacher(next(feed.from_update(0, 1))[0])
    assert teacher.seen == before + 32


def test_validation_outputs_are_kept_in_order_while_they_fit(monkeypatch):
    monkeypatch.setattr(teachers, "KEPT_BYTES", 2 * 32 * 4 * 4)
    teacher, batches = (
        teacher_of(folded()),
        [samples for (samples,) in feed_of(images(300)).from_update(0, 4)],
    )
    kept, changing = KeptInOrder(repeats=True), KeptInOrder(repeats=False)
    first = [kept.outputs(number, samples, teacher) for number, samples in enumerate(batches)]
    assert teacher.seen == 4 * 32
    again = [kept.outputs(number, samples, teacher) for number, samples in enumerate(batches)]
    assert teacher.seen == 6 * 32
    assert all(torch.equal(one[0], two[0]) for one, two in zip(first, again, strict=True))
    for _ in range(2):
        changing.outputs(0, batches[0], teacher)
    assert teacher.seen == 8 * 32


@pytest.mark.parametrize("selectors", [(), ("b1", "stem", "b0.conv1"), ("auto",)])
def test_the_teacher_of_restored_norms_is_the_folded_network(selectors):
    model = ir.from_proto(residual())
    restore_norms(model)
    config = PruneConfig(rate=0.5, allocation="uniform", schedule="iterative", distill_features=selectors)
    pruner = make_pruner(model, find_weights(model).prunable, config)
    session = PruningSession(model, pruner, make_schedule(config, 10), config)
    teacher = teacher_module(session, config).eval()
    names = [str(node.target) for node in teacher.graph.nodes]
    assert not any("batch_norm" in name for name in names)
    x = torch.from_numpy(images(8)["x"])
    with torch.no_grad():
        found, expected = teacher(x), session.module.eval()(x)
    assert len(found) == 1 + len(selectors)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[0].numpy(), outputs(residual(), x.numpy()), rtol=1e-4, atol=1e-4)
    assert any(node.op_type == "BatchNormalization" for node in session.model.graph)


def test_a_job_has_the_same_weights_with_and_without_kept_outputs(monkeypatch):
    settings = {"rate": 0.8, "epochs": 3, "batch_size": 32, "mixup": False, "format": "dense"}
    settings |= {"data": images(), "schedule": "gradual", "distill": 0.7, "optimizer": "sgd"}
    kept = onnxprune.prune(residual(), **settings).model
    monkeypatch.setattr(teachers, "KEPT_BYTES", 0)
    computed = onnxprune.prune(residual(), **settings).model
    for tensor in kept.graph.initializer:
        one, two = initializer(kept, tensor.name), initializer(computed, tensor.name)
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


SCRIPT = "import sys; from onnxprune.cli import main; main(sys.argv[1:])"


def test_two_processes_share_kept_outputs_and_average_the_same_weights(tmp_path, monkeypatch):
    onnx.save(mlp(), tmp_path / "in.onnx")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    x = rng.random((200, 8), dtype=np.float32) + labels[:, None] / 2
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    (tmp_path / "job.py").write_text(SCRIPT)
    flags = (
        "--rate 0.8 --data data.npz --epochs 6 --batch-size 30 --format dense --schedule gradual --no-mixup "
        "--allocation uniform"
    )
    command = [
        "in.onnx",
        "out.onnx",
        *flags.split(),
        "--average",
        "ema",
        "--learning-rate-schedule",
        "constant",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "job.py"]
    done = subprocess.run([*torchrun, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    two = onnx.load(tmp_path / "out.onnx")
    monkeypatch.chdir(tmp_path)
    cli.main(["in.onnx", "one.onnx", *command[2:]])
    one = onnx.load("one.onnx")
    for tensor in one.graph.initializer:
        first, second = initializer(one, tensor.name), initializer(two, tensor.name)
        assert ((first != 0) == (second != 0)).all()
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-5)
