import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune.errors import ModelFileError
from onnxprune.evaluation.sessions import make_session
from onnxprune.model.files.io import load
from onnxprune.model.files.staging import staging
from tests.builders import floats, mlp, model_of, normal

PROBABILITIES = helper.make_sequence_type_proto(
    helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
)


def classifier_with_maps() -> onnx.ModelProto:
    """As skl2onnx writes a classifier by default: labels, and a sequence of maps from class to probability."""
    model = mlp()
    y = model.graph.output[0].name
    model.graph.node.append(
        helper.make_node("ZipMap", [y], ["maps"], "zip", domain="ai.onnx.ml", classlabels_int64s=range(4))
    )
    model.graph.output.append(onnx.ValueInfoProto(name="maps", type=PROBABILITIES))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return model


def with_training_info() -> onnx.ModelProto:
    model = mlp()
    (info,) = (model.training_info.add(),)
    info.algorithm.name = "step"
    info.algorithm.node.append(helper.make_node("Identity", ["fc1.weight"], ["new"]))
    info.update_binding.add(key="fc1.weight", value="new")
    return model


def rewritten(proto: onnx.ModelProto, folder) -> onnx.ModelProto:
    model, _ = load(proto)
    with staging(folder / "out.onnx") as stage:
        stage.write(model.clone(), external=False)
        stage.commit()
    return onnx.load(folder / "out.onnx")


@pytest.mark.parametrize("make", [classifier_with_maps, with_training_info])
def test_what_onnx_ir_does_not_hold_comes_out_as_it_went_in(tmp_path, make):
    assert rewritten(make(), tmp_path) == make()


@pytest.mark.parametrize("settings", [{}, {"pattern": "channel"}, {"allocation": "sensitivity"}])
def test_a_classifier_with_maps_is_pruned_and_its_probabilities_compared(tmp_path, settings):
    if "allocation" in settings:
        settings["calibration_data"] = "synthetic"
    result = onnxprune.prune(classifier_with_maps(), tmp_path / "out.onnx", rate=0.5, **settings)
    moved, samples = result.report.evaluation["outputs"][-1], result.report.evaluation["samples"]
    assert moved["output"] == "maps" and moved["elements"] == 4 * samples and samples >= 16
    assert 0 < moved["absolute"] < 10
    session = make_session(tmp_path / "out.onnx", "it")
    assert [*session.run(None, {"x": normal(2, 8)})[-1][0]] == [0, 1, 2, 3]


def test_training_info_that_fits_no_more_is_left_out_with_a_note(tmp_path):
    kept = onnxprune.prune(with_training_info(), tmp_path / "kept.onnx", rate=0, format="dense")
    assert len(onnx.load(kept.path).training_info) == 1
    left = onnxprune.prune(with_training_info(), tmp_path / "left.onnx", rate=0.5, pattern="channel")
    assert not onnx.load(left.path).training_info
    assert any(
        "training_info was left out: it does not fit the new fc1.weight" in n for n in left.report.notes
    )


def test_metadata_and_docs_of_a_weight_survive_its_pruning(tmp_path):
    model = mlp()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "fc1.weight")
    weight.doc_string = "the first"
    weight.metadata_props.add(key="shard", value="0")
    onnxprune.prune(model, tmp_path / "out.onnx", rate=0.5, pattern="channel", format="dense")
    (pruned,) = (t for t in onnx.load(tmp_path / "out.onnx").graph.initializer if t.name == "fc1.weight")
    assert pruned.dims[0] < weight.dims[0] or pruned.dims[1] < weight.dims[1]
    assert (pruned.doc_string, pruned.metadata_props) == (weight.doc_string, weight.metadata_props)


def test_trailing_outputs_without_a_name_are_none():
    conv = helper.make_node("Conv", ["x", "w1"], ["a"], "c1")
    pool = helper.make_node("MaxPool", ["a"], ["m", ""], "pool", kernel_shape=[2, 2])
    flat = helper.make_node("Flatten", ["m"], ["f"])
    dense = helper.make_node("Gemm", ["f", "w2"], ["y"], "fc")
    weights = {"w1": normal(8, 3, 3, 3), "w2": normal(8 * 25, 4, seed=1)}
    model = model_of([conv, pool, flat, dense], [floats("x", "N", 3, 8, 8)], [floats("y", "N", 4)], weights)
    assert list(model.graph.node[1].output) == ["m", ""]
    x = normal(2, 3, 8, 8)
    pruned = onnxprune.prune(model, rate=0).model
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(make_session(pruned, "it").run(None, {"x": x})[0], expected[0], rtol=1e-5)


def test_outputs_without_a_name_whose_number_counts_are_refused():
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "fc1"),
        helper.make_node("Split", ["a"], ["y", "", ""], "split", axis=1),
    ]
    model = model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 4)], {"w1": normal(8, 12)}, opset=13)
    with pytest.raises(ModelFileError, match="Split node 'split' has an output without a name"):
        load(model)


def test_an_if_has_as_many_outputs_as_its_bodies():
    bodies = [
        helper.make_graph(
            [helper.make_node(op, ["a"], [name]) for name in ("p", "q")],
            op,
            [],
            [floats("p", "N", 12), floats("q", "N", 12)],
        )
        for op in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "fc1"),
        helper.make_node("If", ["yes"], ["y", ""], "if", then_branch=bodies[0], else_branch=bodies[1]),
    ]
    weights = {"w1": normal(8, 12), "yes": np.array(False)}
    model = model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 12)], weights)
    x = normal(2, 8)
    pruned = onnxprune.prune(model, rate=0).model
    np.testing.assert_allclose(
        make_session(pruned, "it").run(None, {"x": x})[0], -x @ weights["w1"], rtol=1e-5
    )
