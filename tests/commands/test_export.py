"""A pruned model as plain operators: the same outputs, no functions, and fixed shapes where they are asked for."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

import onnxprune
from onnxprune import cli
from onnxprune.commands.report import rebuilt
from onnxprune.errors import ModelFileError, SettingError
from tests.builders import cnn, floats, initializer, mlp, model_of, normal


def run(model, inputs):
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def with_shape_computation():
    """x [N, 4, 6, 6] -> Conv -> Reshape to [Shape(x)[0], -1] -> Gemm -> y, as torch exports flatten."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv", kernel_shape=[3, 3]),
        helper.make_node("Shape", ["x"], ["s"], "shape"),
        helper.make_node("Gather", ["s", "first"], ["n"], "gather", axis=0),
        helper.make_node("Unsqueeze", ["n", "axis"], ["nv"], "unsqueeze"),
        helper.make_node("Concat", ["nv", "rest"], ["target"], "concat", axis=0),
        helper.make_node("Reshape", ["a", "target"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "v"], ["y"], "fc"),
    ]
    integers = {
        "first": np.array(0, np.int64),
        "axis": np.array([0], np.int64),
        "rest": np.array([-1], np.int64),
    }
    weights = {"w": normal(8, 4, 3, 3), "v": normal(128, 40)}
    return model_of(nodes, [floats("x", "N", 4, 6, 6)], [floats("y", "N", 40)], weights | integers)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "pruned.onnx"
    onnxprune.prune(with_shape_computation(), path, rate=0.9, remove_dead=False)
    assert any(node.domain == "onnxprune" for node in onnx.load(path).graph.node)
    return path


def test_the_exported_file_has_standard_nodes_the_zeros_and_the_same_outputs(pruned, tmp_path):
    found = onnxprune.export(pruned, tmp_path / "plain.onnx")
    model = onnx.load(tmp_path / "plain.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions and {node.domain for node in model.graph.node} == {""}
    assert [node.name for node in model.graph.node] == [
        node.name for node in with_shape_computation().graph.node
    ]
    assert np.count_nonzero(initializer(model, "v")) == 512
    x = np.random.default_rng(0).random((5, 4, 6, 6), dtype=np.float32)
    np.testing.assert_array_equal(run(tmp_path / "plain.onnx", x), run(pruned, x))
    assert found.bytes == (tmp_path / "plain.onnx").stat().st_size and found.difference == 0


def test_static_shapes_fold_what_computed_them(pruned, tmp_path):
    onnxprune.export(pruned, tmp_path / "static.onnx", static=True)
    model = onnx.load(tmp_path / "static.onnx")
    assert [node.op_type for node in model.graph.node] == ["Conv", "Reshape", "Gemm"]
    dims = [
        dim for value in (*model.graph.input, *model.graph.output) for dim in value.type.tensor_type.shape.dim
    ]
    assert [dim.dim_value for dim in dims] == [1, 4, 6, 6, 1, 40]
    x = np.random.default_rng(0).random((1, 4, 6, 6), dtype=np.float32)
    np.testing.assert_array_equal(run(tmp_path / "static.onnx", x), run(pruned, x))


def test_an_input_shape_makes_the_other_inputs_of_that_dim_static(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["p"], "matmul"),
        helper.make_node("Add", ["p", "b"], ["y"], "add"),
    ]
    sides = [floats("a", "N", "T", 8), floats("b", "N", "T", 8)]
    onnx.save(model_of(nodes, sides, [floats("y", "N", "T", 8)], {"w": normal(8, 8)}), tmp_path / "in.onnx")
    onnxprune.export(tmp_path / "in.onnx", tmp_path / "out.onnx", input_shape="a:2,7,8")
    shapes = [value.shape for value in ort.InferenceSession(str(tmp_path / "out.onnx")).get_inputs()]
    assert shapes == [[2, 7, 8], [2, 7, 8]]
    with pytest.raises(
        SettingError, match=r"--static: input a has free dims .* give their sizes: --input-shape a:1,N,8"
    ):
        onnxprune.export(tmp_path / "in.onnx", tmp_path / "none.onnx", static=True)
    assert not (tmp_path / "none.onnx").exists()


@pytest.mark.parametrize("opset", [15, 21])
def test_another_opset_gives_the_same_outputs(tmp_path, opset):
    onnxprune.prune(mlp(opset=17), tmp_path / "pruned.onnx", rate=0.5)
    found = onnxprune.export(tmp_path / "pruned.onnx", tmp_path / "out.onnx", opset=opset)
    assert found.opset == onnx.load(tmp_path / "out.onnx").opset_import[0].version == opset
    x = np.random.default_rng(0).random((3, 8), dtype=np.float32)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), run(tmp_path / "pruned.onnx", x), rtol=1e-6)


def test_an_opset_that_onnx_cannot_convert_to_is_refused(tmp_path):
    nodes = [helper.make_node("Pad", ["x", "pads", "", "axes"], ["y"], "pad")]
    pads = {"pads": np.array([1, 1], np.int64), "axes": np.array([1], np.int64)}
    onnx.save(
        model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 10)], pads, opset=18), tmp_path / "in.onnx"
    )
    with pytest.raises(
        ModelFileError, match=r"cannot be converted to 17 by ONNX .* give an --opset nearer to"
    ):
        onnxprune.export(tmp_path / "in.onnx", tmp_path / "out.onnx", opset=17)
    assert not (tmp_path / "out.onnx").exists()


def test_functions_are_inlined(tmp_path):
    model = mlp()
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    imports = [helper.make_opsetid("", model.opset_import[0].version)]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, imports))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[1].domain, model.graph.node[1].op_type = "own", "Twice"
    onnx.save(model, tmp_path / "in.onnx")
    found = onnxprune.export(tmp_path / "in.onnx", tmp_path / "out.onnx")
    exported = onnx.load(tmp_path / "out.onnx")
    assert not exported.functions and [node.op_type for node in exported.graph.node] == [
        "Gemm",
        "Add",
        "Gemm",
    ]
    assert found.notes == ("Model-local functions were inlined: Twice.",)


def test_what_the_metadata_says_of_the_form_is_that_of_the_exported_file(pruned, tmp_path):
    onnxprune.export(pruned, tmp_path / "plain.onnx")
    onnxprune.export(pruned, tmp_path / "bare.onnx", annotations=False)
    record = rebuilt(tmp_path / "plain.onnx")
    assert record["settings"]["format"] == "dense" and record["settings"]["rate"] == 0.9
    assert [layer["bytes_after"] for layer in record["layers"]] == [8 * 4 * 9 * 4, 128 * 40 * 4]
    assert all(layer["format"] == "dense" and layer["kept"] < layer["size"] for layer in record["layers"])
    assert not any(
        prop.key.startswith("onnxprune") for prop in onnx.load(tmp_path / "bare.onnx").metadata_props
    )


def test_folders_that_an_older_file_names_are_left_out(pruned, tmp_path):
    model = onnx.load(pruned)
    written = {prop.key: prop.value for prop in model.metadata_props}
    old = json.loads(written["onnxprune.baseline"]) | {"path": "clients/acme/in.onnx"}
    notes = ["Nothing was fine-tuned: onnxprune clients/acme/in.onnx out.onnx"]
    onnx.helper.set_model_props(
        model, written | {"onnxprune.baseline": json.dumps(old), "onnxprune.notes": json.dumps(notes)}
    )
    onnx.save(model, tmp_path / "old.onnx")
    onnxprune.export(tmp_path / "old.onnx", tmp_path / "plain.onnx")
    record = rebuilt(tmp_path / "plain.onnx")
    assert record["baseline"]["path"] == "in.onnx"
    assert record["notes"][0] == "Nothing was fine-tuned: onnxprune in.onnx out.onnx"
    assert b"acme" not in (tmp_path / "plain.onnx").read_bytes()


def test_coo_has_sparse_initializers(pruned, tmp_path):
    cli.main(["export", str(pruned), str(tmp_path / "coo.onnx"), "--format", "coo"])
    assert len(onnx.load(tmp_path / "coo.onnx").graph.sparse_initializer) == 2


def test_node_names_are_unique_in_the_whole_model_functions_included(tmp_path):
    """pnnx names a node of a function by the call and the node, and refuses two of one name."""
    onnxprune.prune(cnn(), tmp_path / "out.onnx", rate=0.9, values="int8", remove_dead=False)
    model = onnx.load(tmp_path / "out.onnx")
    names = [node.name for graph in (model.graph, *model.functions) for node in graph.node]
    assert model.functions and all(names) and len(set(names)) == len(names)


def test_a_mask_that_torch_expands_by_computed_shapes_becomes_static(tmp_path):
    """expand(mask, -1, T) of torch: Equal, Where and ConstantOfShape tell which sizes are -1."""
    integers = {
        "minus": np.array(-1, np.int64), "two": np.array([2], np.int64), "asked": np.array([-1, -1], np.int64)
    }  # fmt: skip
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("ConstantOfShape", ["two"], ["ones"], value=helper.make_tensor("one", 7, [1], [1])),
        helper.make_node("Mul", ["ones", "minus"], ["minuses"]),
        helper.make_node("Equal", ["asked", "minuses"], ["open"]),
        helper.make_node("Where", ["open", "sizes", "asked"], ["target"]),
        helper.make_node("Expand", ["row", "target"], ["mask"]),
        helper.make_node("Mul", ["x", "mask"], ["y"]),
    ]
    model = model_of(
        nodes,
        [floats("x", "N", "T")],
        [floats("y", "N", "T")],
        integers | {"row": np.ones((1, 1), np.float32)},
    )
    onnx.save(model, tmp_path / "in.onnx")
    found = onnxprune.export(tmp_path / "in.onnx", tmp_path / "out.onnx", input_shape="x:2,5")
    assert not found.notes
    kinds = [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node]
    assert not {"Shape", "ConstantOfShape", "Where"} & set(kinds)


def test_sizes_that_depend_on_the_data_are_named(tmp_path):
    nodes = [helper.make_node("NonZero", ["x"], ["where"], "nonzero")]
    output = helper.make_tensor_value_info("where", 7, [2, None])
    onnx.save(model_of(nodes, [floats("x", "N", 4)], [output], {}), tmp_path / "in.onnx")
    found = onnxprune.export(tmp_path / "in.onnx", tmp_path / "out.onnx", static=True)
    assert found.notes == ("Sizes that depend on the data stay open, in spite of --static: where.",)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"static": True}, SettingError, "--static: input a"),
        ({"opset": 17}, ModelFileError, "converted to 17"),
    ],
)
def test_prune_refuses_a_form_that_cannot_be_before_any_work(settings, error, message, tmp_path):
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["p"], "matmul"),
        helper.make_node("Pad", ["p", "pads", "", "axes"], ["y"], "pad"),
    ]
    constants = {"w": normal(8, 8), "pads": np.array([1, 1], np.int64), "axes": np.array([1], np.int64)}
    model = model_of(nodes, [floats("a", "N", "T", 8)], [floats("y", "N", "U", 8)], constants, opset=18)
    stages = []
    with pytest.raises(error, match=message):
        onnxprune.prune(
            model, tmp_path / "out.onnx", lambda stage, done: stages.append(stage), rate=0.5, **settings
        )
    assert set(stages) == {"load"}


def test_outputs_of_a_loop_keep_their_rank_where_their_sizes_stay_open(tmp_path):
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("MatMul", ["v", "w"], ["v2"]), helper.make_node("Identity", ["go"], ["go2"])],
        "body",
        [info("i", onnx.TensorProto.INT64, []), info("go", onnx.TensorProto.BOOL, []), floats("v", "N", 8)],
        [info("go2", onnx.TensorProto.BOOL, []), floats("v2", "N", 8)],
    )
    nodes = [helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)]
    constants = {"w": normal(8, 8), "count": np.array(2)}
    onnx.save(model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 8)], constants), tmp_path / "in.onnx")
    found = onnxprune.export(tmp_path / "in.onnx", tmp_path / "out.onnx", static=True)
    model = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 8
    assert "y" in found.notes[0]
