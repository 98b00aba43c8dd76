"""Fine-tuning with norms put back."""

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import onnxprune
from onnxprune.errors import NotFiniteError, SettingError
from tests.builders import initializer
from tests.training.folded import images, residual, score, without_numbers
from tests.training.networks import Bert, exported


def job(proto=None, **settings):
    return onnxprune.prune(
        residual() if proto is None else proto,
        **{
            "rate": 0.8,
            "data": images(),
            "epochs": 2,
            "batch_size": 32,
            "schedule": "gradual",
            "optimizer": "sgd",
            "learning_rate": 0.05,
            "warmup": 0,
            "distill": 0.0,
            "mixup": False,
            "format": "dense",
            "remove_dead": False,
            "restore_norms": "always",
        }
        | settings,
    ).model


def zeros(model, names):
    return {name: initializer(model, name) == 0 for name in names}


WEIGHTS = [name for name in ir.from_proto(residual()).graph.initializers if name.endswith("weight")]


def test_the_trained_model_has_the_structure_of_the_given_one_and_exactly_the_rate():
    proto = residual()
    model = job(proto)
    assert without_numbers(model).graph.node == proto.graph.node
    assert [tensor.name for tensor in model.graph.initializer] == [
        tensor.name for tensor in proto.graph.initializer
    ]
    assert model.opset_import == proto.opset_import
    for name in WEIGHTS:
        size = initializer(proto, name).size
        assert np.count_nonzero(initializer(model, name)) == size - round(0.8 * size)
    changed = initializer(model, "stem.bias") != initializer(proto, "stem.bias")
    assert changed.all()


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "prune-and-regrow"},
        {"schedule": "rigl"},
        {"schedule": "ac-dc", "steps": 2},
        {"schedule": "gradual", "criterion": "movement"},
        {"schedule": "iterative", "steps": 2, "criterion": "second-order"},
        {"schedule": "iterative", "steps": 2, "criterion": "wanda", "bias_correction": True},
        {"criterion": "taylor", "clip_norm": 1.0, "optimizer": "adam", "learning_rate": 1e-3},
        {"batch_norm": "re-estimate", "precision": "bfloat16"},
    ],
)
def test_masks_hold_in_every_schedule_and_criterion(settings):
    model = job(**settings)
    kept = sum(int(np.count_nonzero(initializer(model, name))) for name in WEIGHTS)
    size = sum(initializer(model, name).size for name in WEIGHTS)
    # Weights without a gradient have no importance for taylor, so more go.
    assert kept / size == pytest.approx(0.2, abs=0.02)
    assert all(np.isfinite(initializer(model, name)).all() for name in WEIGHTS)


def test_channels_are_removed():
    model = job(pattern="channel", rate=0.4, remove_dead=True)
    before = sum(initializer(residual(), name).size for name in WEIGHTS)
    assert sum(initializer(model, name).size for name in WEIGHTS) < 0.75 * before
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_retraining_keeps_the_zeros_and_regrowth_their_number():
    pruned = job()
    settings = {"data": images(seed=7), "epochs": 1, "batch_size": 32, "restore_norms": "always"}
    again = onnxprune.retrain(pruned, format="dense", remove_dead=False, **settings).model
    regrown = onnxprune.retrain(
        pruned, format="dense", remove_dead=False, regrow=True, optimizer="sgd", learning_rate=0.1, **settings
    ).model
    before = zeros(pruned, WEIGHTS)
    for name in WEIGHTS:
        assert (zeros(again, WEIGHTS)[name] == before[name]).all()
        assert zeros(regrown, WEIGHTS)[name].sum() == before[name].sum()
        assert (initializer(again, name) != initializer(pruned, name)).any()


def test_a_network_with_norms_back_trains_where_the_folded_one_does_not():
    """One threshold for all weights, over filters that folding has scaled by up to 30."""
    proto = residual(scales=30)
    settings = {"allocation": "global", "rate": 0.7, "epochs": 4, "data": images(1500)}
    with pytest.raises(NotFiniteError, match="the training diverged"):
        job(proto, restore_norms="never", **settings)
    adam = score(job(proto, restore_norms="never", optimizer="adam", learning_rate=1e-3, **settings))
    restored = score(job(proto, restore_norms="always", **settings))
    assert restored > max(adam + 0.1, 0.8)


def test_a_stopped_job_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    settings = {"checkpoint": tmp_path / "state", "checkpoint_minutes": 0}
    straight = job()
    from onnxprune.training.fine_tuning import FineTuner

    count, update = 0, FineTuner._update

    def stopping(self, *arguments):
        nonlocal count
        count += 1
        if count == 15:
            raise KeyboardInterrupt
        return update(self, *arguments)

    monkeypatch.setattr(FineTuner, "_update", stopping)
    with pytest.raises(KeyboardInterrupt):
        job(**settings)
    monkeypatch.undo()
    assert torch.load(tmp_path / "state", weights_only=True)["session"]["updates"] == 14
    resumed = job(**settings, resume=True)
    for tensor in straight.graph.initializer:
        assert initializer(resumed, tensor.name).tobytes() == initializer(straight, tensor.name).tobytes()


def test_never_and_auto_with_few_samples_train_the_network_as_it_is():
    bytes_of = {how: job(restore_norms=how).SerializeToString() for how in ("never", "auto", "always")}
    weights = {
        how: initializer(onnx.ModelProto.FromString(data), "stem.weight") for how, data in bytes_of.items()
    }
    assert (weights["never"] == weights["auto"]).all()
    assert (weights["never"] != weights["always"]).any()


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (lambda: exported(Bert(), torch.zeros(1, 16, dtype=torch.int64), dynamo=False), {}, "finds no layer"),
        (residual, {"batch_size": 1}, "a batch has one sample"),
    ],
)
def test_what_cannot_be_restored_is_refused(make, settings, message):
    data = {"x": np.zeros((40, 16), np.int64)} if make is not residual else images(40)
    with pytest.raises(SettingError, match=message):
        job(make(), data=data, **{"mixup": False, "distill": None} | settings)


def test_a_session_of_ones_own_has_no_data_for_norms():
    with pytest.raises(SettingError, match="no data to measure norms on"):
        onnxprune.pruning_session(residual(), 10, rate=0.5, restore_norms="always")


SCRIPT = "import sys; from onnxprune.cli import main; main(sys.argv[1:])"


def test_two_processes_share_the_statistics(tmp_path):
    onnx.save(residual(), tmp_path / "in.onnx")
    data = images()
    np.savez(tmp_path / "data.npz", **data)
    (tmp_path / "job.py").write_text(SCRIPT)
    flags = "--rate 0.5 --data data.npz --epochs 4 --batch-size 32 --format dense --restore-norms always --no-mixup"
    flags += " --optimizer sgd --learning-rate 0.05 --distill 0 --schedule gradual --warmup 0"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "job.py"]
    command = [*torchrun, "in.onnx", "out.onnx", *flags.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model = onnx.load(tmp_path / "out.onnx")
    assert model.graph.node == residual().graph.node
    assert score(model) > 0.8
