"""The cores that this process may use."""

import os

import pytest

from onnxprune.system import cores
from onnxprune.system.cores import allowed_cores, usable_cores


@pytest.fixture
def eight(monkeypatch):
    monkeypatch.setattr(cores, "allowed_cores", lambda: 8)


def groups(tmp_path, own, quotas):
    """Control groups with these limits, and the file that names that of this process."""
    for path, quota in quotas.items():
        folder = tmp_path / "groups" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(quota + "\n")
    (tmp_path / "own").write_text(own)
    return tmp_path / "groups", tmp_path / "own"


@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        ("0::/\n", {".": "200000 100000"}, 2),
        ("0::/\n", {".": "250000 100000"}, 3),
        ("0::/\n", {".": "10000 100000"}, 1),
        ("0::/\n", {".": "max 100000"}, 8),
        ("0::/\n", {".": "3200000 100000"}, 8),
        ("0::/\n", {".": "not a limit"}, 8),
        ("0::/\n", {}, 8),
        ("0::/pod/part\n", {"pod": "300000 100000", "pod/part": "max 100000"}, 3),
        ("0::/pod/part\n", {"pod": "max 100000", "pod/part": "150000 50000"}, 3),
        ("0::/pod\n", {"pod/part": "100000 100000"}, 8),
        ("1:cpu:/\n0::/pod\n", {"pod": "100000 100000"}, 1),
        ("1:cpu:/\n", {".": "100000 100000"}, 8),
        ("0::/../other\n", {}, 8),
    ],
)
def test_a_quota_of_time_counts_rounded_up_and_so_do_those_of_the_groups_around(
    tmp_path, eight, own, quotas, expected
):
    assert usable_cores(*groups(tmp_path, own, quotas)) == expected


def test_without_control_groups_all_allowed_cores_count(tmp_path, eight):
    assert usable_cores(tmp_path / "none", tmp_path / "missing") == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_cores_are_those_that_the_process_may_run_on():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cores() == usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_without_affinity_all_cores_of_the_machine_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert allowed_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert allowed_cores() == 1
