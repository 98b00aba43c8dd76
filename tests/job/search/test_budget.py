"""--flops and --bytes through the whole job: what comes out costs what was asked for."""

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import SettingError
from tests.builders import cnn, mlp, normal
from tests.surgery.oracle import model

SAMPLES = {"x": normal(40, 1, 8, 8)}


@pytest.mark.parametrize("allocation", ["uniform", "per-output", "global", "std", "erk", "sensitivity"])
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_the_multiply_adds_asked_for_are_left_under_every_allocation(allocation, share):
    report = onnxprune.prune(
        cnn(), flops=share, allocation=allocation, calibration_data=SAMPLES, remove_dead=False
    ).report
    left = report.pruned.nonzero_multiply_adds / report.baseline.multiply_adds
    assert share - 0.02 < left <= share + 0.005
    assert report.baseline.nonzero_multiply_adds == report.baseline.multiply_adds


def test_sensitivity_saves_multiply_adds_where_outputs_change_least():
    """At the same multiply-adds the outputs move less than with the rate that saves most weights."""
    evaluation = {"x": normal(100, 1, 8, 8, seed=3)}
    cosines = [
        onnxprune.prune(cnn(), flops=0.5, allocation=allocation, calibration_data=SAMPLES, eval_data=evaluation)
        .report.evaluation["outputs"][0]["cosine"]
        for allocation in ("uniform", "sensitivity")
    ]  # fmt: skip
    assert cosines[1] > cosines[0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"allocation": "global"},
        {"format": "coo"},
        {"remove_dead": False},
        {"criterion": "second-order", "calibration_data": {"x": normal(64, 200)}},
    ],
)
def test_the_file_has_the_bytes_asked_for(settings, tmp_path):
    model = mlp(200, 600, 100)
    onnx.save(model, tmp_path / "in.onnx")
    for asked in ("180kB", 150_000):
        result = onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", bytes=asked, **settings)
        size, limit = (tmp_path / "out.onnx").stat().st_size, 180_000 if asked == "180kB" else asked
        assert 0.98 * limit < size <= limit
        assert size == result.report.pruned.bytes


def test_values_of_a_byte_are_counted_so(tmp_path):
    """Of 180,000 weights, the first that go make no smaller file: zeros are stored, too, where they are few."""
    onnx.save(mlp(200, 600, 100), tmp_path / "in.onnx")
    for asked in (140_000, 100_000):
        result = onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", bytes=asked, values="int8")
        assert 0.98 * asked < result.report.pruned.bytes <= asked


def test_a_budget_holds_for_a_network_that_loses_most_of_its_neurons(tmp_path):
    """Neurons that die take more of the file with them than the weights that went."""
    onnx.save(mlp(400, 600, 100), tmp_path / "in.onnx")
    result = onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", bytes="40k", allocation="global")
    assert any(layer.shape_after != layer.shape for layer in result.report.layers)
    assert 0.97 * 40_000 < (tmp_path / "out.onnx").stat().st_size <= 40_000


def test_excluded_layers_and_layers_with_a_rate_of_their_own_count_in_the_budget():
    settings = {"exclude": "conv1", "layer_rate": {"fc": 0.9}, "remove_dead": False}
    report = onnxprune.prune(cnn(), flops=0.7, **settings).report
    kept = {layer.name: layer.kept / layer.size for layer in report.layers}
    assert kept["conv1.weight"] == 1 and kept["fc.weight"] == pytest.approx(0.1, abs=0.01)
    assert report.pruned.nonzero_multiply_adds / report.baseline.multiply_adds == pytest.approx(0.7, abs=0.02)


def test_a_budget_out_of_reach_or_in_conflict_is_refused():
    for settings, words in (
        ({"flops": 0.01, "exclude": "conv2"}, "cannot be reached"),
        ({"bytes": 1000}, "cannot be reached"),
        ({"bytes": "small"}, "500k"),
        ({"flops": 0.2, "rate": 0.5}, "give exactly one of"),
        ({"flops": 0.2, "pattern": "2:4"}, "--pattern 2:4"),
        ({"bytes": "10k", "pattern": "channel"}, "--pattern channel"),
        ({"bytes": "1M", "format": "dense"}, "--format dense"),
    ):
        with pytest.raises(SettingError, match=words):
            onnxprune.prune(cnn(), **settings)


@pytest.mark.parametrize("settings", [{}, {"pattern": "channel"}])
def test_a_share_of_multiply_adds_that_are_not_known_is_refused(settings):
    proto = model(
        """(float[N,8] x) => (float[M,4] y) {
            s = ReduceSum<keepdims=0>(x, one) g = Greater(s, zero) k = Compress<axis=0>(x, g)
            h = MatMul(k, up) r = Relu(h) y = MatMul(r, down)}""",
        one=np.array([1]), zero=np.float32(0), up=normal(8, 16), down=normal(16, 4),
    )  # fmt: skip
    with pytest.raises(SettingError, match=r"--flops 0.5: the multiply-adds .* are not known.* give --rate"):
        onnxprune.prune(proto, flops=0.5, **settings)


def test_a_budget_that_is_met_already_removes_nothing():
    report = onnxprune.prune(cnn(), flops=1.0).report
    assert np.all([layer.kept == layer.size for layer in report.layers])
