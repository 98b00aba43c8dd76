"""Model-local functions with weights are inlined; the others stay."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune.errors import NothingToPruneError
from onnxprune.model.files.io import load
from onnxprune.model.weights import find_weights
from tests.builders import initializer, normal
from tests.fuzz.models import MODELS, written

GRAPH = "g (float[N,8] x) => (float[N,4] y)"
DENSE = "dense (a, b) => (c) { m = MatMul (a, b) c = Relu (m) }"


def local(*definitions, opset=17):
    return "\n".join(
        f'<domain: "local", opset_import: ["" : {opset}, "local" : 1]> {text}' for text in definitions
    )


def outputs(model, x):
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]


def names(model):
    return [function.name for function in model.functions]


def test_each_call_of_a_function_has_its_own_weight():
    model = MODELS["function"]()
    result = onnxprune.prune(model, rate=0.5, format="dense", remove_dead=False)
    assert [(layer.name, layer.kept) for layer in result.report.layers] == [("w", 24), ("v", 12)]
    assert names(result.model) == []
    assert any("inlined because they contain weights: dense" in note for note in result.report.notes)


def test_weights_in_constants_and_in_functions_of_functions_are_pruned():
    numbers = ", ".join(f"{number:.3f}" for number in normal(32).ravel())
    inner = f"inner (a) => (c) {{ k = Constant <value = float[8,4] {{ {numbers} }}> () c = MatMul (a, k) }}"
    model = written(
        f"{GRAPH} {{ h = local.outer (x) y = Relu (h) }}",
        {},
        functions=local("outer (a) => (c) { c = local.inner (a) }", inner),
    )
    result = onnxprune.prune(model, rate=0.5, remove_dead=False)
    assert [layer.kept for layer in result.report.layers] == [16]


def test_functions_without_weights_stay_and_nothing_changes_at_rate_0():
    model = written(
        f"{GRAPH} {{ r = local.twice (x) h = local.dense (r, w) y = local.twice (h) }}",
        {"w": normal(8, 4)},
        functions=local(DENSE, "twice (a) => (c) { c = Add (a, a) }"),
    )
    result = onnxprune.prune(model, rate=0)
    assert names(result.model) == ["twice"]
    x = normal(3, 8)
    assert np.array_equal(outputs(model, x), outputs(result.model, x))


def test_names_of_bodies_do_not_meet_those_of_the_graph_and_its_subgraphs():
    model = written(
        """g (float[N,8] x, bool k) => (float[N,4] y) {
            m = local.dense (x, w)
            y = If (k) <then_branch = t () => (float[N,4] o) { m_2 = local.dense (m, v) o = Relu (m_2) },
                        else_branch = e () => (float[N,4] p) { c = local.dense (m, v) p = Neg (c) }>
        }""",
        {"w": normal(8, 6), "v": normal(6, 4, seed=1)},
        functions=local(DENSE),
    )
    feeds = {"x": normal(3, 8), "k": np.array(False)}
    result = onnxprune.prune(model, rate=0)
    assert len(result.report.layers) == 2
    found = [
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for m in (model, result.model)
    ]
    assert np.array_equal(*found)
    onnx.checker.check_model(result.model, full_check=True)


def test_a_function_of_another_opset_is_named_with_what_to_do():
    model = written(
        f"{GRAPH} {{ y = local.dense (x, w) }}", {"w": normal(8, 4)}, functions=local(DENSE, opset=16)
    )
    operand, argument = find_weights(load(model)[0]).unprunable
    assert (argument.weight, argument.op_type, argument.size) == ("w", "dense", 32)
    assert "opset 16 and the model opset 17" in operand.reason
    with pytest.raises(NothingToPruneError, match=r"onnx\.inliner"):
        onnxprune.prune(model, rate=0.5)


def test_weights_in_functions_are_fine_tuned():
    x = normal(64, 8)
    y = np.maximum(x @ normal(8, 4, seed=3), 0)
    model = written(f"{GRAPH} {{ y = local.dense (x, w) }}", {"w": normal(8, 4)}, functions=local(DENSE))
    result = onnxprune.prune(model, rate=0.5, data={"x": x, "labels": y}, epochs=5, format="dense")
    before, after = initializer(model, "w"), initializer(result.model, "w")
    assert np.count_nonzero(after) == 16
    assert not np.isin(after[after != 0], before).any()
