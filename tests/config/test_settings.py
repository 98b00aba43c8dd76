import pytest

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError

NO_AMOUNT = "give exactly one of --rate"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, NO_AMOUNT),
        ({"rate": 1.0}, "--rate is 1.0: it must be in"),
        ({"rate": -0.1}, "--rate is -0.1: it must be in"),
        ({"rate": float("nan")}, "--rate is nan: give a number"),
        ({"rate": "most"}, "--rate is 'most': give a number"),
        ({"rate": 0.5, "std_threshold": 1.0}, NO_AMOUNT),
        ({"std_threshold": 0}, "--std-threshold is 0.0: it must be greater than 0"),
        ({"rate": 0.5, "steps": 0}, "--steps is 0: it must be 1 or more"),
        ({"rate": 0.5, "epochs": 1.5}, "--epochs is 1.5: it must be an integer"),
        ({"rate": 0.5, "distill": 1.5}, "--distill is 1.5: it must be between 0 and 1"),
        (
            {"rate": 0.5, "allocation": "channel"},
            "--allocation is 'channel': it must be one of auto, uniform",
        ),
        ({"rate": 0.5, "layer_rate": "fc1"}, "--layer-rate 'fc1' has no number"),
        ({"rate": 0.5, "layer_rate": {"fc1": 1.0}}, "--layer-rate fc1 is 1.0: it must be in"),
        ({"rate": 0.5, "max_drop": "-1%"}, "--max-drop is -0.01: it must be 0 or more"),
        ({"rate": 0.5, "seed": -1}, "--seed is -1: it must be between 0 and 4294967295"),
        ({"rate": 0.5, "pattern": "row"}, "--pattern is 'row': it must be one of unstructured"),
        ({"rate": 0.5, "round_to": 0}, "--round-to is 0: it must be 1 or more"),
        (
            {"std_threshold": 0.5, "pattern": "channel"},
            "--pattern channel cannot be combined with --std-threshold",
        ),
        ({"rate": 0.5, "schedule": "slow"}, "--schedule is 'slow': it must be one of auto, one-shot"),
        (
            {"rate": 0.5, "schedule": "gradual", "alternate": True},
            "--alternate needs --schedule iterative",
        ),
        (
            {"rate": 0.5, "schedule": "prune-and-regrow", "selection": "probability"},
            "--schedule prune-and-regrow cannot be combined with --selection probability",
        ),
        (
            {"rate": 0.5, "schedule": "prune-and-regrow", "pattern": "channel"},
            "--pattern channel cannot be combined with --schedule prune-and-regrow",
        ),
        (
            {"rate": 0.5, "schedule": "rigl", "pattern": "channel"},
            "--pattern channel cannot be combined with --schedule rigl",
        ),
        (
            {"rate": 0.5, "schedule": "ac-dc", "pattern": "channel"},
            "--pattern channel cannot be combined with --schedule ac-dc",
        ),
        (
            {"rate": 0.5, "schedule": "rigl", "pattern": "2:4"},
            "--pattern 2:4 cannot be combined with --schedule",
        ),
        ({"rate": 0.5, "schedule": "rigl", "pattern": "4x1"}, "--schedule rigl exchanges single weights"),
        (
            {"rate": 0.5, "schedule": "rigl", "allocation": "per-output"},
            "--schedule rigl exchanges single weights",
        ),
        ({"rate": 0.5, "pruning_end": 1.0}, "--pruning-end is 1.0: it must be in"),
        ({"rate": 0.5, "dropout": "fc1"}, "--dropout 'fc1' has no number"),
        ({"rate": 0.5, "dropout": {"fc1": 1.0}}, "--dropout fc1 is 1.0: it must be in"),
        ({"rate": 0.5, "loss": "loudness"}, "--loss is 'loudness': it must be auto"),
        ({"rate": 0.5, "learning_rate_schedule": "down"}, "--learning-rate-schedule is 'down'"),
        ({"rate": 0.5, "clip_norm": 0}, "--clip-norm is 0.0: it must be greater than 0"),
        ({"rate": 0.5, "resume": True}, "--resume .* give --checkpoint FILE"),
        (
            {"rate": 0.5, "pattern": "channel", "remove_dead": False},
            "cannot be combined with --std-threshold or --no-remove-dead",
        ),
        ({"rate": 0.5, "frontier": "trials"}, "--frontier is for a search"),
        ({"rate": 0.5, "regrow_zeros": True}, "--regrow-zeros needs --schedule prune-and-regrow"),
        (
            {"max_drop": 0.01},
            "--max-drop or --max-loss without --rate searches for the rate by .*: give --data",
        ),
        ({"max_drop": 0.01, "data": "a.npz", "checkpoint": "state"}, "remove --checkpoint"),
        (
            {"max_drop": 0.01, "data": "a.npz", "pattern": "2:4"},
            "--pattern 2:4 always has a rate of 0.5, so there is nothing to search",
        ),
        ({"rate": 0.7, "pattern": "2:4"}, "--pattern 2:4 always has a rate of 0.5: give --rate 0.5"),
    ],
)
def test_a_setting_out_of_range_or_in_conflict_is_refused_by_its_flag(settings, message):
    with pytest.raises(SettingError, match=message):
        PruneConfig(**settings)


def test_fractions_may_be_written_in_per_cent():
    config = PruneConfig(rate="90%", max_drop="0.5%", layer_rate=["fc*=95%", "conv1=0.5"])
    assert (config.rate, config.max_drop) == (0.9, 0.005)
    assert config.layer_rate == (("fc*", 0.95), ("conv1", 0.5))


def test_settings_come_out_as_json_types():
    settings = PruneConfig(rate=0.5, data=[{}], layer_rate={"a": 0.1}, exclude="b").to_dict()
    assert settings["data"] == "<list>"
    assert settings["layer_rate"] == [["a", 0.1]] and settings["exclude"] == ["b"]
