"""Weights behind computed constants: folded and pruned, or left and named with their share."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.sparse.opening import open_model
from tests.builders import normal
from tests.fuzz.models import written

X, Y = "float[N,8] x", "float[N,6] y"
W = {"w": normal(8, 6)}
TALL = {"w": normal(8, 12)}
AXES = {"zero": np.array([0]), "one": np.array([1])}

# Nodes that make v (8, 6), the weight of MatMul (x, v), and the constants they read; the name that v has once folded.
FOLDED = {
    "weight_norm": (
        "n = ReduceL2 <axes = [0], keepdims = 1> (w) d = Div (w, n) v = Mul (d, g)",
        W | {"g": normal(1, 6)},
        "v",
    ),
    "a scale": ("v = Mul (w, s)", W | {"s": np.float32(0.5)}, "v"),
    "a scale, then Transpose": (
        "m = Mul (w, s) v = Transpose (m)",
        {"w": normal(6, 8), "s": np.float32(2)},
        "m",
    ),
    "Concat": ("v = Concat <axis = 1> (w, w2)", {"w": normal(8, 4), "w2": normal(8, 2)}, "v"),
    "Split": ("v, rest = Split <axis = 1> (w)", TALL, "v"),
    "Slice": ("v = Slice (w, zero, six, one)", TALL | AXES | {"six": np.array([6])}, "v"),
    "Gather": ("v = Gather <axis = 1> (w, order)", W | {"order": np.array([5, 4, 3, 2, 1, 0])}, "v"),
    "LoRA": ("ba = MatMul (b, a) v = Add (w, ba)", W | {"b": normal(8, 2), "a": normal(2, 6)}, "v"),
    "a vector behind Reshape": ("v = Reshape (w, s)", {"w": normal(48), "s": np.array([8, 6])}, "w"),
    "Reshape of other axes": ("v = Reshape (w, s)", {"w": normal(2, 4, 6), "s": np.array([8, 6])}, "w"),
    "Squeeze": ("v = Squeeze (w, zero)", {"w": normal(1, 8, 6), "zero": np.array([0])}, "w"),
    "Flatten": ("v = Flatten <axis = 2> (w)", {"w": normal(2, 4, 6)}, "w"),
    "float16 that is scaled in float32": (
        "c = Cast <to = 1> (w) v = Mul (c, s)",
        {"w": normal(8, 6).astype("f2"), "s": np.float32(0.5)},
        "v",
    ),
    "a Constant node of numbers": ("s = Constant <value_float = 0.5> () v = Mul (w, s)", W, "v"),
}
# Nodes, constants, and why v stays computed.
LEFT = {
    "shared with another node": (
        "v = Mul (w, s) also = Identity (w)",
        W | {"s": np.float32(2)},
        "also",
        "other nodes",
    ),
    "made of a single number": (
        "v = Expand (w, s)",
        {"w": np.float32([1.0]), "s": np.array([8, 6])},
        None,
        "much smaller",
    ),
    "int8 that is scaled by hand": (
        "c = Cast <to = 1> (w) v = Mul (c, s)",
        {"w": (20 * normal(8, 6)).astype("i1"), "s": np.float32(0.1)},
        None,
        "much smaller",
    ),
    "random": ("n = RandomNormalLike (w) v = Add (w, n)", W, None, "by Add"),
}


def model_with(nodes, constants, output=None):
    outputs = Y if output is None else f"{Y}, float[8,6] {output}"
    return written(f"g ({X}) => ({outputs}) {{ {nodes} y = MatMul (x, v) }}", constants)


def outputs_of(model):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": normal(3, 8, seed=9)})


@pytest.mark.parametrize("name", FOLDED)
def test_a_computed_weight_is_folded_and_pruned_and_the_outputs_stay(name):
    nodes, constants, folded = FOLDED[name]
    model = model_with(nodes, constants)
    kept = onnxprune.prune(model, rate=0.0, remove_dead=False, format="dense")
    np.testing.assert_allclose(outputs_of(kept.model)[0], outputs_of(model)[0], rtol=1e-5, atol=1e-6)
    assert [entry.name for entry in kept.model.graph.initializer] == [folded]
    result = onnxprune.prune(model, rate=0.5, remove_dead=False, format="dense")
    (layer,) = result.report.layers
    assert (layer.name, layer.size, layer.kept) == (folded, 48, 24)
    (weight,) = result.model.graph.initializer
    assert np.count_nonzero(numpy_helper.to_array(weight)) == 24
    assert any(f"{folded} (by " in note for note in result.report.notes)
    assert not result.report.unprunable


def test_the_values_of_a_folded_weight_are_those_that_the_nodes_computed():
    w, g = normal(8, 6), normal(1, 6, seed=1)
    nodes = "n = ReduceL2 <axes = [0], keepdims = 1> (w) d = Div (w, n) v = Mul (d, g)"
    (weight,) = open_model(model_with(nodes, {"w": w, "g": g})).model.graph.initializers.values()
    expected = w / np.sqrt((w**2).sum(axis=0, keepdims=True)) * g
    np.testing.assert_allclose(weight.const_value.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", LEFT)
def test_a_weight_that_does_not_fold_is_named_with_its_share(name):
    nodes, constants, output, reason = LEFT[name]
    model = model_with(nodes, constants, output)
    found = onnxprune.inspect(model)
    assert not found.weights
    one = next(one for one in found.unprunable if one.weight == "v")
    assert one.op_type == "MatMul"
    assert sum(one.size for one in found.unprunable) == (
        constants["w"].size if constants["w"].size > 1 else 0
    )
    assert reason in one.reason
    assert [node.op_type for node in open_model(model).model.graph] == [
        node.op_type for node in model.graph.node
    ]


def test_the_summary_gives_the_share_of_what_is_left():
    nodes = "v = Mul (w, s) also = Identity (w) h = MatMul (x, v) y = MatMul (h, u)"
    text = f"g ({X}) => ({Y}, float[8,8] also) {{ {nodes} }}"
    model = written(text, {"w": normal(8, 8), "u": normal(8, 6), "s": np.float32(2)})
    result = onnxprune.prune(model, rate=0.5)
    (note,) = (note for note in result.report.notes if "left as they are" in note)
    assert note.startswith("64 of 112 weights (57.14%) were left as they are")
    assert "v of MatMul" in note


def test_several_parts_of_one_weight_are_folded_together_or_not_at_all():
    parts = "a, b = Split <axis = 1> (w) h = MatMul (x, a)"
    folded = written(f"g ({X}) => ({Y}) {{ {parts} y = Add (h, b) }}", {"w": normal(8, 12)})
    graph = open_model(folded).model.graph
    assert set(graph.initializers) == {"a", "b"}
    assert [node.op_type for node in graph] == ["MatMul", "Add"]
    read = written(
        f"g ({X}) => ({Y}, float[8,12] z) {{ {parts} z = Relu (w) y = Add (h, b) }}", {"w": normal(8, 12)}
    )
    assert set(open_model(read).model.graph.initializers) == {"w"}


def test_lstm_weights_in_another_order_of_gates_are_folded():
    """torch's exporter without constant folding: Slice, Concat and Unsqueeze between the parameters and the LSTM."""
    cut = "{0}{1} = Slice ({0}, at{1}, at{2}, zero)"
    slices = " ".join(cut.format(name, n, n + 1) for name in "wr" for n in range(4))
    text = f"""g (float[T,N,3] x) => (float[T,1,N,5] y) {{ {slices}
        wc = Concat <axis = 0> (w0, w3, w1, w2) rc = Concat <axis = 0> (r0, r3, r1, r2)
        wu = Unsqueeze (wc, zero) ru = Unsqueeze (rc, zero) y = LSTM <hidden_size = 5> (x, wu, ru) }}"""
    constants = {f"at{n}": np.array([5 * n]) for n in range(5)} | {"zero": np.array([0])}
    model = written(text, {"w": normal(20, 3), "r": normal(20, 5)} | constants)
    result = onnxprune.prune(model, rate=0.5, remove_dead=False, format="dense")
    assert {(layer.name, layer.size, layer.kept) for layer in result.report.layers} == {
        ("wu", 60, 30),
        ("ru", 100, 50),
    }
    assert [node.op_type for node in result.model.graph.node] == ["LSTM"]


def test_a_computed_weight_in_a_body_is_folded_where_it_is():
    text = f"""g ({X}, bool c) => ({Y}) {{
        y = If (c) <then_branch = t () => (float[N,6] a) {{ s = Mul (w, k) a = MatMul (x, s) }},
                    else_branch = e () => (float[N,6] b) {{ s = Mul (u, k) b = MatMul (x, s) }}>
    }}"""
    model = written(text, W | {"u": normal(8, 6, seed=4), "k": np.float32(3)})
    feeds = {"x": normal(3, 8, seed=9), "c": np.array(False)}
    result = onnxprune.prune(model, rate=0.0, remove_dead=False, format="dense")
    sessions = [
        ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"])
        for each in (model, result.model)
    ]
    first, second = (session.run(None, feeds)[0] for session in sessions)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    assert [layer.size for layer in result.report.layers] == [48, 48]


@pytest.mark.parametrize(("ir_version", "folded"), [(3, True), (4, False)])
def test_only_what_callers_cannot_replace_is_folded(ir_version, folded):
    model = written(
        f"g ({X}) => ({Y}) {{ v = Mul (w, s) y = MatMul (x, v) }}", W | {"s": np.float32(2)}, opset=9
    )
    model.ir_version = ir_version
    for name, shape in (("w", [8, 6]), ("s", [])):
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, 1, shape))
    graph = open_model(model).model.graph
    assert (set(graph.initializers) == {"v"}) is folded
    if folded:
        assert [value.name for value in graph.inputs] == ["x", "v"]


def test_fine_tuning_reaches_a_folded_weight():
    nodes, constants, _ = FOLDED["weight_norm"]
    data = {"x": normal(64, 8), "labels": np.arange(64) % 6}
    model = model_with(nodes, constants)
    pruned = onnxprune.prune(model, rate=0.5, format="dense", remove_dead=False)
    trained = onnxprune.prune(model, rate=0.5, format="dense", remove_dead=False, data=data, epochs=1)
    first, second = (numpy_helper.to_array(each.model.graph.initializer[0]) for each in (pruned, trained))
    assert np.count_nonzero(second) == 24
    assert not np.allclose(first, second)
