"""The energy counters of the processor, as Linux shows them."""

import os

import pytest

from onnxprune.system.rapl import EnergyCounters


def zone(folder, name, kind, micro, span=1_000_000):
    (folder / name).mkdir()
    for file, content in (("name", kind), ("energy_uj", micro), ("max_energy_range_uj", span)):
        (folder / name / file).write_text(f"{content}\n")


def test_the_counters_of_all_processors_add_up_and_their_parts_do_not_count_twice(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 100_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 50_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 900_000)
    zone(tmp_path, "intel-rapl:2", "psys", 7_000)
    counters = EnergyCounters(tmp_path)
    before = counters.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("350000")
    # This one has passed its range of 1 J: 0.1 J until there, and 0.2 J since.
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("200000")
    assert counters.available and counters.joules(before, counters.read()) == pytest.approx(0.25 + 0.3)


def test_no_counters_or_those_that_only_root_may_read_are_not_available(tmp_path):
    assert not EnergyCounters(tmp_path / "none").available
    zone(tmp_path, "intel-rapl:0", "package-0", "")
    assert not EnergyCounters(tmp_path).available
    if os.getuid():
        (tmp_path / "intel-rapl:0" / "energy_uj").chmod(0)
        assert not EnergyCounters(tmp_path).available
