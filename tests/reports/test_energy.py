"""The energy of an inference: measured by counters, or estimated by CPU time."""

import onnx
import pytest

import onnxprune
from onnxprune import runtime
from onnxprune.errors import SettingError
from onnxprune.reports import latency
from onnxprune.reports.energy import WATTS, check_watts, energy_card, joules_text
from onnxprune.reports.latency import BASELINE, KERNELS, STOCK
from onnxprune.system import rapl
from tests.builders import cnn

TIMES = {BASELINE: 4.0, STOCK: 4.0, KERNELS: 1.0}
FOUND = {"machine": "a machine", "milliseconds": TIMES, "cpu_milliseconds": TIMES, "joules": {}}


def test_without_counters_it_is_cpu_time_at_an_assumed_power_which_the_card_says():
    title, baseline, pruned, details = energy_card({"latency": FOUND})
    assert (title, baseline, pruned) == ("energy per inference, estimated", "20 mJ", "5 mJ")
    assert f"CPU time x an assumed {WATTS:g} W" in details and "sparse kernels" in details


def test_a_power_of_the_user_is_no_assumption():
    _, baseline, pruned, details = energy_card({"latency": FOUND, "watts": 2.0})
    assert (baseline, pruned) == ("8 mJ", "2 mJ") and "assumed" not in details and "2 W" in details


def test_counters_that_can_be_read_go_first():
    measured = FOUND | {"joules": {BASELINE: 0.5, STOCK: 0.4, KERNELS: 1e-5}}
    title, baseline, pruned, details = energy_card({"latency": measured})
    assert (title, baseline, pruned) == ("energy per inference, measured", "500 mJ", "10 µJ")
    assert "idle power and other programs included" in details
    assert energy_card({"latency": measured, "watts": 2.0})[1] == "8 mJ"


def test_without_a_latency_there_is_no_energy():
    assert energy_card({}) is None
    assert (
        energy_card({"latency": {"machine": "", "milliseconds": {}, "cpu_milliseconds": {}, "joules": {}}})
        is None
    )


@pytest.mark.parametrize("watts", [0, -1.0, float("inf"), float("nan")])
def test_a_power_that_is_none_is_refused(watts):
    with pytest.raises(SettingError, match="--watts is"):
        check_watts(watts)


def test_joules_have_a_unit_that_fits():
    assert [joules_text(each) for each in (1.234, 0.01234, 1.8e-5)] == ["1.23 J", "12.3 mJ", "18 µJ"]


def test_bursts_are_measured_by_the_counters_of_the_machine(tmp_path, monkeypatch):
    """A counter of 1 J for each time that it is read: 1 J for each burst."""

    class Counting(rapl.EnergyCounters):
        state = 0

        def __init__(self):
            self.available, self._ranges = True, [10**9]

        def read(self):
            Counting.state += 1_000_000
            return [Counting.state]

    monkeypatch.setattr(latency, "SECONDS", 0.1)
    monkeypatch.setattr(latency, "EnergyCounters", Counting)
    onnx.save(cnn(), tmp_path / "in.onnx")
    sample = onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", rate=0.8).report.sample
    found = latency.latency(tmp_path / "in.onnx", tmp_path / "out.onnx", sample)
    names = [BASELINE, STOCK, *([KERNELS] if runtime.available() else [])]
    assert list(found["joules"]) == list(found["cpu_milliseconds"]) == names
    assert all(0 < joules <= latency.MOST_ROUNDS for joules in found["joules"].values())
    assert all(each > 0 for each in found["cpu_milliseconds"].values())
