"""Groups of several products that the execution provider runs as one node."""

import re
import threading

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxprune import runtime
from tests.runtime.sessions import ISAS, assert_close, use_isa
from tests.runtime.test_provider import left_behind_mb, needs_provider, profiled, provider_session
from tests.sparse.graphs import dense_array, parse, run, sparse_array

A = sparse_array(16, 8, 3, 3, density=0.2, seed=1)
B = sparse_array(16, 16, 1, 1, density=0.2, seed=2)
C = sparse_array(24, 16, 3, 3, density=0.1, seed=3)
CONSTANTS = {
    "a": A,
    "b": B,
    "c": C,
    "two": sparse_array(16, 16, 3, 3, density=0.1, seed=4),
    "d": dense_array(16, 1, 3, 3, seed=5),
    "e": dense_array(16, 1, 5, 5, seed=6),
    "bias": dense_array(16, seed=7),
    "stem": dense_array(16, 3, 3, 3, seed=8),
    "wide": dense_array(13, 3, 7, 7, seed=9),
    "after": sparse_array(16, 13, 1, 1, density=0.3, seed=10),
    "low": np.float32(0),
    "high": np.float32(6),
}
X = "float[n, 8, h, w] x"  # h and w are numbers, or open
Y = "float[n, m, k, l] y"
IMAGE = "float[n, 3, h, w] x"
CONV = "p = Conv <pads = [1, 1, 1, 1]> (x, a, bias)"
# A graph, how many nodes the provider runs, and the operators that onnxruntime is left with.
GRAPHS = {
    "chain": (f"g ({X}) => ({Y}) {{ {CONV} q = Relu (p) y = Conv (q, b) }}", 1, []),
    "residual": (
        f"g ({X}) => ({Y}) {{ {CONV} q = Conv (p, b) r = Conv <pads = [1, 1, 1, 1]> (p, two) "
        "s = Add (q, r) t = Relu (s) y = Conv (t, b) }",
        1,
        [],
    ),
    "pools": (
        f"g ({X}) => ({Y}) {{ {CONV} q = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (p) "
        "r = Conv (q, b) s = AveragePool <kernel_shape = [2, 3], strides = [1, 2], pads = [0, 1, 1, 0]> (r) "
        "t = AveragePool <kernel_shape = [2, 2], count_include_pad = 1, pads = [1, 0, 0, 1]> (s) "
        "y = GlobalAveragePool (t) }",
        1,
        [],
    ),
    "pools of steps": (
        f"g ({X}) => ({Y}) {{ {CONV} q = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (p) r = Conv (q, b) "
        "s = MaxPool <kernel_shape = [3, 3], strides = [1, 2], pads = [0, 1, 2, 2]> (r) "
        "y = AveragePool <kernel_shape = [2, 4], strides = [1, 3], pads = [1, 2, 0, 3]> (s) }",
        1,
        [],
    ),
    "max of windows as wide as the image": (
        f"g ({X}) => ({Y}) {{ {CONV} y = MaxPool <kernel_shape = [5, 7], strides = [3, 1]> (p) }}",
        1,
        [],
    ),
    "concat": (
        f"g ({X}) => ({Y}) {{ {CONV} q = Conv (p, b) r = Concat <axis = 1> (q, p, q) "
        "s = Concat <axis = -3> (r, q) t = Relu (s) y = Concat <axis = 1> (t, r) }",
        1,
        [],
    ),
    "concat with an input": (
        f"g ({X}) => ({Y}) {{ {CONV} q = Conv (p, b) y = Concat <axis = 1> (x, q, p) }}",
        1,
        ["Concat"],
    ),
    "depthwise": (
        f"g ({X}) => ({Y}) {{ {CONV} q = Clip (p, low, high) "
        "r = Conv <group = 16, pads = [1, 1, 1, 1], strides = [2, 2]> (q, d, bias) s = Clip (r, low, high) "
        "t = Conv (s, b) u = Conv <group = 16, pads = [2, 2, 2, 2]> (t, e) v = Add (u, t) y = Sigmoid (v) }",
        1,
        [],
    ),
    "dense stem": (
        f"g ({IMAGE}) => ({Y}) {{ p = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, stem, bias) "
        "q = Clip (p, low, high) r = Conv <group = 16, pads = [1, 1, 1, 1]> (q, d) y = Conv (r, b) }",
        1,
        [],
    ),
    "dense stem of a channel too few and a pool": (
        f"g ({IMAGE}) => ({Y}) {{ p = Conv <pads = [3, 2, 2, 3]> (x, wide) q = LeakyRelu (p) "
        "r = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (q) y = Conv (r, after) }",
        1,
        [],
    ),
    "dense stem that no sparse product reads": (
        f"g ({IMAGE}, float[n, 16, h, w] z) => ({Y}, float[n, 16, h, w] v) {{ "
        "p = Conv <pads = [1, 1, 1, 1]> (x, stem, bias) y = MaxPool <kernel_shape = [2, 2]> (p) "
        "v = Conv (z, b) }",
        1,
        ["Conv", "MaxPool"],
    ),
    "a value between is wanted": (
        f"g ({X}) => ({Y}, float[n, 16, h, w] p, float[n, 16, h, w] q) "
        f"{{ {CONV} q = Conv (p, b) y = Conv <pads = [1, 1, 1, 1]> (q, c) }}",
        1,
        [],
    ),
    "a sum and its activation are wanted": (
        f"g ({X}) => ({Y}, float[n, 16, h, w] p) {{ {CONV} y = Relu (p) }}",
        1,
        [],
    ),
    "what lies between is onnxruntime's": (
        f"g ({X}) => ({Y}) {{ {CONV} q = Tanh (p) r = Conv (q, b) s = Conv (p, b) t = Add (s, r) y = Conv (t, b) }}",
        2,
        ["Tanh"],
    ),
    "strides, dilations and groups": (
        f"g ({X}) => ({Y}) {{ {CONV} q = Conv <strides = [2, 2]> (p, b) "
        "y = Conv <dilations = [2, 1], pads = [2, 1, 2, 1]> (q, c) }",
        1,
        [],
    ),
    "pooling by rounding up": (
        f"g ({X}) => ({Y}) {{ {CONV} q = Conv (p, b) y = MaxPool <kernel_shape = [2, 2], ceil_mode = 1> (q) }}",
        1,
        ["MaxPool"],
    ),
    "addition that broadcasts": (
        f"g ({X}, float[1, 16, 1, 1] r) => ({Y}) {{ {CONV} q = Conv (p, b) y = Add (q, r) }}",
        1,
        ["Add"],
    ),
}


def graph(name, height=9, width=13):
    """Sizes that are None are open."""
    text, claimed, left = GRAPHS[name]
    for letter, size in (("h", height), ("w", width)):
        text = text if size is None else re.sub(rf"\b{letter}\b", str(size), text)
    named = {key for key in CONSTANTS if any(f" {key}{end}" in text for end in (",", ")"))}
    return parse(text, opset=14, **{key: CONSTANTS[key] for key in named}), claimed, left


def feeds_of(model, images=2, height=9, width=13):
    sizes = {"n": images, "h": height, "w": width}
    return {
        value.name: dense_array(
            *[dim.dim_value or sizes[dim.dim_param] for dim in value.type.tensor_type.shape.dim], seed=index
        )
        for index, value in enumerate(model.graph.input)
    }


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other)


@needs_provider
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", GRAPHS)
def test_groups_give_the_outputs_of_dense(name, threads, tmp_path):
    model, expected, left = graph(name)
    feeds = feeds_of(model)
    outputs, claimed, others = profiled(model, feeds, tmp_path, threads=threads)
    assert_same(outputs, run(model, **feeds))
    assert claimed == expected
    assert [op for op in others if not op.startswith("Reorder")] == left


@needs_provider
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["residual", "pools", "pools of steps", "depthwise", "dense stem"])
def test_groups_on_every_instruction_set(name, isa, monkeypatch):
    use_isa(isa, monkeypatch)
    for images, height, width in ((1, 16, 16), (3, 7, 7), (1, 28, 33), (2, 56, 75)):
        model, _, _ = graph(name, height, width)
        feeds = feeds_of(model, images, height, width)
        assert_same(provider_session(model).run(None, feeds), run(model, **feeds))


@needs_provider
def test_a_session_takes_inputs_of_any_size_in_any_order():
    model, _, _ = graph("concat", None, None)
    session = provider_session(model)
    dense = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    sizes = [(1, 8, 8), (4, 5, 6), (1, 32, 32), (2, 16, 16), (3, 1, 1), (1, 40, 9), (0, 8, 8)]
    for images, height, width in sizes + sizes[::-1]:
        feeds = feeds_of(model, images, height, width)
        assert_same(session.run(None, feeds), dense.run(None, feeds))


@needs_provider
def test_runs_at_the_same_time_give_the_same_bits():
    model, _, _ = graph("depthwise", 14, 14)
    sessions = [provider_session(model, threads=threads) for threads in (1, 2)]
    cases = [feeds_of(model, images, 14, 14) for images in (1, 2, 3)]
    expected = [sessions[0].run(None, feeds)[0].tobytes() for feeds in cases]
    different = []

    def work(session, index):
        for _ in range(20):
            if session.run(None, cases[index])[0].tobytes() != expected[index]:
                different.append(index)

    threads = [threading.Thread(target=work, args=(s, i)) for s in sessions for i in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not different


@needs_provider
def test_sessions_of_groups_leave_no_memory_behind(tmp_path):
    weights = {name: sparse_array(256, 256, 3, 3, density=0.1, seed=i) for i, name in enumerate("ab")}
    model = parse(
        "g (float[n, 256, 8, 8] x) => (float[n, 256, h, w] y) "
        "{ p = Conv <pads = [1, 1, 1, 1]> (x, a) y = Conv <pads = [1, 1, 1, 1]> (p, b) }",
        **weights,
    )
    # A session's weights, packed: 1 MB.
    assert left_behind_mb(model, tmp_path, [(images, 256, 8, 8) for images in (1, 2, 3)], times=10) < 10


@needs_provider
def test_an_input_that_does_not_fit_is_refused_by_its_node():
    model = parse(
        "g (float[n, k, h, w] x) => (float[n, m, k2, l] y) { [one] p = Conv (x, a) [two] y = Conv (p, c) }",
        a=A,
        c=C,
    )
    session = provider_session(model)
    with pytest.raises(Exception, match=r"Conv node 'one' cannot run: its input has shape \[1, 7, 9, 9\]"):
        session.run(None, {"x": dense_array(1, 7, 9, 9)})
    with pytest.raises(
        Exception, match=r"Conv node 'two' cannot run: its kernel is larger than its padded input"
    ):
        session.run(None, {"x": dense_array(1, 8, 4, 4)})
    assert session.run(None, {"x": dense_array(1, 8, 9, 9)})[0].shape == (1, 24, 5, 5)


@needs_provider
def test_groups_can_be_turned_off(tmp_path):
    model, _, _ = graph("residual")
    feeds = feeds_of(model)
    options = ort.SessionOptions()
    runtime.add_provider(options, "all", groups=False)
    outputs = ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)
    assert_same(outputs, run(model, **feeds))


@st.composite
def models(draw):
    """A random graph of the operators of groups, some of whose values onnxruntime's Tanh makes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    height, width = draw(st.sampled_from([(12, 12), (7, 5), (4, 4), (16, 17), (9, 35)]))
    inputs_of_x = draw(st.sampled_from([8, 8, 3]))
    # Names and shapes without the batch.
    values, nodes, weights = [("x", (inputs_of_x, height, width))], [], []

    def constant(array):
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def add(op_type, inputs, shape, **attributes):
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        values.append((name, shape))

    def windowed(op_type, inputs, channels, kernel, **attributes):
        """A convolution or a pooling, padded by half of its kernel, with strides where they leave something."""
        _, *sizes = shape
        strides = [draw(st.sampled_from([1, 1, 2, 3] if "Pool" in op_type else [1, 1, 2])) for _ in sizes]
        strides = [min(stride, size) for stride, size in zip(strides, sizes, strict=True)]
        out = [
            (size + kernel // 2 * 2 - kernel) // stride + 1
            for size, stride in zip(sizes, strides, strict=True)
        ]
        add(op_type, inputs, (channels, *out), pads=[kernel // 2] * 4, strides=strides, **attributes)

    for _ in range(draw(st.integers(2, 10))):
        name, shape = values[draw(st.integers(max(0, len(values) - 3), len(values) - 1))]
        channels = shape[0]
        kind = draw(
            st.sampled_from(["conv", "conv", "conv", "depthwise", "pool", "act", "add", "concat", "tanh"])
        )
        if kind == "conv":
            kernel, outputs = draw(st.sampled_from([1, 3])), draw(st.sampled_from([8, 16]))
            # That of an image is dense.
            density = 1.0 if channels == 3 else 0.2
            weight = sparse_array(
                outputs, channels, kernel, kernel, density=density, seed=int(rng.integers(1000))
            )
            # Values stay about as large as they are: Tanh would magnify the rounding of large ones.
            weight = constant(weight / np.sqrt(density * channels * kernel**2))
            bias = [constant(rng.standard_normal(outputs))] if draw(st.booleans()) else []
            windowed("Conv", [name, weight, *bias], outputs, kernel)
        elif kind == "depthwise":
            kernel = draw(st.sampled_from([3, 5, 7]))
            weight = constant(rng.standard_normal((channels, 1, kernel, kernel)) / kernel)
            windowed("Conv", [name, weight], channels, kernel, group=channels)
        elif kind == "pool":
            op_type, kernel = draw(st.sampled_from(["MaxPool", "AveragePool"])), draw(st.sampled_from([2, 3]))
            if min(shape[1:]) >= kernel:
                windowed(op_type, [name], channels, kernel, kernel_shape=[kernel] * 2)
        elif kind in ("act", "tanh"):
            op_type = "Tanh" if kind == "tanh" else draw(st.sampled_from(["Relu", "Sigmoid", "LeakyRelu"]))
            add(op_type, [name], shape)
        elif kind == "add":
            other = next(v for v, s in reversed(values) if s == shape)
            add("Add", [name, other], shape)
        else:
            alike = [(v, s[0]) for v, s in values if s[1:] == shape[1:]]
            parts = [alike[draw(st.integers(0, len(alike) - 1))] for _ in range(2)]
            if sum(c for _, c in parts) <= 64:
                add("Concat", [v for v, _ in parts], (sum(c for _, c in parts), *shape[1:]), axis=1)
    wanted = {len(values) - 1, draw(st.integers(1, max(1, len(values) - 1)))} if len(values) > 1 else set()
    outputs = [
        helper.make_tensor_value_info(values[i][0], TensorProto.FLOAT, ["n", *values[i][1]])
        for i in sorted(wanted)
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs_of_x, height, width])
    body = helper.make_graph(nodes, "random", [x], outputs, weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@needs_provider
@given(models(), st.integers(1, 3))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_graphs_give_the_outputs_of_dense(model, images):
    if not model.graph.output:
        return
    feeds = feeds_of(model, images)
    assert_same(provider_session(model).run(None, feeds), run(model, **feeds))


@needs_provider
def test_the_rule_knows_that_groups_neither_pack_nor_copy(tmp_path):
    model = parse(
        "g (float[1, 24, 56, 56] x) => (float[1, 24, 56, 56] y) { p = Conv (x, a) q = Relu (p) y = Conv (q, b) }",
        a=sparse_array(144, 24, 1, 1, density=0.2),
        b=sparse_array(24, 144, 1, 1, density=0.2, seed=1),
    )
    feeds = {"x": dense_array(1, 24, 56, 56)}
    for groups in (False, True):
        outputs, claimed, _ = profiled(model, feeds, tmp_path, "estimated", groups=groups)
        assert_same(outputs, run(model, **feeds))
        assert claimed == int(groups)


@needs_provider
@pytest.mark.parametrize("groups", [False, True])
def test_products_that_nothing_needs_do_no_harm(groups):
    model = parse(
        f"g ({X}) => ({Y}) {{ {CONV} q = Conv (p, b) r = Relu (q) s = MaxPool <kernel_shape = [2, 2]> (p) "
        "y = Conv (p, b) }".replace("h, w", "9, 13"),
        a=A,
        b=B,
        bias=CONSTANTS["bias"],
    )
    feeds = feeds_of(model)
    assert_same(provider_session(model, groups=groups).run(None, feeds), run(model, **feeds))
