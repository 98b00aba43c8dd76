import pytest

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rate": 1.0},
        {"rate": -0.1},
        {"rate": float("nan")},
        {"rate": "most"},
        {"rate": 0.5, "quality": 1.0},
        {"quality": 0},
        {"rate": 0.5, "steps": 0},
        {"rate": 0.5, "epochs": 1.5},
        {"rate": 0.5, "distill": 1.5},
        {"rate": 0.5, "format": "csr"},
        {"rate": 0.5, "scope": "channel"},
        {"rate": 0.5, "layer_rate": "fc1"},
        {"rate": 0.5, "layer_rate": {"fc1": 1.0}},
        {"rate": 0.5, "max_drop": "-1%"},
        {"rate": 0.5, "seed": -1},
        {"rate": 0.5, "pattern": "row"},
        {"rate": 0.5, "round_to": 0},
        {"rate": 0.5, "pattern": "channel", "importance": "taylor"},
        {"quality": 0.5, "pattern": "channel"},
        {"rate": 0.5, "schedule": "slow"},
        {"rate": 0.5, "schedule": "gradual", "alternate": True},
        {"rate": 0.5, "schedule": "splice", "selection": "probability"},
        {"rate": 0.5, "schedule": "splice", "pattern": "channel"},
        {"rate": 0.5, "approach": 1.0},
        {"rate": 0.5, "dropout": "fc1"},
        {"rate": 0.5, "dropout": {"fc1": 1.0}},
        {"rate": 0.5, "loss": "loudness"},
        {"rate": 0.5, "learning_rate_schedule": "down"},
        {"rate": 0.5, "clip_norm": 0},
        {"rate": 0.5, "resume": True},
        {"rate": 0.5, "pattern": "channel", "layer_rate": {"fc1": 0.5}},
        {"rate": 0.5, "frontier": "trials"},
        {"rate": 0.5, "regrow": True},
        {"max_drop": 0.01},
        {"max_drop": 0.01, "data": "a.npz", "checkpoint": "state"},
        {"max_drop": 0.01, "data": "a.npz", "pattern": "2:4"},
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_flag(settings):
    with pytest.raises(SettingError, match="--"):
        PruneConfig(**settings)


def test_fractions_may_be_written_in_per_cent():
    config = PruneConfig(rate="90%", max_drop="0.5%", layer_rate=["fc*=95%", "conv1=0.5"])
    assert (config.rate, config.max_drop) == (0.9, 0.005)
    assert config.layer_rate == (("fc*", 0.95), ("conv1", 0.5))


def test_settings_come_out_as_json_types():
    settings = PruneConfig(rate=0.5, data=[{}], layer_rate={"a": 0.1}, exclude="b").to_dict()
    assert settings["data"] == "<list>"
    assert settings["layer_rate"] == [["a", 0.1]] and settings["exclude"] == ["b"]


def test_a_uniform_rate_is_another_name_for_one_of_each_layer():
    assert PruneConfig(rate=0.5, scope="uniform") == PruneConfig(rate=0.5, scope="layer")
