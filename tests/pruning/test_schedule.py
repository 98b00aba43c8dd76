from itertools import pairwise

import pytest

from onnxprune.config.settings import PruneConfig
from onnxprune.config.training import SCHEDULES
from onnxprune.pruning.allocation import Pool
from onnxprune.pruning.schedule import make_schedule


def schedule(name, updates=1000, families=(), **settings):
    return make_schedule(PruneConfig(rate=0.936, schedule=name, **settings), updates, families).steps


def test_iterative_steps_each_remove_the_same_share_of_the_remaining_weights():
    rates = [step.rate(0.936) for step in schedule("iterative", steps=3)]
    assert rates == pytest.approx([0.6, 0.84, 0.936])
    assert rates[-1] == 0.936


def test_iterative_steps_are_evenly_spaced_until_pruning_end_from_the_first_update():
    steps = schedule("iterative", steps=5, pruning_end=0.5)
    assert [step.update for step in steps] == [0, 100, 200, 300, 400]


def test_one_shot_prunes_all_before_training():
    (only,) = schedule("one-shot")
    assert (only.update, only.rate(0.936)) == (0, 0.936)


def test_gradual_pruning_is_fast_at_first_and_ends_at_pruning_end():
    steps = schedule("gradual", steps=50, pruning_end=0.6)
    rates = [step.rate(0.936) for step in steps]
    growth = [after - before for before, after in pairwise(rates)]
    assert len(steps) == 50 and steps[-1].update == 600 and rates[-1] == 0.936
    assert all(later < earlier for earlier, later in pairwise(growth))


def test_prune_and_regrow_changes_masks_beyond_pruning_end_but_not_until_the_training_ends():
    steps = schedule("prune-and-regrow", steps=50, pruning_end=0.5)
    assert steps[50].update > 500 and {step.rate(0.9) for step in steps[49:]} == {0.9}
    assert 700 < steps[-1].update <= 750


def test_rigl_prunes_once_and_then_exchanges_less_and_less_at_last_nothing():
    first, *exchanges = schedule("rigl", steps=3, pruning_end=0.5)
    assert (first.update, first.kind, first.rate(0.936)) == (0, "prune", 0.936)
    assert [step.update for step in exchanges] == [250, 500, 750]
    assert {step.kind for step in exchanges} == {"exchange"}
    assert [step.share for step in exchanges] == pytest.approx([0.225, 0.075, 0.0])
    assert exchanges[-1].share == 0


def test_ac_dc_alternates_equal_phases_from_dense_to_a_longer_sparse_one():
    steps = schedule("ac-dc", steps=3, pruning_end=0.5)
    assert [step.update for step in steps] == [100, 200, 300, 400, 500]
    assert [step.kind for step in steps] == ["prune", "lift", "prune", "lift", "prune"]
    assert {step.rate(0.936) for step in steps} == {0.936}


@pytest.mark.parametrize("name", SCHEDULES[1:])  # the first is auto
@pytest.mark.parametrize("updates", [1, 3, 1000])
def test_every_schedule_reaches_the_rate_within_the_training(name, updates):
    steps = schedule(name, updates)
    assert [step.update for step in steps] == sorted({step.update for step in steps})
    assert 0 <= steps[-1].update <= updates
    assert steps[-1].kind == "prune" or (steps[0].kind, steps[-1].share) == ("prune", 0)
    assert steps[-1].rate(0.936) == 0.936 and steps[-1].threshold(2.0) == 2.0 and steps[-1].family is None


def test_thresholds_grow_with_the_progress():
    pool = Pool((), None, 1.0)
    for name in ("iterative", "gradual", "prune-and-regrow"):
        thresholds = [step.pools([pool])[0].threshold for step in schedule(name, steps=10)]
        assert thresholds == sorted(thresholds) and thresholds[-1] == 1.0


def test_families_alternate_and_the_last_step_prunes_all():
    steps = schedule("iterative", steps=2, families=("convolution", "other"), alternate=True)
    assert [step.family for step in steps] == ["convolution", "other", "convolution", None]
    assert [step.part for step in steps] == [0.5, 0.5, 1.0, 1.0]
