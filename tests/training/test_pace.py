"""The stride of a training with a deadline, on a clock that the tests set."""

import pytest

pytest.importorskip("torch")

from onnxprune.training import pace as module
from onnxprune.training.pace import Pace


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_without_a_deadline_every_update_moves_by_one(clock):
    pace = Pace(3)
    for position in (1, 2, 3):
        assert not pace.ended
        pace.move()
        assert pace.position == position
    assert pace.ended
    assert not pace.is_due


def test_the_stride_fits_the_time_left(clock):
    pace = Pace(100, deadline=200.0)
    pace.begin()
    for _ in range(4):
        clock[0] += 2
        pace.move()
    assert pace.is_due
    # 4 updates took 8 s; in the 92 s that are left 46 more fit, for the 96 positions that are left.
    assert pace.measured(10**9) == pytest.approx(96 / 46)


def test_evaluations_take_their_share_of_the_time(clock):
    pace = Pace(100, deadline=200.0)
    pace.begin()
    for _ in range(4):
        clock[0] += 2
        pace.move()
    clock[0] += 10
    pace.evaluated(10.0)
    # An update takes 2 s, and a fifth of an evaluation of 10 s; the last evaluation is kept out of the 82 s.
    assert pace.measured(5) == pytest.approx(96 / ((82 - 10) / (2 + 2)))


def test_a_fast_machine_takes_smaller_strides_and_a_late_one_ends_at_once(clock):
    pace = Pace(10, deadline=1_100.0)
    pace.begin()
    clock[0] += 1
    pace.move()
    assert pace.measured(10**9) < 0.02
    clock[0] = 2_000.0
    pace.stride = pace.measured(10**9)
    pace.move()
    assert pace.ended


def test_a_resumed_training_has_the_time_that_was_left(clock):
    pace = Pace(10, deadline=160.0)
    pace.move()
    state = pace.state()
    clock[0] = 5_000.0
    resumed = Pace(10, deadline=7_000.0)
    resumed.resume(state)
    assert (resumed.position, resumed.deadline) == (1.0, 5_060.0)
