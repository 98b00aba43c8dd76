"""Models that draw random numbers are compared with the same draws."""

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune.evaluation.sessions import SeededSession, make_session, restarted
from tests.builders import floats, initializer, model_of, normal

LIKE = {"RandomNormalLike": {"dtype": 1}, "RandomUniformLike": {"dtype": 1}, "Bernoulli": {"dtype": 1}}
ALONE = {"RandomNormal": {"shape": [1, 6]}, "RandomUniform": {"shape": [1, 6]}}


def noisy(op_type, weight=None, name="z", **attributes):
    """x [N, 8] -> Gemm -> a -> Sigmoid -> b; y = b + a draw of its shape, or of one row, by this operator."""
    reads = ["b"] if op_type in LIKE or op_type in ("Dropout", "Multinomial") else []
    extra = ["ratio", "training"] if op_type == "Dropout" else []
    attributes = LIKE.get(op_type, {}) | ALONE.get(op_type, {}) | attributes
    made = {"Multinomial": "drawn"}.get(op_type, name)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "fc"),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node(op_type, [*reads, *extra], [made], **attributes),
    ]
    if op_type == "Multinomial":
        nodes.append(helper.make_node("Cast", [made], [name], to=1))
    if op_type == "Dropout":
        # onnxruntime takes out one that is not an output.
        nodes[-1].output[0] = "y"
    else:
        nodes.append(helper.make_node("Add", ["b", name], ["y"]))
    weights = {"w": normal(8, 6) if weight is None else weight}
    if op_type == "Dropout":
        weights |= {"ratio": np.float32(0.5), "training": np.array(True)}
    return model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 6)], weights)


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [*((name, {}) for name in (*LIKE, *ALONE, "Dropout")), ("Multinomial", {"sample_size": 6})],
)
def test_a_model_that_draws_is_the_same_as_itself(op_type, attributes, tmp_path):
    proto = noisy(op_type, **attributes)
    evaluation = onnxprune.compare(proto, proto, data={"x": normal(600, 8)})
    assert evaluation.outputs[0].mismatched == 0
    assert evaluation.draws == f"Random numbers ({op_type}) are the same in both models."
    # Runs of one session draw other numbers.
    onnx.save(proto, tmp_path / "m.onnx")
    session = make_session(tmp_path / "m.onnx", "a model")
    one, other, again = (
        each.run(None, {"x": normal(5, 8)})[0] for each in (session, session, restarted(session))
    )
    assert (one == again).all() and (one != other).any()


def test_pruning_is_all_that_differs_from_the_input_model():
    evaluation = onnxprune.prune(noisy("RandomNormalLike"), rate=0.5).report.evaluation
    weight = normal(8, 6)
    pruned = initializer(onnxprune.prune(noisy("RandomNormalLike"), rate=0.5, format="dense").model, "w")
    silent = onnxprune.compare(noisy("RandomNormalLike", weight), noisy("RandomNormalLike", pruned))
    assert 0 < silent.outputs[0].absolute < 1
    assert evaluation["outputs"][0]["absolute"] == pytest.approx(silent.outputs[0].absolute, abs=1e-5)


def test_different_draws_are_said_to_be_no_comparison():
    evaluation = onnxprune.compare(noisy("RandomNormalLike"), noisy("RandomNormalLike", name="noise"))
    assert "cannot be compared" in evaluation.draws and evaluation.outputs[0].mismatched


def test_a_given_seed_is_kept_and_other_models_have_plain_sessions():
    draws = [
        make_session(noisy("RandomNormalLike", seed=seed), "a model").run(None, {"x": normal(5, 8)})[0]
        for seed in (1.0, 1.0, 2.0)
    ]
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).any()
    proto = noisy("Dropout")
    next(t for t in proto.graph.initializer if t.name == "training").raw_data = b"\0"
    assert not isinstance(make_session(proto, "a model"), SeededSession)
    assert not onnxprune.compare(proto, proto).draws


def test_calibration_sees_the_same_draws_in_the_dense_and_the_pruned_model():
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["z"]),
        helper.make_node("Add", ["x", "z"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["y"], "fc"),
    ]
    proto = model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 4)], {"w": normal(8, 4)})
    settings = {"rate": 0.5, "format": "dense", "criterion": "second-order"}
    one, other = (
        initializer(onnxprune.prune(proto, **settings, calibration_data={"x": normal(64, 8)}).model, "w")
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)


def test_channels_stay_before_a_dropout_in_training_mode():
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["a"], "fc1"),
        helper.make_node("Dropout", ["a", "ratio", "training"], ["d"]),
        helper.make_node("Gemm", ["d", "w2"], ["y"], "fc2"),
    ]
    weights = {"w1": normal(8, 16), "w2": normal(16, 4), "ratio": np.float32(0.5)}
    for training in (True, False):
        proto = model_of(
            nodes, [floats("x", "N", 8)], [floats("y", "N", 4)], weights | {"training": np.array(training)}
        )
        if training:
            with pytest.raises(onnxprune.OnnxPruneError, match="Dropout"):
                onnxprune.prune(proto, rate=0.5, pattern="channel")
        else:
            result = onnxprune.prune(proto, rate=0.5, pattern="channel")
            assert initializer(result.model, "w1").shape == (8, 8)
