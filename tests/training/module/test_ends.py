"""Where training graphs end, and what of a model they give: against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from onnxprune.training.module.ends import Ends, UnsupportedOperatorError, until
from onnxprune.training.module.graph import to_torch
from tests.builders import floats, normal

WEIGHTS = {"w1": normal(4, 6), "w2": normal(6, 3, seed=1)}
X = normal(5, 4, seed=2)


def node(op_type: str, inputs: str, outputs: str, **attributes) -> onnx.NodeProto:
    domain = "ai.onnx.ml" if op_type in ("Scaler", "LabelEncoder", "ZipMap", "Normalizer") else ""
    return helper.make_node(op_type, inputs.split(), outputs.split(), outputs, domain=domain, **attributes)


def layers(data: str = "x") -> list[onnx.NodeProto]:
    return [node("MatMul", f"{data} w1", "h"), node("Relu", "h", "r"), node("MatMul", "r w2", "l")]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    outputs: dict[str, int],
    inputs: Sequence[onnx.ValueInfoProto] = (floats("x", "N", 4),),
    **constants: np.ndarray,
) -> ir.Model:
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    stored = [onnx.numpy_helper.from_array(a, name) for name, a in (WEIGHTS | constants).items()]
    graph = helper.make_graph(nodes, "graph", inputs, infos, stored)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def trained(model: ir.Model) -> tuple[torch.fx.GraphModule, Ends]:
    module = to_torch(model, (), [value.name for value in model.graph.outputs])
    return module, module.meta["ends"]


def assert_gives(model: ir.Model, module: torch.fx.GraphModule, names: Sequence[str], *inputs) -> None:
    """The outputs of the module are those values in onnxruntime."""
    proto = ir.to_proto(model)
    proto.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in [o.name for o in proto.graph.output]
    )
    feeds = {value.name: array for value, array in zip(proto.graph.input, inputs, strict=True)}
    expected = ort.InferenceSession(proto.SerializeToString()).run(list(names), feeds)
    given = [each if each.dtype.kind in "OSU" else torch.from_numpy(each) for each in inputs]
    for one, other in zip(module(*given), expected, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other, rtol=1e-5, atol=1e-6)


def assert_all_trained(module: torch.fx.GraphModule, *inputs) -> None:
    """Every parameter gets a gradient from the outputs that have one."""
    outputs = [output for output in module(*inputs) if output.requires_grad]
    sum(output.square().sum() for output in outputs).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_what_a_value_without_a_gradient_is_made_of_is_trained_beside_it() -> None:
    model = model_of([*layers(), node("ArgMax", "l", "label", axis=1)], {"label": TensorProto.INT64})
    module, ends = trained(model)
    assert ends.names == ("label", "l") and ends.stand_ins == {"label": ("l",)} and not ends.left_out
    assert_gives(model, module, ends.names, X)
    assert_all_trained(module, torch.from_numpy(X))


@pytest.mark.parametrize(
    "last",
    [
        [node("TopK", "l k", "values best", axis=1)],
        [node("Greater", "l zero", "best")],
        [
            node("Cast", "l", "whole", to=TensorProto.INT32),
            node("Cast", "whole", "best", to=TensorProto.FLOAT),
        ],
        [node("Round", "l", "best")],
        [node("NonZero", "l", "places"), node("Transpose", "places", "best")],
    ],
)
def test_steps_have_no_gradient(last: list[onnx.NodeProto]) -> None:
    kind = {"TopK": TensorProto.INT64, "Greater": TensorProto.BOOL, "NonZero": TensorProto.INT64}
    model = model_of(
        [*layers(), *last],
        {"best": kind.get(last[0].op_type, TensorProto.FLOAT)},
        k=np.array([2]), zero=np.zeros((), np.float32),
    )  # fmt: skip
    module, ends = trained(model)
    assert ends.names == ("best", "l")
    assert_gives(model, module, ends.names, X)
    assert_all_trained(module, torch.from_numpy(X))


def test_an_output_that_follows_already_is_not_followed_twice() -> None:
    nodes = [*layers(), node("Softmax", "l", "p"), node("ArgMax", "l", "label", axis=1)]
    _, ends = trained(model_of(nodes, {"label": TensorProto.INT64, "p": TensorProto.FLOAT}))
    assert ends.names == ("label", "p") and ends.stand_ins == {"label": ("p",)}
    assert ends.operators == ("ArgMax", "Softmax")


def test_operators_without_an_entry_at_the_end_are_left_out() -> None:
    nodes = [
        *layers(),
        node("Unsqueeze", "r zero", "rows"),
        node("Slice", "rows zero four two", "boxes"),
        node("Sigmoid", "l", "p"),
        node("Unsqueeze", "p zero", "odd"),
        node("Transpose", "odd", "scores", perm=[0, 2, 1]),
        node("NonMaxSuppression", "boxes scores most", "chosen"),
        node("Slice", "chosen two three one", "places"),
        node("Squeeze", "places", "flat"),
        node("Gather", "l flat", "found"),
    ]
    model = model_of(
        nodes, {"found": TensorProto.FLOAT, "chosen": TensorProto.INT64},
        zero=np.array([0]), four=np.array([4]), two=np.array([2]), most=np.array([2]), three=np.array([3]),
        one=np.array([1]),
    )  # fmt: skip
    module, ends = trained(model)
    assert ends.left_out[0] == "NonMaxSuppression (chosen)"
    assert set(ends.names) == {"boxes", "scores", "l"}
    assert set(ends.stand_ins["chosen"]) == {"boxes", "scores"}
    assert_gives(model, module, ends.names, X)
    assert_all_trained(module, torch.from_numpy(X))


def test_an_operator_without_an_entry_between_weights_is_refused_with_a_way_on() -> None:
    nodes = [*layers()[:2], node("Normalizer", "r", "n", norm="L2"), node("MatMul", "n w2", "y")]
    with pytest.raises(
        UnsupportedOperatorError, match=r"Normalizer \(node 'n'\).*give --train-until r to train"
    ):
        trained(model_of(nodes, {"y": TensorProto.FLOAT}))


def test_a_model_without_any_gradient_is_refused() -> None:
    nodes = [node("Identity", "x", "y")]
    with pytest.raises(UnsupportedOperatorError, match="no weight leads to an output"):
        trained(model_of(nodes, {"y": TensorProto.FLOAT}))


def test_the_front_of_a_model_is_run_by_onnxruntime() -> None:
    scale = node("Scaler", "x", "s", offset=[1.0, 2.0, 3.0, 4.0], scale=[2.0, 3.0, 4.0, 5.0])
    model = model_of([scale, *layers("s")], {"l": TensorProto.FLOAT})
    module, ends = trained(model)
    assert ends.names == ("l",) and not ends.stand_ins
    assert_gives(model, module, ends.names, X)
    assert_all_trained(module, torch.from_numpy(X))


def test_texts_go_through_the_front_as_they_are() -> None:
    nodes = [
        node("Reshape", "words flat", "list"),
        node(
            "LabelEncoder", "list", "number", keys_strings=["a", "b"], values_int64s=[1, 2], default_int64=0
        ),
        node("Gather", "table number", "e"),
        node("Add", "x e", "s"),
        *layers("s"),
    ]
    words = helper.make_tensor_value_info("words", TensorProto.STRING, ["N", 1])
    model = model_of(
        nodes, {"l": TensorProto.FLOAT, "list": TensorProto.STRING}, [floats("x", "N", 4), words],
        table=normal(3, 4, seed=4), flat=np.array([-1]),
    )  # fmt: skip
    module, ends = trained(model)
    assert ends.names == ("l",)
    texts = np.array([["a"], ["b"], ["c"], ["a"], ["b"]], object)
    assert_gives(model, module, ends.names, X, texts)
    copy = torch.fx.GraphModule(module, module.graph)
    assert torch.equal(copy(torch.from_numpy(X), texts)[0], module(torch.from_numpy(X), texts)[0])


def test_an_own_choice_names_a_node_or_a_value() -> None:
    model = model_of(layers(), {"l": TensorProto.FLOAT})
    assert [value.name for value in until(model, "r")] == ["r"]
    with pytest.raises(Exception, match=r"--train-until rr: the model has no node.*such as r"):
        until(model, "rr")


def test_weights_that_no_end_needs_are_parameters_all_the_same() -> None:
    model = model_of(layers(), {"l": TensorProto.FLOAT})
    model.graph.outputs[:] = until(model, "r")
    module, _ = trained(model)
    assert sorted(name for name, _ in module.named_parameters()) == ["w1", "w2"]
    assert_gives(model, module, ["r"], X)
