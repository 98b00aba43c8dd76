"""A user's own training loop around a pruning session."""

import io
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from torch.nn import functional as F

import onnxprune
from onnxprune.config.training import SCHEDULES
from onnxprune.errors import SettingError
from tests.builders import cnn, floats, initializer, mlp, model_of, normal

UPDATES = 40
RATE = 0.75


def blobs(samples=160):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, samples)
    points = np.random.default_rng(1).standard_normal((4, 8))[labels] * 2 + rng.standard_normal((samples, 8))
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels)


def train(session, updates, optimizer=None):
    """What a user writes: his own loop, and one line of ours in it."""
    inputs, labels = blobs()
    optimizer = optimizer or torch.optim.Adam(session.module.parameters(), lr=1e-2)
    for _ in range(updates):
        loss = F.cross_entropy(session.module(inputs)[0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        session.step()
    return optimizer


def kept(model):
    return {name: np.count_nonzero(initializer(model, name)) for name in ("fc1.weight", "fc2.weight")}


def error(model):
    inputs, labels = blobs()
    (logits,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": inputs.numpy()})
    return (logits.argmax(1) != labels.numpy()).mean()


def one_shot():
    return onnxprune.prune(mlp(), rate=RATE, format="dense", remove_dead=False).model


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_plain_loop_prunes_to_exactly_the_rate_and_learns(schedule):
    session = onnxprune.pruning_session(mlp(), UPDATES, rate=RATE, schedule=schedule)
    train(session, UPDATES)
    model = session.finish()
    assert kept(model) == {"fc1.weight": 32, "fc2.weight": 16}
    assert error(model) < error(one_shot())
    onnx.checker.check_model(model, full_check=True)


def test_a_model_from_a_file_comes_back_whole(tmp_path):
    table = helper.make_node("Gather", ["table", "ids"], ["x"])
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["N"])
    weights = {"table": normal(4096, 8), "w": normal(8, 4, seed=1)}
    model = model_of([table, product], [ids], [floats("y", "N", 4)], weights)
    onnx.save(model, tmp_path / "in.onnx")
    back = onnxprune.pruning_session(tmp_path / "in.onnx", 1, rate=RATE).finish()
    ort.InferenceSession(back.SerializeToString())
    np.testing.assert_array_equal(initializer(back, "table"), weights["table"])


def test_a_loop_that_stops_early_still_gets_the_rate():
    session = onnxprune.pruning_session(mlp(), UPDATES, rate=RATE, schedule="gradual")
    train(session, 5)
    assert sum(kept(session.finish()).values()) == 48


def test_the_callback_of_a_trainer_needs_one_line():
    lightning = pytest.importorskip("lightning.pytorch")

    class Pruning(lightning.Callback):
        def __init__(self, session):
            self.session = session

        def on_train_batch_end(self, *_):
            self.session.step()

    class Classifier(lightning.LightningModule):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def training_step(self, batch, _):
            inputs, labels = batch
            return F.cross_entropy(self.network(inputs)[0], labels)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    session = onnxprune.pruning_session(mlp(), UPDATES, rate=RATE, schedule="gradual")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*blobs()), batch_size=16)
    trainer = lightning.Trainer(
        max_steps=UPDATES,
        accelerator="cpu",
        callbacks=[Pruning(session)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(session.module), loader)
    model = session.finish()
    assert session.updates == UPDATES and kept(model) == {"fc1.weight": 32, "fc2.weight": 16}
    assert error(model) < error(one_shot())


def test_the_hugging_face_trainer_needs_one_line(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Pruning(transformers.TrainerCallback):
        def __init__(self, session):
            self.session = session

        def on_step_end(self, args, state, control, **_):
            self.session.step()

    class Classifier(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x, labels):
            logits = self.network(x)[0]
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    session = onnxprune.pruning_session(mlp(), UPDATES, rate=RATE, schedule="gradual")
    rows = [{"x": x, "labels": label} for x, label in zip(*blobs(), strict=True)]
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=UPDATES,
        per_device_train_batch_size=16,
        learning_rate=1e-2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    transformers.Trainer(
        Classifier(session.module), arguments, train_dataset=rows, callbacks=[Pruning(session)]
    ).train()
    model = session.finish()
    assert session.updates == UPDATES and kept(model) == {"fc1.weight": 32, "fc2.weight": 16}


@pytest.mark.parametrize("schedule", ["gradual", "prune-and-regrow", "rigl", "ac-dc"])
def test_a_session_resumes_from_its_state_to_the_undisturbed_result(schedule):
    settings = {"rate": RATE, "schedule": schedule}
    straight = onnxprune.pruning_session(mlp(), UPDATES, **settings)
    train(straight, UPDATES)
    first = onnxprune.pruning_session(mlp(), UPDATES, **settings)
    optimizer = train(first, 15)
    file = io.BytesIO()
    torch.save({"session": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = onnxprune.pruning_session(mlp(seed=9), UPDATES, **settings)
    second.load_state_dict(state["session"])
    optimizer = torch.optim.Adam(second.module.parameters(), lr=1e-2)
    optimizer.load_state_dict(state["optimizer"])
    train(second, UPDATES - 15, optimizer)
    assert second.finish() == straight.finish()


def test_masks_are_buffers_and_survive_saving_the_whole_module():
    session = onnxprune.pruning_session(mlp(), UPDATES, rate=RATE, schedule="one-shot")
    file = io.BytesIO()
    torch.save(session.module, file)
    file.seek(0)
    state = torch.load(file, weights_only=False).state_dict()
    assert state["fc1.weight_mask"].sum() == 32
    assert (state["fc1.weight"][~state["fc1.weight_mask"]] == 0).all()


@pytest.mark.parametrize(("schedule", "returns"), [("prune-and-regrow", True), ("gradual", False)])
def test_a_small_weight_that_the_loss_needs_regrows_only_with_prune_and_regrow(schedule, returns):
    weight = np.array([[0.01], [0.5], [0.5], [0.5]], np.float32)
    product = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    model = model_of([product], [floats("x", "N", 4)], [floats("y", "N", 1)], {"w": weight})
    session = onnxprune.pruning_session(model, 200, rate=0.5, schedule=schedule, steps=1, pruning_end=0.01)
    optimizer = torch.optim.SGD(session.module.parameters(), lr=0.002)
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(200):
        optimizer.zero_grad()
        F.mse_loss(session.module(inputs)[0], 3 * inputs[:, :1]).backward()
        optimizer.step()
        session.step()
    result = initializer(session.finish(), "w")
    assert np.count_nonzero(result) == 2
    assert (result[0] != 0) == returns


def test_settings_that_need_the_training_loop_of_prune_are_refused():
    with pytest.raises(SettingError, match="a session has no data for criterion taylor: use magnitude"):
        onnxprune.pruning_session(mlp(), 1, rate=0.5, pattern="channel", criterion="taylor", data={})
    with pytest.raises(SettingError, match="a session prunes to one rate: give rate"):
        onnxprune.pruning_session(mlp(), 1, max_drop=0.1, data={})
    for settings in ({"flops": 0.5, "pattern": "channel"}, {"flops": 0.5}, {"bytes": 1000}):
        with pytest.raises(
            SettingError, match="can also search for the rate and reach flops, latency or bytes"
        ):
            onnxprune.pruning_session(mlp(), 1, **settings)
    with pytest.raises(SettingError, match="updates is 0: it must be 1 or more"):
        onnxprune.pruning_session(mlp(), 0, rate=0.5)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, onnxprune; onnxprune.PruneConfig; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_alternating_steps_leave_the_layers_of_the_other_family_fixed():
    session = onnxprune.pruning_session(
        cnn(), 8, rate=0.5, schedule="iterative", alternate=True, steps=2, pruning_end=0.999
    )
    optimizer = torch.optim.Adam(session.module.parameters(), lr=1e-2)
    inputs = torch.from_numpy(np.random.default_rng(0).random((16, 1, 8, 8), dtype=np.float32))
    moved = []
    for _ in range(6):
        before = {name: parameter.clone() for name, parameter in session.module.named_parameters()}
        optimizer.zero_grad()
        session.module(inputs)[0].square().mean().backward()
        optimizer.step()
        session.advance()
        after = dict(session.module.named_parameters())
        moved.append(
            tuple(
                not torch.equal(before[f"{name}.weight"], after[f"{name}.weight"]) for name in ("conv2", "fc")
            )
        )
        session.prune_if_due()
    assert moved == [(True, False)] * 2 + [(False, True)] * 2 + [(True, False)] * 2
