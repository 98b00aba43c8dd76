"""Runs that are checked before the work, and fenced in."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune.data.axes import BatchAxes
from onnxprune.data.axis_choice import declared_axes
from onnxprune.data.dataset import Dataset
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError
from onnxprune.evaluation import runs
from onnxprune.evaluation.labels import label_forms
from onnxprune.evaluation.runs import check_runs, patience, random_inputs
from onnxprune.evaluation.scores import Metrics
from onnxprune.evaluation.sessions import make_session
from tests.builders import initializer, mlp, normal
from tests.evaluation.test_comparison import linear
from tests.fuzz.models import MODELS, written

SPECS = [InputSpec("x", np.dtype(np.float32), (None, 8))]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(50), r"the labels of samples have the class 4, at sample 4, but .* --label-offset"),
        (np.arange(50) // 49 * 4, "have the class 4, at sample 49"),
        (np.full(50, -1), "have the class -1, at sample 0"),
        (np.zeros((50, 3)), r"the labels of samples .* do not fit the output \[2, 4\]"),
        (np.zeros((50, 2), int), "fewer classes"),
        (np.full(50, -100), "all labels of samples are ignored, as -100 is: give labels for some samples"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_the_work(labels, message):
    with pytest.raises(DataError, match=message):
        check_runs(make_session(mlp(), "a test model"), Dataset.of({"x": normal(50, 8)}, labels))


def test_the_number_of_a_wrong_label_is_that_in_the_source():
    labels = np.zeros(5000, int)
    labels[4990] = 9
    data = Dataset.of({"x": normal(5000, 8)}, labels).take(slice(1000, 5000))
    with pytest.raises(DataError, match="the class 9, at sample 4990"):
        check_runs(make_session(mlp(), "a test model"), data)


@pytest.mark.parametrize("batch", [None, 16])
def test_probabilities_are_told_from_logits_by_more_than_the_first_samples(batch):
    x = np.full((50, 8), 0.01, np.float32)
    x[40:] = -9
    weight = np.ones((8, 1), np.float32)
    model = make_session(linear(weight, batch or "N"), "a test model")
    data = check_runs(model, Dataset.of({"x": x}, np.arange(50) % 2, axes=BatchAxes(size=batch)))
    (form,) = label_forms(data).values()
    assert form.kind == "binary" and form.threshold == 0
    assert next(data.batches(3)).labels[""][:3].tolist() == [[False], [True], [False]]


def test_the_labels_of_many_samples_tell_their_form_where_a_model_takes_one_at_a_time():
    labels = np.random.default_rng(0).integers(0, 2, (50, 3))
    labels[0] = [0, 1, 0]
    model = make_session(linear(normal(8, 3), 1), "a test model")
    data = check_runs(model, Dataset.of({"x": normal(50, 8)}, labels, axes=BatchAxes(size=1)))
    assert label_forms(data)[""].kind == "multi-label"


def test_a_dataset_that_was_checked_is_not_fitted_again():
    session = make_session(mlp(), "a test model")
    data = check_runs(session, Dataset.of({"x": normal(50, 8)}, np.arange(50) % 4))
    assert check_runs(session, data) is data


def test_a_metric_that_the_labels_are_not_for_is_refused_before_the_work():
    data = Dataset.of({"x": normal(50, 8)}, np.arange(50) % 4)
    with pytest.raises(DataError, match="--metric psnr is for numbers"):
        check_runs(make_session(mlp(), "a test model"), data, Metrics(("psnr",)))


def test_a_loop_that_may_never_end_on_random_inputs_is_stopped(monkeypatch):
    monkeypatch.setattr(runs, "LOOP_SECONDS", 0.2)
    model = MODELS["loop"]()
    count = next(tensor for tensor in model.graph.initializer if tensor.name == "count")
    count.raw_data = (2**62).to_bytes(8, "little")
    limit = patience(ir.from_proto(model))
    with pytest.raises(DataError, match="had not ended"):
        random_inputs(make_session(model, "a test model"), SPECS, declared_axes(SPECS), 0, patience=limit)
    assert patience(ir.from_proto(mlp())) is None


@pytest.mark.parametrize("made", ["SequenceConstruct (a, x)", "SplitToSequence (a)"])
def test_labels_of_an_output_that_is_a_sequence_are_refused(made):
    text = f"g (float[N,8] x) => (float[N,4] y) {{ a = MatMul (x, w) y = {made} }}"
    model = written(text, {"w": normal(8, 4)})
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    data = Dataset.of({"x": normal(50, 8)}, np.arange(50) % 4)
    with pytest.raises(DataError, match="do not fit the output of no single array"):
        check_runs(make_session(model, "a test model"), data)


def test_ids_beyond_the_vocabulary_are_refused_with_what_to_check():
    text = "g (int64[N,6] x) => (float[N,6,4] y) { e = Gather (t, x) y = MatMul (e, w) }"
    model = written(text, {"t": normal(20, 8), "w": normal(8, 4)})
    data = Dataset.of({"x": np.full((4, 6), 20)})
    with pytest.raises(DataError, match=r"idx=20 must be within .*; check the inputs, such as token ids"):
        check_runs(make_session(model, "a test model"), data)


def test_an_input_that_is_a_sequence_is_refused_and_pruned_without_a_run():
    text = "g (float[N,8] x) => (float[N,4] y) { a = SequenceAt (x, i) y = MatMul (a, w) }"
    model = written(text, {"i": np.array(0), "w": normal(8, 4)})
    model.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None))
    with pytest.raises(DataError, match=r"input 'x' is a seq\(tensor\(float\)\).*give --no-evaluate"):
        onnxprune.prune(model, rate=0.5)
    written_model = onnxprune.prune(model, rate=0.5, evaluate=False, format="dense").model
    assert np.count_nonzero(initializer(written_model, "w")) == 16
