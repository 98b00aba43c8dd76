"""What a criterion needs of the other settings."""

import pytest

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError
from onnxprune.job.requirements import check_requirements


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "size"}, "--criterion is 'size': it must be one of auto, magnitude, l1, wanda"),
        ({"format": "csr"}, "--format is 'csr': it must be one of ops, dense, coo"),
        ({"criterion": "wanda"}, "need inputs: give --calibration-data, or --data"),
        ({"reconstruct": True}, "need inputs: give --calibration-data, or --data"),
        ({"criterion": "taylor"}, "--criterion taylor needs gradients: give labeled --data"),
        (
            {"criterion": "taylor", "pattern": "channel"},
            "--criterion taylor needs gradients: give labeled --data",
        ),
        ({"criterion": "movement", "schedule": "gradual"}, "while they are trained: give --data"),
        (
            {"criterion": "movement", "data": {}, "schedule": "rigl"},
            "use --schedule gradual, and a --pruning-end above 0",
        ),
        (
            {"criterion": "movement", "data": {}, "schedule": "gradual", "pruning_end": 0.0},
            "use --schedule gradual, and a --pruning-end above 0",
        ),
        (
            {"criterion": "movement", "data": {}, "schedule": "gradual", "selection": "probability"},
            "--criterion movement cannot be combined with --selection probability",
        ),
        (
            {"criterion": "movement", "data": {}, "schedule": "gradual", "pattern": "channel"},
            "--criterion movement is for single weights",
        ),
        ({"criterion": "l1"}, "--criterion l1 is for channels: give --pattern channel"),
        (
            {"criterion": "wanda", "pattern": "channel", "calibration_data": {}},
            "use one of auto, magnitude, l1, second-order, taylor with --pattern channel",
        ),
        ({"reconstruct": True, "schedule": "gradual", "data": {}}, "use --schedule one-shot or iterative"),
    ],
)
def test_settings_that_a_criterion_cannot_work_with_are_refused_with_a_way_out(settings, message):
    with pytest.raises(SettingError, match=message):
        check_requirements(PruneConfig(rate=0.5, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"criterion": "taylor", "data": "train.npz"},
        {"criterion": "movement", "schedule": "gradual", "data": "train.npz", "pattern": "4x1"},
        {"criterion": "l1", "pattern": "channel"},
        {"criterion": "wanda", "calibration_data": "synthetic", "pattern": "2:4"},
        {"criterion": "second-order", "calibration_data": "synthetic", "pattern": "4x1"},
    ],
)
def test_settings_that_a_criterion_can_work_with_pass(settings):
    check_requirements(PruneConfig(rate=0.5, **settings))
