"""The settings of the evaluation."""

import pytest

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError
from onnxprune.evaluation.scores import Metrics


@pytest.mark.parametrize(
    "given", ["f1,own:score", "f1, own:score,f1", ("f1", "own:score"), ["f1,own:score", "auto"]]
)
def test_metrics_are_named_by_commas_or_one_by_one(given):
    config = PruneConfig(rate=0.5, metric=given)
    assert config.metrics == ("f1", "own:score") and config.to_dict()["metric"] == ["f1", "own:score"]
    assert PruneConfig(**config.to_dict()).metrics == config.metrics


def test_no_metric_or_auto_is_the_one_of_the_labels():
    assert PruneConfig(rate=0.5).metrics == PruneConfig(rate=0.5, metric="auto").metrics == ()


def test_a_metric_that_there_is_not_and_a_loss_out_of_range_are_refused():
    with pytest.raises(SettingError, match="--metric is 'f2': it must be top-1, top-5"):
        Metrics(PruneConfig(rate=0.5, metric="f2").metrics).named()
    with pytest.raises(SettingError, match=r"--max-loss is 1.5: it must be in \[0, 1\)"):
        PruneConfig(rate=0.5, max_loss=1.5)
