"""Dead units, case by case: what goes, what stays and why, with the same outputs in onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.surgery import SurgeryReport, remove_dead_units
from tests.surgery.graphs import normal
from tests.surgery.oracle import model, operate, round_trip, weight_of


def with_dead(array: np.ndarray, *, rows: tuple[int, ...] = (), columns: tuple[int, ...] = ()) -> np.ndarray:
    """An (out, in, ...) weight with whole rows and columns at zero."""
    array = array.copy()
    array[list(rows)] = 0
    array[:, list(columns)] = 0
    return array


def units(report: SurgeryReport, name: str) -> tuple[int, int]:
    """Output units and inputs of a weight, after surgery."""
    layer = next(layer for layer in report.layers if layer.name == name)
    return layer.outputs_after, layer.inputs_after


def reason(report: SurgeryReport, name: str) -> str:
    """Why dead units of a weight were kept."""
    return next(kept.reason for kept in report.kept_dead if kept.name == name)


def test_a_neuron_without_inputs_is_folded_into_the_next_bias() -> None:
    proto = model(
        "(float[N,5] x) => (float[N,3] y) {h = Gemm<transB=1>(x, w1, b1) r = Sigmoid(h) y = Gemm<transB=1>(r, w2, b2)}",
        w1=with_dead(normal(4, 5), rows=(1, 3)),
        b1=normal(4),
        w2=normal(3, 4),
        b2=normal(3),
    )
    after, report = operate(proto)
    assert units(report, "w1") == (2, 5) and units(report, "w2") == (3, 2)
    assert not np.allclose(weight_of(after, "b2"), weight_of(proto, "b2"))
    assert weight_of(after, "b1").shape == (2,)


def test_a_neuron_without_outputs_is_removed() -> None:
    proto = model(
        "(float[N,5] x) => (float[N,3] y) {h = Gemm<transB=1>(x, w1, b1) r = Relu(h) y = Gemm<transB=1>(r, w2, b2)}",
        w1=normal(4, 5),
        b1=normal(4),
        w2=with_dead(normal(3, 4), columns=(0, 2)),
        b2=normal(3),
    )
    after, report = operate(proto)
    assert units(report, "w1") == (2, 5)
    assert np.array_equal(weight_of(after, "w1"), weight_of(proto, "w1")[[1, 3]])
    assert np.array_equal(weight_of(after, "b2"), weight_of(proto, "b2"))


def test_removal_cascades_forwards_and_backwards() -> None:
    w1, w2, w3 = normal(6, 5), normal(6, 6), normal(2, 6)
    w1[0] = 0  # unit 0 of layer 1 is a constant ...
    w2[0, 1:] = 0  # ... which is all that unit 0 of layer 2 reads
    w3[:, 5] = 0  # unit 5 of layer 2 is not read ...
    w2[:5, 4] = 0  # ... and alone reads unit 4 of layer 1
    proto = model(
        """(float[N,5] x) => (float[N,2] y) {
            h1 = Gemm<transB=1>(x, w1, b1) r1 = Tanh(h1)
            h2 = Gemm<transB=1>(r1, w2, b2) r2 = Tanh(h2) y = Gemm<transB=1>(r2, w3)}""",
        w1=w1, b1=normal(6), w2=w2, b2=normal(6), w3=w3,
    )  # fmt: skip
    after, report = operate(proto)
    assert [units(report, name) for name in ("w1", "w2", "w3")] == [(4, 5), (4, 4), (2, 4)]
    assert len(after.graph.node[-1].input) == 3, "the last Gemm got a bias"


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_dead_filters_are_removed_through_norm_activation_pooling_and_flatten(dims: int) -> None:
    space = ",".join(["6"] * dims)
    kernel, window = (3,) * dims, ",".join(["2"] * dims)
    columns = 5 * 2**dims
    proto = model(
        f"""(float[N,2,{space}] x) => (float[N,3] y) {{
            c = Conv(x, w1, b1) n = BatchNormalization(c, s, o, m, v) r = PRelu(n, slope)
            p = MaxPool<kernel_shape=[{window}], strides=[{window}]>(r)
            f = Flatten(p) y = Gemm<transB=1>(f, w2, b2)}}""",
        w1=with_dead(normal(5, 2, *kernel), rows=(0, 4)), b1=normal(5),
        s=normal(5), o=normal(5), m=normal(5), v=np.abs(normal(5)) + 1, slope=normal(5, *[1] * dims),
        w2=normal(3, columns), b2=normal(3),
    )  # fmt: skip
    after, report = operate(proto)
    assert units(report, "w1") == (3, 2) and units(report, "w2") == (3, 3 * 2**dims)
    assert {weight_of(after, name).shape[0] for name in ("b1", "s", "o", "m", "v", "slope")} == {3}


@pytest.mark.parametrize(
    ("target", "after_surgery"),
    [([-1, 36], [-1, 18]), ([0, -1], [0, -1]), ([0, 36], [0, 18]), ([3, -1], [3, -1])],
)
def test_reshape_constants_follow_the_channels(target: list[int], after_surgery: list[int]) -> None:
    batch = 3 if target[0] == 3 else "N"
    proto = model(
        f"""(float[{batch},2,5,5] x) => (float[{batch},3] y) {{
            c = Conv(x, w1, b1) f = Reshape(c, target) y = Gemm<transB=1>(f, w2, b2)}}""",
        w1=with_dead(normal(4, 2, 3, 3), rows=(1,)), b1=normal(4), target=np.array(target),
        w2=with_dead(normal(3, 36), columns=tuple(range(27, 36))), b2=normal(3),
    )  # fmt: skip
    after, report = operate(proto)
    assert units(report, "w1") == (2, 2)
    assert weight_of(after, "target").tolist() == after_surgery


def test_a_reshape_constant_shared_by_two_nodes_is_not_corrupted() -> None:
    proto = model(
        """(float[N,2,5,5] x) => (float[N,3] y) {
            c = Conv(x, w1) f = Reshape(c, target) y1 = Gemm<transB=1>(f, w2)
            d = Conv(x, w3) g = Reshape(d, target) y2 = Gemm<transB=1>(g, w4) y = Add(y1, y2)}""",
        w1=with_dead(normal(4, 2, 3, 3), rows=(1, 2)), w2=normal(3, 36),
        w3=normal(4, 2, 3, 3), w4=normal(3, 36), target=np.array([0, 36]),
    )  # fmt: skip
    after, report = operate(proto)
    assert units(report, "w2") == (3, 18) and units(report, "w4") == (3, 36)
    assert weight_of(after, "target").tolist() == [0, 36]


def test_a_reshape_to_a_computed_batch_size_passes_channels() -> None:
    proto = model(
        """(float[N,2,5,5] x) => (float[N,3] y) {
            c = Conv(x, w1, b1) s = Shape(c) n = Gather(s, zero) u = Unsqueeze(n, axis) t = Concat<axis=0>(u, rest)
            f = Reshape(c, t) y = Gemm<transB=1>(f, w2)}""",
        w1=with_dead(normal(4, 2, 3, 3), rows=(1,)), b1=normal(4), w2=normal(3, 36),
        zero=np.array(0), axis=np.array([0]), rest=np.array([-1]),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (3, 2) and units(report, "w2") == (3, 27)


def test_the_number_of_columns_in_a_computed_reshape_target_follows() -> None:
    proto = model(
        """(float[N,2,5,5] x) => (float[N,3] y) {
            c = Conv(x, w1, b1) s = Shape<start=0, end=1>(c) t = Concat<axis=0>(s, columns)
            f = Reshape(c, t) y = Gemm<transB=1>(f, w2)}""",
        w1=with_dead(normal(4, 2, 3, 3), rows=(1,)), b1=normal(4), w2=normal(3, 36), columns=np.array([36]),
    )  # fmt: skip
    after, report = operate(proto)
    assert units(report, "w1") == (3, 2) and weight_of(after, "columns").tolist() == [27]


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("u = Concat<axis=0>(s, columns) t = Cast<to=7>(u)", 3),
        ("u = Concat<axis=0>(s, columns, s) t = Slice(u, zero, two)", 3),
        ("v = Concat<axis=0>(s, columns) u = Identity(v) t = Identity(u) n = Cast<to=1>(u)", 3),
    ],
)
def test_numbers_in_a_reshape_target_are_rewritten_for_its_reader_alone_or_stay(
    target: str, left: int
) -> None:
    outputs = ", float[2] n" if " n = " in target else ""
    proto = model(
        f"""(float[N,2,5,5] x) => (float[N,3] y{outputs}) {{
            c = Conv(x, w1, b1) s = Shape<start=0, end=1>(c) {target} f = Reshape(c, t)
            y = Gemm<transB=1>(f, w2)}}""",
        w1=with_dead(normal(4, 2, 3, 3), rows=(1,)), b1=normal(4), w2=normal(3, 36), columns=np.array([36]),
        zero=np.array([0]), two=np.array([2]),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (left, 2)


def test_a_reshape_target_that_arithmetic_makes_of_static_sizes_becomes_a_number() -> None:
    proto = model(
        """(float[N,2,5,5] x) => (float[N,3] y) {
            c = Conv(x, w1, b1) s = Shape<start=0, end=1>(c) k = Shape<start=1, end=2>(c) n = Mul(k, nine)
            t = Concat<axis=0>(s, n) f = Reshape(c, t) y = Gemm<transB=1>(f, w2)}""",
        w1=with_dead(normal(4, 2, 3, 3), rows=(1,)), b1=normal(4), w2=normal(3, 36), nine=np.array([9]),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (3, 2)


def test_a_shape_that_counts_channels_freezes_them() -> None:
    proto = model(
        """(float[N,2,5,5] x) => (float[N,3,3,3] y, int64[1] s) {
            c = Conv(x, w1) s = Shape<start=1, end=2>(c) y = Conv(c, w2)}""",
        w1=with_dead(normal(4, 2, 3, 3), rows=(1,)), w2=normal(3, 4, 1, 1),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (4, 2)
    assert "Shape" in reason(report, "w1")


def test_channels_last_flatten_takes_every_nth_column() -> None:
    proto = model(
        """(float[N,2,5,5] x) => (float[N,3] y) {
            c = Conv(x, w1, b1) t = Transpose<perm=[0,2,3,1]>(c)
            f = Reshape(t, target) y = Gemm<transB=1>(f, w2, b2)}""",
        w1=with_dead(normal(4, 2, 3, 3), rows=(1,)), b1=normal(4), target=np.array([-1, 36]),
        w2=normal(3, 36), b2=normal(3),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (3, 2) and units(report, "w2") == (3, 27)


def test_a_constant_channel_into_a_padded_convolution_stays_with_the_reason() -> None:
    graph = """(float[N,2,6,6] x) => (float[N,3,6,6] y) {
        c = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(c) y = Conv<pads=[1,1,1,1]>(r, w2)}"""
    bias = np.array([1, -1, 1, 1], np.float32)
    w1 = with_dead(normal(4, 2, 3, 3), rows=(0, 1))
    _, report = operate(model(graph, w1=w1, b1=bias, w2=normal(3, 4, 3, 3)))
    assert units(report, "w1") == (3, 2), "unit 1 is 0 after Relu and goes; unit 0 is 1 inside the borders"
    assert [kept.units for kept in report.kept_dead if kept.name == "w1"] == [(0,)]
    assert "borders" in reason(report, "w1")


def test_same_padding_counts_as_padding() -> None:
    proto = model(
        '(float[N,2,6,6] x) => (float[N,3,6,6] y) {c = Conv(x, w1, b1) y = Conv<auto_pad="SAME_UPPER">(c, w2)}',
        w1=with_dead(normal(4, 2, 1, 1), rows=(0,)), b1=normal(4), w2=normal(3, 4, 3, 3),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (4, 2) and "borders" in reason(report, "w1")


@pytest.mark.parametrize(("count_include_pad", "left"), [(0, 3), (1, 4)])
def test_average_pooling_that_counts_its_padding_keeps_constants(count_include_pad: int, left: int) -> None:
    proto = model(
        f"""(float[N,2,6,6] x) => (float[N,3,4,4] y) {{
            c = Conv(x, w1, b1) p = AveragePool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1],
            count_include_pad={count_include_pad}>(c) y = Conv(p, w2)}}""",
        w1=with_dead(normal(4, 2, 1, 1), rows=(0,)), b1=normal(4), w2=normal(3, 4, 1, 1),
    )  # fmt: skip
    assert units(operate(proto)[1], "w1") == (left, 2)


def test_max_pooling_pads_with_nothing_so_that_negative_constants_pass() -> None:
    proto = model(
        """(float[N,2,6,6] x) => (float[N,3,4,4] y) {
            c = Conv(x, w1, b1) p = MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1]>(c) y = Conv(p, w2)}""",
        w1=with_dead(normal(4, 2, 1, 1), rows=(0,)), b1=np.full(4, -2, np.float32), w2=normal(3, 4, 1, 1),
    )  # fmt: skip
    assert units(operate(proto)[1], "w1") == (3, 2)


def test_a_constant_that_a_bias_map_makes_uneven_stays() -> None:
    proto = model(
        "(float[N,2,3,3] x) => (float[N,3,3,3] y) {c = Conv(x, w1) a = Add(c, map) y = Conv(a, w2)}",
        w1=with_dead(normal(4, 2, 1, 1), rows=(0,)), map=normal(4, 3, 3), w2=normal(3, 4, 1, 1),
    )  # fmt: skip
    assert units(operate(proto)[1], "w1") == (4, 2)


def test_a_constant_is_not_one_after_a_padded_convolution() -> None:
    w2 = normal(3, 4, 3, 3)
    w2[0, 1:] = 0  # filter 0 reads the constant channel only: its own output is uneven at the borders
    proto = model(
        """(float[N,2,6,6] x) => (float[N,2,6,6] y) {
            c = Conv(x, w1, b1) d = Conv<pads=[1,1,1,1]>(c, w2) r = Relu(d) y = Conv(r, w3)}""",
        w1=with_dead(normal(4, 2, 1, 1), rows=(0,)), b1=normal(4), w2=w2, w3=normal(2, 3, 1, 1),
    )  # fmt: skip
    assert units(operate(proto)[1], "w2") == (3, 4)


def test_the_mean_of_an_uneven_constant_is_not_guessed() -> None:
    proto = model(
        """(float[N,2,3,3] x) => (float[N,3,1,1] y) {
            c = Conv(x, w1) a = Add(c, map) g = GlobalAveragePool(a) y = Conv(g, w2)}""",
        w1=with_dead(normal(4, 2, 1, 1), rows=(0,)), map=normal(4, 3, 3), w2=normal(3, 4, 1, 1),
    )  # fmt: skip
    assert units(operate(proto)[1], "w1") == (4, 2)


def test_a_constant_that_is_not_finite_is_not_folded() -> None:
    proto = model(
        "(float[N,5] x) => (float[N,3] y) {h = MatMul(x, w1) r = Reciprocal(h) y = Gemm<transB=1>(r, w2)}",
        w1=with_dead(normal(4, 5), rows=(1,)).T.copy(), w2=normal(3, 4),
    )  # fmt: skip
    assert units(remove_dead_units(ir.from_proto(proto)), "w1") == (4, 5)


def test_rounded_up_pooling_with_windows_that_may_miss_keeps_constants() -> None:
    proto = model(
        """(float[N,2,6,6] x) => (float[N,3,4,4] y) {
            c = Conv(x, w1, b1)
            p = MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1>(c) y = Conv(p, w2)}""",
        w1=with_dead(normal(4, 2, 1, 1), rows=(0,)), b1=normal(4), w2=normal(3, 4, 1, 1),
    )  # fmt: skip
    assert units(operate(proto)[1], "w1") == (4, 2)


def test_dead_depthwise_channels_are_removed_with_their_filters() -> None:
    proto = model(
        """(float[N,2,6,6] x) => (float[N,3,6,6] y) {
            c = Conv(x, w1, b1) r = Relu(c) d = Conv<group=4, pads=[1,1,1,1]>(r, w2, b2) y = Conv(d, w3, b3)}""",
        w1=normal(4, 2, 1, 1), b1=normal(4), w2=with_dead(normal(8, 1, 3, 3), rows=(0, 1, 6)), b2=normal(8),
        w3=with_dead(normal(3, 8, 1, 1), columns=(4, 5)), b3=normal(3),
    )  # fmt: skip
    after, report = operate(proto)
    assert units(report, "w1") == (2, 2) and units(report, "w2") == (4, 1), (
        "channel 3 lost one filter of its two"
    )
    assert next(a.i for n in after.graph.node for a in n.attribute if a.name == "group") == 2


def test_whole_dead_groups_of_a_grouped_convolution_are_removed() -> None:
    proto = model(
        "(float[N,2,6,6] x) => (float[N,3,4,4] y) {c = Conv(x, w1) d = Conv<group=3>(c, w2, b2) y = Conv(d, w3)}",
        w1=normal(6, 2, 1, 1), w2=with_dead(normal(6, 2, 3, 3), rows=(2, 3)), b2=normal(6), w3=normal(3, 6, 1, 1),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (4, 2) and units(report, "w3") == (3, 4)


def test_a_residual_join_drops_a_channel_that_is_dead_on_both_branches() -> None:
    w1, w2 = with_dead(normal(4, 2, 1, 1), rows=(0, 1)), with_dead(normal(4, 4, 1, 1), rows=(0, 2))
    proto = model(
        """(float[N,2,6,6] x) => (float[N,3,6,6] y) {
            c = Conv(x, w1, b1) d = Conv(c, w2, b2) a = Add(c, d) y = Conv(a, w3)}""",
        w1=w1, b1=normal(4), w2=w2, b2=normal(4), w3=normal(3, 4, 1, 1),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (3, 2) and units(report, "w2") == (3, 3)
    assert reason(report, "w1") == "it can only be removed together with units that are alive"


def test_a_residual_that_meets_the_graph_input_is_frozen() -> None:
    proto = model(
        "(float[N,4,6,6] x) => (float[N,3,6,6] y) {d = Conv(x, w1) a = Add(x, d) y = Conv(a, w2)}",
        w1=with_dead(normal(4, 4, 1, 1), rows=(0,)), w2=with_dead(normal(3, 4, 1, 1), columns=(0,)),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (4, 4)
    assert reason(report, "w1") == "it reaches the graph input 'x'"


@pytest.mark.parametrize(
    "node",
    [
        "Softmax<axis=1>(c)",
        "LRN<size=3>(c)",
        "Softmax<axis=1>(r)",
        "CumSum(c, axis)",
        "LpNormalization<axis=1>(c)",
    ],
)
def test_operators_that_mix_channels_or_have_no_rule_freeze_them(node: str) -> None:
    proto = model(
        f"(float[N,2,6,6] x) => (float[N,3,6,6] y) {{c = Conv(x, w1, b1) r = Relu(c) s = {node} y = Conv(s, w2)}}",
        w1=with_dead(normal(4, 2, 1, 1), rows=(0,)), b1=normal(4),
        w2=with_dead(normal(3, 4, 1, 1), columns=(0,)), axis=np.array(1),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (4, 2)
    operator = node.split("<")[0].split("(")[0]
    assert operator in reason(report, "w1")
    for each in proto.graph.node:
        each.name = ""
    _, report = operate(proto)
    assert operator in reason(report, "w1") and "node 's'" in reason(report, "w1")


def test_units_that_both_branches_of_an_if_read_are_removed_inside_and_outside() -> None:
    proto = model(
        """(float[N,5] x, bool flag) => (float[N,3] y) {
            h = Gemm<transB=1>(x, w1, b1)
            z = If(flag) <then_branch = then () => (a) {u = Gemm<transB=1>(h, w2) a = Tanh(u)},
                          else_branch = other () => (b) {b = Gemm<transB=1>(h, w3)}>
            y = Gemm<transB=1>(z, w4)}""",
        w1=with_dead(normal(4, 5), rows=(1,)), b1=normal(4), w2=normal(6, 4), w3=normal(6, 4),
        w4=with_dead(normal(3, 6), columns=(0, 5)),
    )  # fmt: skip
    _, report = operate(proto)
    assert [units(report, name) for name in ("w1", "w2", "w3", "w4")] == [(3, 5), (4, 3), (4, 3), (3, 4)]


def test_a_value_that_the_body_of_a_loop_reads_is_frozen() -> None:
    proto = model(
        """(float[N,5] x) => (float[N,3] y) {
            h = Gemm<transB=1>(x, w1, b1) s = MatMul(h, w2)
            y = Loop(trips, go, s) <body = body (int64 i, bool c, float[N,3] t) => (bool d, float[N,3] o)
                {d = Identity(c) u = MatMul(h, w3) o = Add(t, u)}>}""",
        w1=with_dead(normal(4, 5), rows=(1,)), b1=normal(4), w2=normal(4, 3), w3=normal(4, 3),
        trips=np.array(2), go=np.array(True),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (4, 5)
    assert "subgraph" in reason(report, "w1")


def test_a_bias_that_two_layers_share_loses_for_each_its_own_dead_units() -> None:
    proto = model(
        """(float[N,5] x) => (float[N,3] y) {
            h = Gemm<transB=1>(x, w1, b) r = Relu(h) g = Gemm<transB=1>(r, w2, b) s = Relu(g)
            y = Gemm<transB=1>(s, w3)}""",
        w1=normal(4, 5), b=normal(4), w2=with_dead(normal(4, 4), columns=(0, 1)),
        w3=with_dead(normal(3, 4), columns=(3,)),
    )  # fmt: skip
    after, report = operate(proto)
    assert units(report, "w1") == (2, 5) and units(report, "w2") == (3, 2)
    assert {tensor.dims[0] for tensor in after.graph.initializer if len(tensor.dims) == 1} == {2, 3}


def test_a_shared_weight_loses_the_rows_that_are_dead_for_all_its_nodes() -> None:
    shared = with_dead(normal(4, 5), rows=(1,))
    proto = model(
        """(float[N,5] x, float[N,5] z) => (float[N,3] y) {
            h = Gemm<transB=1>(x, w, b) g = Gemm<transB=1>(z, w, b)
            y1 = Gemm<transB=1>(h, w2) y2 = Gemm<transB=1>(g, w3)
            y = Add(y1, y2)}""",
        w=shared, b=normal(4), w2=with_dead(normal(3, 4), columns=(0, 2)), w3=with_dead(normal(3, 4), columns=(0,)),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w") == (2, 5), "unit 1 is constant, unit 0 unread by both, unit 2 still read by one"


def test_a_bias_shared_by_two_readers_is_folded_into_for_each() -> None:
    proto = model(
        """(float[N,5] x) => (float[N,3] y, float[N,3] z) {
            h = Gemm<transB=1>(x, w, b) y = Gemm<transB=1>(h, w2, c) z = Gemm<transB=1>(h, w3, c)}""",
        w=with_dead(normal(4, 5), rows=(1,)), b=normal(4), w2=normal(3, 4), w3=normal(3, 4), c=normal(3),
    )  # fmt: skip
    assert units(operate(proto)[1], "w") == (3, 5)


def test_a_computed_bias_takes_no_constant() -> None:
    proto = model(
        """(float[N,5] x) => (float[N,3] y) {
            h = Gemm<transB=1>(x, w1, b1) s = Sigmoid(h) c = Neg(b2) y = Gemm<transB=1>(s, w2, c)}""",
        w1=with_dead(normal(4, 5), rows=(1,)), b1=normal(4), w2=normal(3, 4), b2=normal(3),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (4, 5) and "computed in the graph" in reason(report, "w1")


@pytest.mark.parametrize(
    "tail", ["y = MatMul(r, w2)", "m = MatMul(r, w2) y = Add(m, b2)", "m = MatMul(r, w2) y = Add(b2, m)"]
)
def test_matmul_takes_a_constant_into_the_add_that_follows_or_a_new_one(tail: str) -> None:
    proto = model(
        f"(float[N,2,5] x) => (float[N,2,3] y) {{h = MatMul(x, w1) a = Add(h, b1) r = Sigmoid(a) {tail}}}",
        w1=with_dead(normal(4, 5), rows=(1,)).T.copy(), b1=normal(4), w2=normal(4, 3), b2=normal(3),
    )  # fmt: skip
    after, report = operate(proto)
    assert units(report, "w1") == (3, 5)
    assert [node.op_type for node in after.graph.node].count("Add") == 2
    assert len({output for node in after.graph.node for output in node.output}) == len(after.graph.node)


def test_a_batched_weight_keeps_constants_that_it_reads() -> None:
    proto = model(
        "(float[2,3,5] x) => (float[2,3,3] y) {h = MatMul(x, w1) s = Sigmoid(h) y = MatMul(s, w2)}",
        w1=with_dead(normal(4, 5), rows=(1,)).T.copy(), w2=normal(2, 4, 3),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (4, 5) and "batched" in reason(report, "w1")


def test_a_constant_that_differs_between_the_batches_of_a_weight_stays() -> None:
    w2 = normal(2, 4, 3)
    w2[:, [0, 2, 3], 0] = 0  # column 0 reads the constant neuron only, with one factor per batch
    proto = model(
        "(float[2,3,5] x) => (float[2,3,2] y) {h = MatMul(x, w1) s = Sigmoid(h) t = MatMul(s, w2) y = MatMul(t, w3)}",
        w1=with_dead(normal(4, 5), rows=(1,)).T.copy(), w2=w2, w3=normal(3, 2),
    )  # fmt: skip
    assert units(operate(proto)[1], "w2") == (3, 4)


def test_a_weight_on_the_left_loses_its_rows_too() -> None:
    proto = model(
        """(float[5,N] x) => (float[3,N] y) {
            h = Gemm(w1, x, b1) s = Sigmoid(h) z = Gemm<transA=1>(w2, s) r = Sigmoid(z) y = MatMul(w3, r)}""",
        w1=with_dead(normal(4, 5), rows=(1,)), b1=normal(4, 1), w2=normal(4, 6),
        w3=with_dead(normal(3, 6), columns=(2,)),
    )  # fmt: skip
    _, report = operate(proto)
    assert [units(report, name) for name in ("w1", "w2", "w3")] == [(3, 5), (5, 3), (3, 5)]


def test_a_weight_behind_a_transpose_loses_its_dead_units() -> None:
    proto = model(
        "(float[N,5] x) => (float[N,3] y) {t = Transpose(w1) h = MatMul(x, t) s = Tanh(h) y = Gemm<transB=1>(s, w2)}",
        w1=with_dead(normal(4, 5), rows=(1,)), w2=normal(3, 4),
    )  # fmt: skip
    after, _ = operate(proto)
    assert weight_of(after, "w1").shape == (3, 5) and weight_of(after, "w2").shape == (3, 3)


def test_weights_in_constant_nodes_lose_their_dead_units_in_place() -> None:
    proto = model(
        "(float[N,5] x) => (float[N,3] y) {h = Gemm<transB=1>(x, w1, b1) s = Tanh(h) y = Gemm<transB=1>(s, w2, b2)}",
        w1=with_dead(normal(4, 5), rows=(1,)), b1=normal(4), w2=normal(3, 4), b2=normal(3),
    )  # fmt: skip
    constants = [
        onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in proto.graph.initializer
    ]
    nodes = [*constants, *proto.graph.node]
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend(nodes)
    after, report = operate(proto)
    assert units(report, "w1") == (3, 5) and len(after.graph.initializer) == 0


@pytest.mark.parametrize(("ir_version", "left"), [(3, 3), (8, 4)])
def test_an_initializer_that_a_caller_may_feed_stays_since_ir_version_4(ir_version: int, left: int) -> None:
    proto = model(
        """(float[N,5] x, float[4,5] w1, float[4] b1, float[4,3] w2) => (float[N,3] y) {
            h = Gemm<transB=1>(x, w1, b1) s = Sigmoid(h) y = MatMul(s, w2)}""",
        ir_version=ir_version, opset=9, w1=with_dead(normal(4, 5), rows=(1,)), b1=normal(4), w2=normal(4, 3),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (left, 5)


def test_a_layer_keeps_its_last_unit() -> None:
    proto = model(
        "(float[N,5] x) => (float[N,3] y) {h = Gemm<transB=1>(x, w1, b1) s = Tanh(h) y = Gemm<transB=1>(s, w2, b2)}",
        w1=np.zeros((4, 5), np.float32), b1=normal(4), w2=normal(3, 4), b2=normal(3),
    )  # fmt: skip
    _, report = operate(proto)
    assert units(report, "w1") == (1, 5) and units(report, "w2") == (3, 1)
    assert reason(report, "w1") == "it is the last unit of its layer"


def test_the_output_layer_keeps_its_shape() -> None:
    proto = model(
        "(float[N,5] x) => (float[N,3] y) {y = Gemm<transB=1>(x, w, b)}",
        w=with_dead(normal(3, 5), rows=(0,)), b=normal(3),
    )  # fmt: skip
    after, report = operate(proto)
    assert after == round_trip(proto)
    assert report.bytes_removed == 0 and reason(report, "w") == "it reaches the graph output 'y'"


def test_declared_shapes_in_between_are_corrected() -> None:
    proto = model(
        "(float[N,5] x) => (float[N,3] y) {h = Gemm<transB=1>(x, w1) s = Tanh(h) y = Gemm<transB=1>(s, w2)}",
        w1=with_dead(normal(4, 5), rows=(1,)), w2=normal(3, 4),
    )  # fmt: skip
    inferred = onnx.shape_inference.infer_shapes(proto)
    after, _ = operate(inferred)
    columns = {info.name: info.type.tensor_type.shape.dim[1].dim_value for info in after.graph.value_info}
    assert (columns["h"], columns["s"]) == (3, 3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 5e-3), (np.float64, 1e-12)])
def test_other_float_types_keep_their_type(dtype: type, tolerance: float) -> None:
    onnx_type = {np.float16: "float16", np.float64: "double"}[dtype]
    arrays = {"w1": with_dead(normal(4, 5), rows=(0,)), "b1": normal(4), "w2": normal(3, 4), "b2": normal(3)}
    proto = model(
        f"""({onnx_type}[N,5] x) => ({onnx_type}[N,3] y) {{
            h = Gemm<transB=1>(x, w1, b1) s = Tanh(h) y = Gemm<transB=1>(s, w2, b2)}}""",
        **{name: array.astype(dtype) for name, array in arrays.items()},
    )
    after, report = operate(proto, tolerance)
    assert units(report, "w1") == (3, 5) and weight_of(after, "b2").dtype == dtype


def test_a_microsoft_activation_is_folded_through() -> None:
    proto = model(
        """(float[N,5] x) => (float[N,3] y) <float[N,4] s> {
            h = Gemm<transB=1>(x, w1, b1) s = com.microsoft.QuickGelu(h) y = Gemm<transB=1>(s, w2)}""",
        w1=with_dead(normal(4, 5), rows=(1,)), b1=normal(4), w2=normal(3, 4),
    )  # fmt: skip
    assert units(operate(proto)[1], "w1") == (3, 5)


def test_models_of_old_opsets_are_left_alone_with_the_reason() -> None:
    proto = model(
        "(float[N,2,4,4] x) => (float[N,3,4,4] y) {c = Conv(x, w1) y = Conv(c, w2)}", opset=6,
        w1=with_dead(normal(4, 2, 1, 1), rows=(0,)), w2=normal(3, 4, 1, 1),
    )  # fmt: skip
    after, report = operate(proto)
    assert after == round_trip(proto) and "opset 6" in reason(report, "w1")


def test_the_report_counts_units_elements_and_bytes() -> None:
    proto = model(
        "(float[N,5] x) => (float[N,3] y) {h = Gemm<transB=1>(x, w1, b1) s = Relu(h) y = Gemm<transB=1>(s, w2, b2)}",
        w1=normal(4, 5), b1=normal(4), w2=with_dead(normal(3, 4), columns=(1,)), b2=normal(3),
    )  # fmt: skip
    _, report = operate(proto)
    first, second = report.layers
    assert (first.outputs_before, first.outputs_after, first.elements_before, first.elements_after) == (
        4,
        3,
        20,
        15,
    )
    assert (second.inputs_before, second.inputs_after, second.frozen) == (
        4,
        3,
        "it reaches the graph output 'y'",
    )
    assert report.bytes_removed == 4 * (5 + 1 + 3) and report.units_removed == 1


def test_a_branch_of_no_channels_stays_and_the_others_lose_their_dead_units() -> None:
    proto = model(
        """(float[N,2,6,6] x) => (float[N,4,4,4] y) {
            a = Conv(x, w) r = Relu(a) c = Conv(r, v) e = Conv(x, empty) y = Concat<axis=1>(c, e)}""",
        w=with_dead(normal(6, 2, 3, 3), rows=(2,)),
        v=normal(4, 6, 1, 1),
        empty=np.zeros((0, 2, 3, 3), np.float32),
    )
    after, report = operate(proto)
    assert units(report, "w") == (5, 2)
    assert weight_of(after, "empty").shape == (0, 2, 3, 3)
