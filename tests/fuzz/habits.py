"""Small models of the habits of real exporters and runtimes, each with eight samples of data: the whole table."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from tests.builders import cnn, mlp, normal
from tests.fuzz import habit_integers, habit_operators, habit_values
from tests.fuzz.habit import HABITS, SAMPLES, TWO, Habit, classes, dense, habit, mlp_of, tail
from tests.fuzz.models import written

__all__ = ["HABITS", "Habit", "habit_integers", "habit_operators", "habit_values"]


@habit("plain")
def _plain() -> Habit:
    return Habit(mlp(), {"x": normal(SAMPLES, 8)}, classes())


for _opset in (7, 8, 9, 10, 11, 12, 13, 18, 21, 22):
    HABITS[f"opset {_opset}"] = lambda opset=_opset: Habit(
        mlp(opset=opset), {"x": normal(SAMPLES, 8)}, classes()
    )


@habit("convolutions")
def _convolutions() -> Habit:
    return Habit(cnn(), {"x": normal(SAMPLES, 1, 8, 8)}, classes())


@habit("trailing empty outputs")
def _trailing() -> Habit:
    """As older exporters write Dropout and BatchNormalization."""
    found = mlp_of("d = Dropout (h) r = Relu (d)")
    found.model.graph.node[1].output.append("")
    return found


@habit("trailing empty inputs")
def _trailing_inputs() -> Habit:
    found = mlp_of("c = Clip (h, low) r = Relu (c)", {"low": np.float32(-1)})
    found.model.graph.node[1].input.append("")
    return found


@habit("initializers listed as inputs")
def _listed() -> Habit:
    found = mlp_of("r = Relu (h)", opset=8)
    found.model.ir_version = 3
    for tensor in found.model.graph.initializer:
        found.model.graph.input.append(helper.make_tensor_value_info(tensor.name, 1, tensor.dims))
    return found


@habit("weight_norm")
def _weight_norm() -> Habit:
    return dense(
        """g (float[N,8] x) => (float[N,4] y) {
            n = ReduceL2 <axes = [1], keepdims = 1> (direction) q = Div (direction, n) m = Mul (q, size)
            t = Transpose <perm = [1,0]> (m) h = MatMul (x, t) r = Relu (h) y = MatMul (r, v) }""",
        {"direction": normal(16, 8), "size": np.abs(normal(16, 1)), "v": TWO["v"]},
    )


@habit("tied weights")
def _tied() -> Habit:
    return dense(
        """g (float[N,8] x) => (float[N,8] y) {
            h = MatMul (x, w) r = Relu (h) t = Transpose <perm = [1,0]> (w) y = MatMul (r, t) }""",
        {"w": normal(8, 16)},
        labels=None,
    )


@habit("one weight in two nodes")
def _shared() -> Habit:
    return dense(
        "g (float[N,8] x) => (float[N,8] y) { a = MatMul (x, w) b = Relu (a) c = MatMul (b, w) y = MatMul (c, w) }",
        {"w": normal(8, 8)},
        labels=None,
    )


@habit("batch 1 fixed")
def _batch_one() -> Habit:
    text = "g (float[1,8] x) => (float[1,4] y) { h = MatMul (x, w) r = Relu (h) y = MatMul (r, v) }"
    return Habit(written(text, TWO), {"x": normal(SAMPLES, 8)}, classes())


@habit("batch 1 fixed in a Reshape")
def _batch_one_reshape() -> Habit:
    text = """g (float[1,8] x) => (float[1,4] y) {
        h = MatMul (x, w) s = Reshape (h, shape) r = Relu (s) f = Reshape (r, back) y = MatMul (f, v) }"""
    weights = TWO | {"shape": np.array([1, 4, 4]), "back": np.array([1, 16])}
    return Habit(written(text, weights), {"x": normal(SAMPLES, 8)}, classes())


@habit("time-major LSTM with lengths")
def _lengths() -> Habit:
    text = """g (float[T,N,4] x, int32[N] lengths) => (float[N,3] y) {
        , s = LSTM <hidden_size = 6> (x, w, r, b, lengths) q = Squeeze (s, zero) y = MatMul (q, v) }"""
    weights = {"w": normal(1, 24, 4), "r": normal(1, 24, 6, seed=1), "b": normal(1, 48, seed=2)}
    weights |= {"v": normal(6, 3), "zero": np.array([0])}
    inputs = {"x": normal(SAMPLES, 5, 4), "lengths": np.full(SAMPLES, 5, np.int32)}
    return Habit(written(text, weights), inputs, classes(3))


@habit("recurrent state inputs")
def _states() -> Habit:
    text = """g (float[T,N,4] x, float[1,N,6] h0) => (float[N,3] y, float[1,N,6] hn) {
        , hn = GRU <hidden_size = 6> (x, w, r, b, , h0) q = Squeeze (hn, zero) y = MatMul (q, v) }"""
    weights = {"w": normal(1, 18, 4), "r": normal(1, 18, 6, seed=1), "b": normal(1, 36, seed=2)}
    weights |= {"v": normal(6, 3), "zero": np.array([0])}
    inputs = {"x": normal(SAMPLES, 5, 4), "h0": normal(SAMPLES, 1, 6)}
    return Habit(written(text, weights), inputs)


@habit("bidirectional RNN")
def _bidirectional() -> Habit:
    text = """g (float[5,N,4] x) => (float[N,3] y) {
        , s = RNN <hidden_size = 6, direction = "bidirectional"> (x, w, r) q = Transpose <perm = [1,0,2]> (s)
        f = Flatten (q) y = MatMul (f, v) }"""
    weights = {"w": normal(2, 6, 4), "r": normal(2, 6, 6, seed=1), "v": normal(12, 3)}
    return Habit(written(text, weights), {"x": normal(SAMPLES, 5, 4)})


@habit("adjacency matrix")
def _adjacency() -> Habit:
    """A graph network: the rows are nodes, and both inputs follow them."""
    text = """g (float[V,8] x, float[V,V] a) => (float[V,4] y) {
        m = MatMul (a, x) h = MatMul (m, w) r = Relu (h) y = MatMul (r, v) }"""
    return Habit(
        written(text, TWO),
        {"x": normal(6, 8), "a": np.eye(6, dtype=np.float32)},
        None,
        {"batch_axis": ("none",)},
    )


@habit("int64 ids")
def _ids() -> Habit:
    text = """g (int64[N,6] ids) => (float[N,4] y) {
        e = Gather (table, ids) m = ReduceMean <axes = [1], keepdims = 0> (e) h = MatMul (m, w) r = Relu (h)
        y = MatMul (r, v) }"""
    ids = np.random.default_rng(0).integers(0, 20, (SAMPLES, 6))
    return Habit(written(text, TWO | {"table": normal(20, 8)}), {"ids": ids}, classes())


@habit("ids one by one in a table of one column")
def _column() -> Habit:
    text = """g (int64[N] ids) => (float[N,4] y) {
        e = Gather (table, ids) h = MatMul (e, w) r = Relu (h) y = MatMul (r, v) }"""
    return Habit(written(text, TWO | {"table": normal(20, 8)}), {"ids": np.arange(SAMPLES)}, classes())


@habit("no weights")
def _no_weights() -> Habit:
    return Habit(
        written("g (float[N,8] x) => (float[N,8] y) { y = Relu (x) }", {}), {"x": normal(SAMPLES, 8)}
    )


@habit("empty graph")
def _empty_graph() -> Habit:
    return Habit(written("g (float[N,8] x) => (float[N,8] x) { }", {}), {"x": normal(SAMPLES, 8)})


@habit("output that no input reaches")
def _constant_output() -> Habit:
    return tail("y = Identity (p) c = Identity (u)", "float[N,4] y, float[4] c", {"u": normal(4)})


@habit("input that nothing reads")
def _unread() -> Habit:
    text = "g (float[N,8] x, float[N,3] unread) => (float[N,4] y) { h = MatMul (x, w) r = Relu (h) y = MatMul (r, v) }"
    return Habit(written(text, TWO), {"x": normal(SAMPLES, 8), "unread": normal(SAMPLES, 3)}, classes())


@habit("input as an output")
def _passed() -> Habit:
    text = "g (float[N,8] x) => (float[N,4] y, float[N,8] x) { h = MatMul (x, w) r = Relu (h) y = MatMul (r, v) }"
    return Habit(written(text, TWO), {"x": normal(SAMPLES, 8)}, classes())


@habit("weights that are all zero")
def _zeros() -> Habit:
    found = mlp_of("r = Relu (h)")
    found.model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((8, 16), np.float32), "w"))
    return found


@habit("weights of one element")
def _tiny() -> Habit:
    text = "g (float[N,1] x) => (float[N,1] y) { h = MatMul (x, w) r = Relu (h) y = MatMul (r, v) }"
    one = np.ones((1, 1), np.float32)
    return Habit(written(text, {"w": one, "v": one}), {"x": normal(SAMPLES, 1)})


@habit("names with slashes and spaces")
def _names() -> Habit:
    found = mlp_of("r = Relu (h)")
    for tensor in found.model.graph.initializer:
        tensor.name = f"/model 1/{tensor.name}::weight[0]"
    for node in found.model.graph.node:
        node.input[:] = [f"/model 1/{name}::weight[0]" if name in TWO else name for name in node.input]
    return found


@habit("unknown shapes")
def _unknown() -> Habit:
    found = mlp_of("r = Relu (h)")
    found.model.graph.output[0].type.tensor_type.ClearField("shape")
    return found
