"""Models that are worse than --max-drop or --max-loss allows."""

import numpy as np
import pytest

from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset
from onnxprune.errors import ValidationError
from onnxprune.evaluation.comparison import compare
from onnxprune.evaluation.scores import Metrics
from onnxprune.job.notes import outcome_notes
from onnxprune.job.pipeline import refuse_worse
from onnxprune.job.samples.inputs import JobData
from tests.builders import normal
from tests.evaluation.test_comparison import linear, session


def evaluation(name, labels, factor):
    weight = normal(8, 4, seed=1)
    models = session(linear(weight)), session(linear(weight * factor))
    data = Dataset.of({"x": normal(100, 8)}, labels)
    return compare(*models, data, metrics=Metrics((name,)))


RIGHT = (normal(100, 8) @ normal(8, 4, seed=1)).argmax(1)
NOISY = normal(100, 8) @ normal(8, 4, seed=1) + 0.1


@pytest.mark.parametrize(
    ("name", "labels", "settings", "message"),
    [
        ("top-1", RIGHT, {"max_drop": 0.01}, r"\d% \(absolute, top-1 accuracy\) .*, --max-drop allows 1.00%"),
        ("top-1", RIGHT, {"max_loss": 0.01}, r"% \(relative, top-1 accuracy\) on samples, --max-loss allows 1.00%"),
        ("mse", NOISY, {"max_loss": 0.5}, r"\(relative, mean squared error\) .*, --max-loss allows 50.00%"),
        ("psnr", NOISY, {"max_drop": 0.5}, r"\d+\.\d\d dB \(absolute, PSNR\) .*, --max-drop allows 0.50 dB"),
    ],
)  # fmt: skip
def test_a_worse_model_is_refused_in_the_unit_of_its_metric(name, labels, settings, message):
    with pytest.raises(ValidationError, match=f"the pruned model is worse by .*{message}"):
        refuse_worse(evaluation(name, labels, -1), PruneConfig(rate=0.5, **settings), None)
    refuse_worse(evaluation(name, labels, 1), PruneConfig(rate=0.5, **settings), None)


def test_a_model_whose_outputs_are_no_numbers_is_refused():
    result = evaluation("mse", NOISY, np.nan)
    with pytest.raises(ValidationError, match="worse by nan"):
        refuse_worse(result, PruneConfig(rate=0.5, max_drop=0.5), None)


def test_no_drop_is_measured_of_outputs_without_elements():
    empty = normal(8, 0)
    data = Dataset.of({"x": normal(100, 8)})
    result = compare(session(linear(empty)), session(linear(empty)), data)
    with pytest.raises(
        ValidationError, match=r"no output has elements .* nothing was written: give --eval-data"
    ):
        refuse_worse(result, PruneConfig(rate=0.5, max_drop=0.5), None)
    (note,) = outcome_notes(result, JobData([], None, None, data, None, None))
    assert note == "Output 'y' has no elements on samples, so that it is not compared."
