"""Which weights the schedules rigl and ac-dc and the criterion movement remove and let return."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper
from torch.nn import functional as F

import onnxprune
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import OnnxPruneError, SettingError
from onnxprune.job.pruners.pruner import make_pruner
from onnxprune.model.weights import find_weights
from onnxprune.pruning.criteria import CRITERIA
from onnxprune.pruning.schedule import PruningStep, Schedule
from onnxprune.surgery import unit_groups
from onnxprune.training.session import PruningSession
from tests.builders import floats, initializer, mlp, model_of, normal

ZEROS_IN_PLACE = {"format": "dense", "remove_dead": False}


def product(weights):
    """x [N, n] -> MatMul with w [n, 1] -> y [N, 1]: with the loss mean(g @ x'), dL/dw is g."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    return model_of(
        [node], [floats("x", "N", len(weights))], [floats("y", "N", 1)], {"w": np.array(weights)[:, None]}
    )


def session_of(proto, *steps, rate=0.5, criterion="magnitude"):
    model = ir.from_proto(proto)
    config = PruneConfig(rate=rate, criterion=criterion)
    pruner = make_pruner(model, find_weights(model).prunable, config)
    session = PruningSession(model, pruner, Schedule(steps), config)
    session.start()
    return session


def column(session, name="w"):
    return session.module.state_dict()[name].flatten().tolist()


def backward(session, gradients):
    session.module.zero_grad()
    session.module(torch.tensor([gradients]))[0].sum().backward()


@pytest.fixture
def exchanging():
    """Of 8 weights, 0.5 to 0.8 are kept; after one update the smaller half of them is exchanged."""
    proto = product(np.array([0.1, 0.2, 0.3, 0.0, 0.5, 0.6, -0.7, 0.8], np.float32))
    session = session_of(proto, PruningStep(0, 1.0), PruningStep(1, 1.0, kind="exchange", share=0.5))
    assert column(session, "w_mask") == [False] * 4 + [True] * 4
    return session


def test_rigl_exchanges_the_smallest_weights_for_those_with_the_largest_gradients(exchanging):
    optimizer = torch.optim.Adam(exchanging.module.parameters(), lr=0.0)
    # w[3] was zero at the start, and stays so in spite of its gradient.
    backward(exchanging, [-3.0, 0.1, 2.0, 9.0, 0.2, 0.3, 0.0, 0.0])
    optimizer.step()
    exchanging.step(optimizer)
    assert column(exchanging, "w_mask") == [True, False, True, False, False, False, True, True]
    np.testing.assert_array_equal(column(exchanging), np.float32([0, 0, 0, 0, 0, 0, -0.7, 0.8]))
    (state,) = optimizer.state.values()
    # Adam's mean of gradients; only that of weights that return is forgotten.
    assert state["exp_avg"].flatten().tolist() == pytest.approx([0, 0.01, 0, 0.9, 0.02, 0.03, 0, 0])


def test_a_weight_that_rigl_would_remove_stays_if_its_gradient_is_among_the_largest(exchanging):
    backward(exchanging, [0.1, 3.0, 0.1, 0.0, 5.0, 0.0, 0.0, 0.0])
    exchanging.step()
    assert column(exchanging, "w_mask") == [False, True, False, False, True, False, True, True]
    np.testing.assert_array_equal(column(exchanging), np.float32([0, 0, 0, 0, 0.5, 0, -0.7, 0.8]))


def test_rigl_exchanges_no_more_weights_than_have_a_gradient(exchanging):
    backward(exchanging, [0.0, 0.0, 1.0, 5.0, 0.0, 0.0, 0.0, 0.0])
    exchanging.step()
    assert column(exchanging, "w_mask") == [False, False, True, False, False, True, True, True]


def test_rigl_takes_the_gradients_from_before_they_are_clipped(exchanging):
    backward(exchanging, [3.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    exchanging.observe()
    exchanging.mask_gradients()
    exchanging.step()
    assert column(exchanging, "w_mask") == [True, True, False, False, False, False, True, True]


def test_a_loop_that_has_no_gradients_left_for_rigl_is_told_so(exchanging):
    backward(exchanging, [1.0] * 8)
    exchanging.module.zero_grad()
    with pytest.raises(SettingError, match=r"call session\.step\(\) before optimizer\.zero_grad\(\)"):
        exchanging.step()


def test_ac_dc_is_dense_in_its_dense_phases_and_zeros_of_the_input_stay():
    proto = product(np.array([0.1, 0.2, 0.0, 0.4], np.float32))
    steps = (PruningStep(1, 1.0), PruningStep(2, 1.0, kind="lift"), PruningStep(4, 1.0))
    session = session_of(proto, *steps)
    optimizer = torch.optim.SGD(session.module.parameters(), lr=0.1, momentum=0.9)
    states, densities = [], []
    for _ in range(4):
        backward(session, [-2.0, 1.0, -1.0, 0.5])
        optimizer.step()
        states.append(column(session))
        session.step(optimizer)
        densities.append(np.mean(column(session, "w_mask")))
    assert states[0] == pytest.approx([0.3, 0.1, 0.1, 0.35])
    assert densities == [0.5, 0.75, 0.75, 0.5]
    # w[1] starts again from 0, without the momentum of before, and in the end it is larger than w[3].
    assert states[2][1] == pytest.approx(-0.1) and states[3][1] == pytest.approx(-0.1 - 0.19)
    assert session.settled and column(session, "w_mask") == [True, True, False, False]


def test_movement_is_the_sum_of_minus_weight_times_gradient_before_each_update():
    session = session_of(
        product(np.array([0.5, -0.5, 2.0, 1.0], np.float32)), PruningStep(2, 1.0), criterion="movement"
    )
    optimizer = torch.optim.SGD(session.module.parameters(), lr=0.5)
    for gradients in ([-1.0, 1.0, 1.0, 0.5], [-1.0, -1.0, 1.0, 0.0]):
        backward(session, gradients)
        session.observe()
        optimizer.step()
        session.step(optimizer)
    # Weights at the second update: 1.0, -1.0, 1.5, 0.75.
    moved = [0.5 + 1.0, 0.5 - 1.0, -2.0 - 1.5, -0.5 - 0.0]
    assert column(session, "w_movement") == pytest.approx(moved)
    # The largest weight goes; of the two that have moved alike, the first.
    assert column(session, "w_mask") == [True, False, False, True]


def test_scores_of_movement_grow_with_it_and_are_above_0_only_for_weights():
    weights, moved = np.array([1.0, 1.0, 1.0, 1.0, 0.0]), np.array([-3.0, -1e-9, 0.0, 1.0, 7.0])
    scores = CRITERIA["movement"].score(weights, moved)
    assert scores.tolist() == pytest.approx([0.25, 1.0, 1.0, 2.0, 0.0])
    assert 0 < scores[0] < scores[1] < scores[2] < scores[3]


JOBS = (
    {"schedule": "gradual", "criterion": "movement"},
    {"schedule": "gradual", "criterion": "movement", "pattern": "4x1"},
    {"schedule": "ac-dc", "pattern": "4x1"},
    {"schedule": "ac-dc", "criterion": "wanda"},
    {"schedule": "rigl", "criterion": "second-order"},
    {"schedule": "rigl", "clip_norm": 0.5, "regularization": "l1"},
)


@pytest.mark.parametrize("settings", JOBS, ids=lambda settings: "-".join(map(str, settings.values())))
@pytest.mark.parametrize("labeled", [True, False])
def test_whole_jobs_remove_exactly_what_is_asked(settings, labeled):
    data = {"x": normal(80, 8)} | ({"labels": np.arange(80) % 4} if labeled else {})
    result = onnxprune.prune(
        mlp(),
        rate=0.75,
        data=data,
        epochs=4,
        batch_size=8,
        layer_rate={"fc2": 0.5},
        **settings,
        **ZEROS_IN_PLACE,
    )
    assert np.count_nonzero(initializer(result.model, "fc1.weight")) == 32
    assert np.count_nonzero(initializer(result.model, "fc2.weight")) == 32


def test_ac_dc_ends_with_two_of_four():
    data = {"x": normal(80, 8), "labels": np.arange(80) % 4}
    settings = {"schedule": "ac-dc", "pattern": "2:4", "epochs": 4, "batch_size": 8}
    result = onnxprune.prune(mlp(), rate=0.5, data=data, **settings, **ZEROS_IN_PLACE)
    groups = initializer(result.model, "fc1.weight").reshape(16, 2, 4)
    assert (np.count_nonzero(groups, axis=-1) == 2).all()


@pytest.mark.parametrize("settings", [{"schedule": "rigl"}, {"schedule": "ac-dc"}, {"criterion": "movement"}])
def test_the_trials_of_a_search_start_from_others_and_have_their_rates(settings):
    labels = np.arange(160) % 4
    data = {"x": normal(160, 8) + labels[:, None].astype(np.float32), "labels": labels}
    search = {"max_drop": 0.9, "max_loss": 0.9, "epochs": 2, "batch_size": 16, "validation_split": 0.2}
    schedule = {"schedule": "gradual"} | settings
    trials = onnxprune.prune(mlp(), data=data, **search, **schedule, **ZEROS_IN_PLACE).report.trials
    assert any(trial["start"] is not None for trial in trials)
    for trial in trials:
        assert trial["kept"] == sum(size - round(trial["rate"] * size) for size in (128, 64))


def test_movement_without_an_update_before_the_last_step_is_refused():
    data = {"x": normal(20, 8), "labels": np.arange(20) % 4}
    settings = {"schedule": "gradual", "criterion": "movement", "pruning_end": 0.1, "epochs": 1}
    with pytest.raises(
        OnnxPruneError, match="needs training before the last pruning step: give more --epochs"
    ):
        onnxprune.prune(mlp(), rate=0.5, data=data, **settings)


def test_excluded_weights_are_not_exchanged():
    session = onnxprune.pruning_session(mlp(), 8, rate=0.5, schedule="rigl", exclude=("fc2",))
    optimizer = torch.optim.Adam(session.module.parameters(), lr=1e-2)
    inputs, labels = torch.from_numpy(normal(16, 8)), torch.arange(16) % 4
    first = session.module.state_dict()["fc1.weight_mask"].clone()
    for _ in range(8):
        optimizer.zero_grad()
        F.cross_entropy(session.module(inputs)[0], labels).backward()
        optimizer.step()
        session.step(optimizer)
    masks = {name: each for name, each in session.module.state_dict().items() if name.endswith("_mask")}
    assert masks.keys() == {"fc1.weight_mask"} and (masks["fc1.weight_mask"] != first).any()
    assert np.count_nonzero(initializer(session.finish(), "fc1.weight")) == 64


def test_the_code_of_a_deep_graph_is_written_once_for_all_of_its_masks(monkeypatch):
    # Once for each mask, the time grows with the square of the number of layers.
    written = []
    recompile = torch.fx.GraphModule.recompile
    monkeypatch.setattr(
        torch.fx.GraphModule, "recompile", lambda module: (written.append(module), recompile(module))[1]
    )

    def times(layers):
        written.clear()
        nodes = [
            helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"])
            for number in range(layers)
        ]
        weights = {f"w{number}": normal(4, 4, seed=number) for number in range(layers)}
        proto = model_of(nodes, [floats("x0", "N", 4)], [floats(f"x{layers}", "N", 4)], weights)
        session = session_of(proto, PruningStep(0, 1.0))
        assert len(session._masking.masks()) == layers
        return len(written)

    assert times(20) == times(5)


def test_channels_are_grouped_once_for_all_steps_of_a_schedule(monkeypatch):
    found = []
    monkeypatch.setattr(
        "onnxprune.job.pruners.pruner.unit_groups",
        lambda model: (found.append(model), unit_groups(model))[1],
    )
    model = ir.from_proto(mlp())
    config = PruneConfig(rate=0.5, pattern="channel")
    pruner = make_pruner(model, find_weights(model).prunable, config)
    masks = [pruner.prune(PruningStep(0, part), {}) for part in (0.5, 1.0)]
    assert len(found) == 1
    # The second step prunes the weights as the first one has left them.
    first, second = ({value.name: mask for value, mask in each.items()} for each in masks)
    assert all((second[name] <= mask).all() for name, mask in first.items())
    assert sum(mask.sum() for mask in second.values()) < sum(mask.sum() for mask in first.values())
