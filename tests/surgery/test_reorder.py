"""Channels in another order: the same outputs, with every weight that has them in another order too."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.model.constants import constant_tensor
from onnxprune.surgery.reorder import reorderable
from tests.surgery.attention_graphs import GRAPHS
from tests.surgery.channel_pruning import free_share, random_inputs, session, unsquashed
from tests.surgery.graphs import normal
from tests.surgery.hard_cases import CASES, HardCase
from tests.surgery.oracle import assert_same, model, weight_of
from tests.surgery.whole_models import MODELS

TOLERANCE = 1e-5


def shuffled(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The model with all channels that can leave their places in others, and how many these are."""
    model = ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    rng, layers = np.random.default_rng(0), reorderable(model)
    for layer in layers:
        # A random circle, so that every channel leaves its place.
        circle, order = rng.permutation(len(layer)), np.empty(len(layer), int)
        order[circle] = np.roll(circle, 1)
        layer.reorder(order)
    return ir.to_proto(model), sum(map(len, layers))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_hard_cases_of_surgery_say_the_same_in_another_order(case: HardCase) -> None:
    proto = case.build()
    after, moved = shuffled(proto)
    assert_same(proto, after, TOLERANCE)
    assert bool(moved) == (case.frozen is None)


@pytest.mark.parametrize("name", GRAPHS)
def test_attention_says_the_same_in_another_order(name: str) -> None:
    proto, shapes = GRAPHS[name]()
    if free_share(ir.from_proto(proto))[0]:
        assert_same_outputs(proto, shapes)
    else:
        assert not reorderable(ir.from_proto(proto)), "what a caller caches keeps its order"


@pytest.mark.parametrize(
    "name",
    ["MobileNet-like", "BERT-like", "LSTM", "ResNet-20, static int8", "BERT-like, dynamic int8"],
)
def test_whole_models_say_the_same_in_another_order(name: str) -> None:
    assert_same_outputs(*MODELS[name]())


def assert_same_outputs(proto: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    after, moved = shuffled(proto)
    assert moved
    inputs = random_inputs(session(proto), shapes)
    for one, other in zip(
        *(session(unsquashed(each)).run(None, inputs) for each in (proto, after)), strict=True
    ):
        assert np.abs(one - other).max() <= TOLERANCE * np.abs(one).max()


def test_a_channel_takes_its_filter_its_bias_its_norm_and_what_reads_it_along() -> None:
    proto = model(
        "(float[N,4,6,6] x) => (float[N,3] y) {a = Conv(x, w1, b1) n = BatchNormalization(a, s, o, m, v) r = Relu(n) "
        "f = Flatten(r) y = Gemm<transB=1>(f, w2)}",
        w1=normal(8, 4, 3, 3), b1=normal(8), s=normal(8), o=normal(8), m=normal(8), v=np.abs(normal(8)) + 1,
        w2=normal(3, 128),
    )  # fmt: skip
    read = ir.from_proto(proto)
    (layer,) = reorderable(read)
    order = np.array([7, 6, 5, 4, 0, 1, 2, 3])
    layer.reorder(order)
    after = ir.to_proto(read)
    assert_same(proto, after, TOLERANCE)
    for name in ("w1", "b1", "s", "o", "m", "v"):
        np.testing.assert_array_equal(weight_of(after, name), weight_of(proto, name)[order])
    columns = weight_of(proto, "w2").reshape(3, 8, 16)
    np.testing.assert_array_equal(weight_of(after, "w2").reshape(3, 8, 16), columns[:, order])


def test_what_a_caller_sees_keeps_its_order() -> None:
    proto = model(
        "(float[N,4] x) => (float[N,8] y, float[N,3] z) {y = MatMul(x, w1) h = MatMul(y, w2) r = Relu(h) "
        "z = MatMul(r, w3)}",
        w1=normal(4, 8),
        w2=normal(8, 8),
        w3=normal(8, 3),
    )
    read = ir.from_proto(proto)
    (layer,) = reorderable(read)
    assert {(axis.value.name, axis.dim) for axis in layer.positions} == {("w2", 1), ("w3", 0)}
    assert all(constant_tensor(axis.value) is not None for axis in layer.positions)


PLACES = np.array([5, 1, 7, 0, 2, 6, 4, 3])


@pytest.mark.parametrize(
    ("pick", "places"),
    [
        ("p = Gather<axis=1>(a, places)", PLACES),
        (
            "t = Transpose<perm=[1,0,2,3]>(a) g = GatherND(t, places) p = Transpose<perm=[1,0,2,3]>(g)",
            PLACES[:, np.newaxis],
        ),
    ],
    ids=["Gather", "GatherND"],
)
def test_channels_that_a_list_picks_trade_places_and_the_list_stays(pick: str, places: np.ndarray) -> None:
    proto = model(
        "(float[N,4,6,6] x) => (float[N,3,6,6] y) {a = Conv(x, w1) " + pick + " r = Relu(p) y = Conv(r, w2)}",
        w1=normal(8, 4, 1, 1),
        w2=normal(3, 8, 1, 1),
        places=places,
    )
    after, moved = shuffled(proto)
    assert_same(proto, after, TOLERANCE)
    assert moved == len(places)
