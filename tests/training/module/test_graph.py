"""Whole models as torch modules: the same outputs as onnxruntime, the parameters by name, the model untouched."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from onnxprune.training.module.graph import UnsupportedOperatorError, to_torch
from tests.builders import cnn, floats, mlp, model_of, normal
from tests.fuzz.models import written

REPOSITORY = Path(__file__).parents[3]


def in_onnxruntime(model: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def assert_agrees(model: onnx.ModelProto, *inputs: np.ndarray) -> torch.fx.GraphModule:
    """The module, once its outputs are within 1e-4 of onnxruntime's, relative to the largest."""
    module = to_torch(ir.from_proto(model))
    results = module(*map(torch.from_numpy, inputs))
    assert isinstance(results, tuple)
    for expected, result in zip(in_onnxruntime(model, *inputs), results, strict=True):
        assert result.shape == expected.shape
        assert np.abs(result.detach().numpy() - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1)
    return module


def parameters(module: torch.nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def buffers(module: torch.nn.Module) -> list[str]:
    return [name for name, _ in module.named_buffers()]


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], f"{op_type}_{output}", **attributes)


def classifier() -> onnx.ModelProto:
    """image [N, 1, 8, 8], normalized -> Conv -> BatchNormalization -> Relu -> MaxPool -> Flatten -> Gemm."""
    return model_of(
        [
            node("Sub", "image mean", "centerd"),
            node("Div", "centerd deviation", "normal"),
            node("Conv", "normal conv.weight", "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("BatchNormalization", "a bn.scale bn.bias bn.mean bn.var", "b"),
            node("Relu", "b", "c"),
            node("MaxPool", "c", "d", kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", "d", "e"),
            node("Gemm", "e fc.weight fc.bias", "logits", transB=1),
        ],
        [floats("image", "N", 1, 8, 8)],
        [floats("logits", "N", 4)],
        {
            "mean": np.full((1, 8, 8), 0.5, np.float32),
            "deviation": np.full((1, 8, 8), 0.25, np.float32),
            "conv.weight": normal(6, 1, 3, 3),
            "bn.scale": normal(6, seed=1),
            "bn.bias": normal(6, seed=2),
            "bn.mean": normal(6, seed=3),
            "bn.var": normal(6, seed=4) ** 2 + 0.5,
            "fc.weight": normal(4, 96, seed=5),
            "fc.bias": normal(4, seed=6),
        },
    )


def test_a_convolutional_network_gives_the_outputs_of_onnxruntime_for_any_batch() -> None:
    module = assert_agrees(classifier(), normal(1, 1, 8, 8))
    assert_agrees(classifier(), normal(5, 1, 8, 8))
    assert module.meta["inputs"] == ["image"]
    assert module.meta["outputs"] == ["logits"]


def test_parameters_are_the_weights_by_name_and_the_rest_are_buffers() -> None:
    module = to_torch(ir.from_proto(classifier()))
    assert parameters(module) == ["conv.weight", "bn.scale", "bn.bias", "fc.weight", "fc.bias"]
    assert buffers(module) == ["mean", "deviation", "bn.mean", "bn.var"]
    assert module.meta["parameters"] == {name: name for name in parameters(module)}


def test_the_model_is_not_changed() -> None:
    model = ir.from_proto(classifier())
    before = ir.to_proto(model).SerializeToString()
    to_torch(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_training_the_module_leaves_the_weights_of_the_model_alone() -> None:
    model = ir.from_proto(mlp())
    before = model.graph.initializers["fc1.weight"].const_value.numpy().copy()
    with torch.no_grad():
        to_torch(model).get_parameter("fc1.weight").zero_()
    np.testing.assert_array_equal(model.graph.initializers["fc1.weight"].const_value.numpy(), before)


def test_a_gemm_with_a_transposed_weight_is_one_linear() -> None:
    targets = [
        node.target for node in to_torch(ir.from_proto(mlp())).graph.nodes if node.op == "call_function"
    ]
    assert targets == [torch.nn.functional.linear, torch.relu, torch.nn.functional.linear]


def test_every_parameter_gets_a_gradient() -> None:
    module = to_torch(ir.from_proto(classifier()))
    module(torch.from_numpy(normal(3, 1, 8, 8)))[0].square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters()
    )


def test_a_copy_a_pickle_and_a_state_give_the_same_outputs() -> None:
    x = torch.from_numpy(normal(2, 1, 8, 8))
    module = to_torch(ir.from_proto(classifier()))
    expected = module(x)[0]
    fresh = to_torch(ir.from_proto(classifier()))
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(module.state_dict())
    for other in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        fresh,
        module.train(),
        module.eval(),
    ):
        assert torch.equal(other(x)[0], expected)
        assert parameters(other) == parameters(module)


def test_a_shared_weight_is_one_parameter_whose_gradients_add_up() -> None:
    model = model_of(
        [node("MatMul", "x w", "a"), node("Relu", "a", "b"), node("MatMul", "b w", "y")],
        [floats("x", "N", 4)],
        [floats("y", "N", 4)],
        {"w": normal(4, 4)},
    )
    module = assert_agrees(model, normal(3, 4))
    assert parameters(module) == ["w"]


def test_a_bias_add_is_trained_but_not_what_normalizes_the_input_nor_a_mask() -> None:
    model = model_of(
        [
            node("Add", "x shift", "s"),
            node("MatMul", "s w", "a"),
            node("Add", "a bias", "b"),
            node("Mul", "b two", "b2"),
            node("Add", "late b2", "c"),
            node("Add", "c one", "d"),
            node("Transpose", "d", "d2", perm=[0, 2, 1]),
            node("MatMul", "d d2", "scores"),
            node("Add", "scores mask", "y"),
        ],
        [floats("x", "N", 3, 4)],
        [floats("y", "N", 3, 3)],
        {
            "shift": normal(4),
            "w": normal(4, 5),
            "bias": normal(5, seed=1),
            "two": np.float32([2.0]),
            "late": normal(5, seed=2),
            "one": np.float32([1.0]),
            "mask": normal(3, 3, seed=3),
        },
    )
    module = assert_agrees(model, normal(2, 3, 4))
    assert parameters(module) == ["w", "bias", "late"]


def test_a_weight_behind_a_transpose_is_trained() -> None:
    model = model_of(
        [node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "x t", "y")],
        [floats("x", "N", 4)],
        [floats("y", "N", 6)],
        {"w": normal(6, 4)},
    )
    assert parameters(assert_agrees(model, normal(2, 4))) == ["w"]


def test_a_weight_in_a_constant_node_is_a_parameter() -> None:
    constant = helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(normal(4, 6), "w"))
    model = model_of([constant, node("MatMul", "x w", "y")], [floats("x", "N", 4)], [floats("y", "N", 6)], {})
    assert parameters(assert_agrees(model, normal(2, 4))) == ["w"]


@pytest.mark.parametrize("name", ["w", "a.b.c", "conv2d/kernel:0", "onnx::MatMul_12", "1.weight", "ü w-1"])
def test_a_parameter_keeps_its_onnx_name(name: str) -> None:
    model = named_weights(name)
    assert parameters(assert_agrees(model, normal(2, 4))) == [name]


@pytest.mark.parametrize(
    "names",
    [("a", "a.b"), ("a.b", "a"), ("forward",), ("class",), ("training",), ('quo"te',), ("a..b",), (".a",)],
)
def test_a_name_that_torch_cannot_hold_gets_another_which_meta_tells(names: tuple[str, ...]) -> None:
    module = assert_agrees(named_weights(*names), normal(2, 4))
    assert set(module.meta["parameters"]) == set(names)
    assert sorted(module.meta["parameters"].values()) == sorted(parameters(module))


def named_weights(*names: str) -> onnx.ModelProto:
    values = ["x", *(f"between {index}" for index in range(len(names) - 1)), "y"]
    return model_of(
        [
            helper.make_node("MatMul", [values[index], name], [values[index + 1]], f"node {index}")
            for index, name in enumerate(names)
        ],
        [floats("x", "N", 4)],
        [floats("y", "N", 4)],
        {name: normal(4, 4, seed=index) for index, name in enumerate(names)},
    )


@pytest.mark.parametrize("name", ["input.1", "self", "class", "1", "x:0", "int"])
def test_a_graph_input_of_any_name_is_an_argument(name: str) -> None:
    model = model_of(
        [helper.make_node("Relu", [name], ["y"])], [floats(name, "N", 4)], [floats("y", "N", 4)], {}
    )
    assert assert_agrees(model, normal(2, 4)).meta["inputs"] == [name]


def test_half_weights_are_held_in_float32() -> None:
    half = TensorProto.FLOAT16
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", half, ["N", 4])],
        [helper.make_tensor_value_info("y", half, ["N", 4])],
        {"w": normal(4, 4).astype(np.float16)},
    )
    x = normal(2, 4).astype(np.float16)
    module = to_torch(ir.from_proto(model))
    (result,) = module(torch.from_numpy(x))
    assert module.get_parameter("w").dtype == result.dtype == torch.float32
    np.testing.assert_allclose(result.detach().numpy(), in_onnxruntime(model, x)[0], rtol=1e-2, atol=1e-2)


def test_a_dynamic_batch_flows_through_shape_gather_concat_reshape_as_numbers() -> None:
    integers = {
        name: np.array(value, np.int64) for name, value in {"zero": 0, "rest": [-1], "axis": [0]}.items()
    }
    model = model_of(
        [
            node("Relu", "x", "r"),
            node("Shape", "r", "shape"),
            node("Gather", "shape zero", "batch"),
            node("Unsqueeze", "batch axis", "batches"),
            node("Concat", "batches rest", "target", axis=0),
            node("Reshape", "r target", "flat"),
            node("MatMul", "flat w", "y"),
        ],
        [floats("x", "N", 3, 4)],
        [floats("y", "N", 2)],
        {**integers, "w": normal(12, 2)},
    )
    module = assert_agrees(model, normal(2, 3, 4))
    assert_agrees(model, normal(5, 3, 4))
    assert "stacked" not in module.code
    assert "shape" not in [node.target for node in module.graph.nodes if callable(node.target)]
    assert buffers(module) == []


def test_a_shape_that_only_the_run_knows_still_reshapes() -> None:
    model = model_of(
        [
            node("NonZero", "x", "places"),
            node("Shape", "places", "shape"),
            node("ConstantOfShape", "shape", "zeros"),
            node("Reshape", "zeros shape", "y"),
        ],
        [floats("x", "N")],
        [floats("y", "A", "B")],
        {},
    )
    assert_agrees(model, np.float32([1, 0, 2, 0]))


def test_what_depends_on_constants_alone_is_computed_once() -> None:
    model = model_of(
        [node("Mul", "a b", "c"), node("Exp", "c", "d"), node("Mul", "x d", "y")],
        [floats("x", "N", 4)],
        [floats("y", "N", 4)],
        {"a": normal(4), "b": normal(4, seed=1)},
    )
    module = assert_agrees(model, normal(2, 4))
    assert buffers(module) == ["d"]


def branch(
    name: str, nodes: list[onnx.NodeProto], output: str, weights: dict[str, np.ndarray]
) -> onnx.GraphProto:
    initializers = [onnx.numpy_helper.from_array(array, key) for key, array in weights.items()]
    return helper.make_graph(nodes, name, [], [floats(output, None, None)], initializers)


def test_both_branches_of_an_if_are_trained_under_the_names_of_their_weights() -> None:
    then_branch = branch("then", [node("MatMul", "x w.then", "t")], "t", {"w.then": normal(4, 4)})
    else_branch = branch("else", [node("MatMul", "x shared", "e")], "e", {})
    model = model_of(
        [
            node("ReduceSum", "x", "sum", keepdims=0),
            node("Greater", "sum zero", "positive"),
            node("If", "positive", "z", then_branch=then_branch, else_branch=else_branch),
            node("MatMul", "z shared", "y"),
        ],
        [floats("x", "N", 4)],
        [floats("y", "N", 4)],
        {"zero": np.float32(0), "shared": normal(4, 4, seed=1)},
    )
    x = np.abs(normal(2, 4))
    module = assert_agrees(model, x)
    assert_agrees(model, -x)
    assert sorted(parameters(module)) == ["shared", "w.then"]
    module(torch.from_numpy(x))[0].sum().backward()
    assert module.get_parameter("w.then").grad is not None


def test_weights_of_one_name_in_two_branches_are_distinguished() -> None:
    branches = {
        f"{side}_branch": branch(
            side, [node("MatMul", "x l.w", side[0])], side[0], {"l.w": normal(4, 4, seed=seed)}
        )
        for seed, side in enumerate(("then", "else"))
    }
    model = model_of(
        [
            node("ReduceSum", "x", "sum", keepdims=0),
            node("Greater", "sum zero", "positive"),
            helper.make_node("If", ["positive"], ["y"], "choice", **branches),
        ],
        [floats("x", "N", 4)],
        [floats("y", "N", 4)],
        {"zero": np.float32(0)},
    )
    x = np.abs(normal(2, 4))
    module = assert_agrees(model, x)
    assert_agrees(model, -x)
    assert sorted(parameters(module)) == list(module.meta["parameters"]) == ["l.w", "l.w#2"]


def test_a_loop_carries_its_state_and_stacks_its_scans() -> None:
    body = helper.make_graph(
        [
            node("Identity", "go", "go_on"),
            node("MatMul", "state w", "next"),
            node("Tanh", "next", "scan"),
        ],
        "body",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            floats("state", None, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            floats("next", None, None),
            floats("scan", None, None),
        ],
    )
    model = model_of(
        [helper.make_node("Loop", ["three", "", "x"], ["y", "scans"], "loop", body=body)],
        [floats("x", "N", 4)],
        [floats("y", "N", 4), floats("scans", "T", "N", 4)],
        {"three": np.array(3, np.int64), "w": normal(4, 4)},
    )
    assert parameters(assert_agrees(model, normal(2, 4))) == ["w"]


def test_a_model_local_function_is_inlined() -> None:
    function = helper.make_function(
        "local", "Scale", ["a", "b"], ["c"], [node("MatMul", "a b", "c")], [helper.make_opsetid("", 17)]
    )
    graph = helper.make_graph(
        [helper.make_node("Scale", ["x", "w"], ["y"], domain="local")],
        "graph",
        [floats("x", "N", 4)],
        [floats("y", "N", 4)],
        [onnx.numpy_helper.from_array(normal(4, 4), "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)
    assert parameters(assert_agrees(model, normal(2, 4))) == ["w"]


def test_an_operator_without_an_entry_is_refused_in_one_sentence() -> None:
    model = model_of(
        [helper.make_node("StringNormalizer", ["x"], ["y"], "words")],
        [helper.make_tensor_value_info("x", TensorProto.STRING, [4])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, [4])],
        {},
    )
    with pytest.raises(UnsupportedOperatorError, match=r"StringNormalizer \(node 'words'\).*without --data"):
        to_torch(ir.from_proto(model))


def test_an_unknown_domain_is_named() -> None:
    graph = helper.make_graph(
        [helper.make_node("Odd", ["x"], ["y"], domain="my.domain")],
        "graph",
        [floats("x", 4)],
        [floats("y", 4)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    with pytest.raises(UnsupportedOperatorError, match=r"my\.domain::Odd \(node 'y'\)"):
        to_torch(ir.from_proto(helper.make_model(graph, opset_imports=opsets)))


@pytest.mark.parametrize("model", [mlp(), cnn()], ids=["mlp", "cnn"])
def test_the_small_models_of_the_tests_agree(model: onnx.ModelProto) -> None:
    shape = [
        2 if not size.dim_value else size.dim_value
        for size in model.graph.input[0].type.tensor_type.shape.dim
    ]
    assert_agrees(model, normal(*shape))


@pytest.mark.parametrize(("name", "shape"), [("lenet-300-100", (784,)), ("lenet-5", (1, 28, 28))])
def test_the_lenets_agree_and_train_all_but_the_input_normalization(
    name: str, shape: tuple[int, ...]
) -> None:
    model = onnx.load(REPOSITORY / "models" / f"{name}.onnx")
    module = assert_agrees(model, np.random.default_rng(0).random((3, *shape), np.float32))
    layers = {tensor.name for tensor in model.graph.initializer if tensor.name.endswith((".weight", ".bias"))}
    assert set(parameters(module)) == layers


def test_a_weight_that_no_output_needs_is_a_parameter_without_a_gradient() -> None:
    model = model_of(
        [node("MatMul", "x w", "y"), node("MatMul", "x idle", "z")],
        [floats("x", "N", 4)],
        [floats("y", "N", 4)],
        {"w": normal(4, 4), "idle": normal(4, 4)},
    )
    module = assert_agrees(model, normal(2, 4))
    assert parameters(module) == ["w", "idle"]
    module(torch.from_numpy(normal(2, 4)))[0].sum().backward()
    assert module.get_parameter("idle").grad is None


@pytest.mark.parametrize("op_type", ["RandomNormalLike", "RandomUniformLike"])
def test_noise_is_the_same_in_every_run_and_other_for_each_node(op_type: str) -> None:
    settings = {"mean": 1.0, "scale": 2.0} if op_type == "RandomNormalLike" else {"low": -1.0, "high": 3.0}
    nodes = [
        node("MatMul", "x w", "h"),
        node(op_type, "h", "one", **settings),
        node(op_type, "h", "other", **settings),
        node("Sub", "one other", "noise"),
        node("Mul", "h one", "y"),
    ]
    weights = {"w": normal(4, 300)}
    model = model_of(
        nodes, [floats("x", "N", 4)], [floats(name, "N", 300) for name in ("y", "one", "noise")], weights
    )
    module = to_torch(ir.from_proto(model))
    x = torch.from_numpy(normal(50, 4, seed=1))
    y, one, noise = module(x)
    for first, again in zip((y, one, noise), module(x), strict=True):
        assert torch.equal(first, again)
    assert noise.abs().mean() > 0.5
    assert abs(float(one.mean()) - 1) < 0.1
    deviation = 2 if op_type == "RandomNormalLike" else 4 / 12**0.5
    assert abs(float(one.std()) - deviation) < 0.1
    y.sum().backward()
    torch.testing.assert_close(module.w.grad, x.t() @ one)


@pytest.mark.parametrize("made", [lambda module: module, copy.deepcopy])
def test_a_run_that_fails_prints_nothing(made, capfd):
    module = made(to_torch(ir.from_proto(mlp())))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        module(torch.zeros(2, 9))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_weights_in_8_bit_floats_are_read_as_they_are_and_not_trained(kind):
    constants = {
        "q": normal(8, 16).astype(getattr(ml_dtypes, kind)),
        "s": np.float32(0.5),
        "v": normal(16, 4),
    }
    text = "g (float[N,8] x) => (float[N,4] y) { d = DequantizeLinear (q, s) h = MatMul (x, d) y = MatMul (h, v) }"
    module = assert_agrees(written(text, constants, opset=19), normal(3, 8, seed=1))
    assert parameters(module) == ["v"]
