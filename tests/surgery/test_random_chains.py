"""Random MLPs and CNNs with dead rows and columns: surgery never changes an output."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.surgery.oracle import operate

EXAMPLES = 100
ACTIVATIONS = (
    "Relu",
    "Sigmoid",
    "Tanh",
    "HardSwish",
    "LeakyRelu",
    "Softplus",
    "Elu",
    "Identity",
    "Clip",
    "PRelu",
)


class Chain:
    """A graph that grows node by node; `shape` is that of the last value, without the batch."""

    def __init__(self, seed: int, shape: tuple[int, ...], batch: int | str):
        self.rng = np.random.default_rng(seed)
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, *shape))
        self.batch = batch
        self.last = "x"

    def add(
        self, op_type: str, *constants: np.ndarray | None, shape: tuple[int, ...] | None = None, **attributes
    ) -> None:
        number = len(self.nodes)
        names = []
        for index, array in enumerate(constants):
            names.append("" if array is None else f"{op_type}_{number}_{index}")
            if array is not None:
                self.initializers.append(numpy_helper.from_array(array, names[-1]))
        node = helper.make_node(op_type, [self.last, *names], [f"v{number}"], name=f"n{number}", **attributes)
        self.nodes.append(node)
        self.last, self.shape = node.output[0], self.shape if shape is None else shape

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape, np.float32) * np.float32(0.5)

    def weight(self, out: int, inputs: int, *kernel: int) -> np.ndarray:
        """Random, with whole rows, whole columns and single elements at zero."""
        weight = self.normal(out, inputs, *kernel)
        weight[self.rng.random(weight.shape) < 0.5] = 0
        weight[self.rng.random(out) < 0.35] = 0
        weight[:, self.rng.random(inputs) < 0.35] = 0
        return weight

    def model(self) -> onnx.ModelProto:
        outputs = [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, (self.batch, *self.shape))]
        graph = helper.make_graph(self.nodes, "chain", [self.input], outputs, self.initializers)
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def activate(draw, chain: Chain) -> None:
    op_type = draw(st.sampled_from(ACTIVATIONS))
    if op_type == "Clip":
        chain.add("Clip", np.float32(-0.5), np.float32(6))
    elif op_type == "PRelu":
        chain.add("PRelu", chain.normal(chain.shape[0], *[1] * (len(chain.shape) - 1)))
    else:
        chain.add(op_type)


def shift(draw, chain: Chain) -> None:
    per_channel = (chain.shape[0], *[1] * (len(chain.shape) - 1))
    shape = draw(st.sampled_from([(), per_channel, (1, *per_channel)]))
    op_type = draw(st.sampled_from(["Add", "Sub", "Mul", "Div"]))
    chain.add(op_type, np.asarray(chain.rng.uniform(0.5, 1.5, shape), np.float32))


def normalize(draw, chain: Chain) -> None:
    c = chain.shape[0]
    variance = np.asarray(chain.rng.uniform(0.5, 2, c), np.float32)
    chain.add("BatchNormalization", chain.normal(c), chain.normal(c), chain.normal(c), variance)


def convolve(draw, chain: Chain) -> None:
    c, h, w = chain.shape
    kernel = draw(st.integers(1, min(3, h, w)))
    pad = draw(st.integers(0, kernel - 1))
    groups = draw(st.sampled_from([1, 1, 1, 2, c]))
    groups = groups if c % groups == 0 else 1
    out = groups * draw(st.integers(1, max(1, 6 // groups)))
    bias = chain.normal(out) if draw(st.booleans()) else None
    grown = tuple(size + 2 * pad - kernel + 1 for size in (h, w))
    weight = chain.weight(out, c // groups, kernel, kernel)
    constants = (weight,) if bias is None else (weight, bias)
    chain.add(
        "Conv", *constants, shape=(out, *grown), group=groups, pads=[pad] * 4, kernel_shape=[kernel] * 2
    )


def pool(draw, chain: Chain) -> None:
    c, h, w = chain.shape
    if min(h, w) < 2:
        return
    pad = draw(st.integers(0, 1))
    attributes: dict = {"kernel_shape": [2, 2], "pads": [pad] * 4, "strides": [2, 2]}
    op_type = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    if op_type == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    chain.add(op_type, shape=(c, (h + 2 * pad - 2) // 2 + 1, (w + 2 * pad - 2) // 2 + 1), **attributes)


def residual(draw, chain: Chain) -> None:
    c = chain.shape[0]
    before = chain.last
    chain.add("Conv", chain.weight(c, c, 1, 1), chain.normal(c))
    chain.nodes.append(
        helper.make_node("Add", [before, chain.last], [f"v{len(chain.nodes)}"], name=f"n{len(chain.nodes)}")
    )
    chain.last = chain.nodes[-1].output[0]


def flatten(draw, chain: Chain) -> None:
    columns = int(np.prod(chain.shape))
    kind = draw(st.sampled_from(["Flatten", "minus one first", "zero first", "global", "mean"]))
    if kind == "global":
        chain.add(draw(st.sampled_from(["GlobalAveragePool", "GlobalMaxPool"])), shape=(chain.shape[0], 1, 1))
        columns = chain.shape[0]
    if kind == "mean":
        chain.add("ReduceMean", shape=(chain.shape[0],), axes=[2, 3], keepdims=0)
    elif kind in ("Flatten", "global"):
        chain.add("Flatten", shape=(columns,))
    else:
        target = [-1, columns] if kind == "minus one first" else [0, -1]
        chain.add("Reshape", np.array(target), shape=(columns,))


def connect(draw, chain: Chain) -> None:
    inputs, out = chain.shape[0], draw(st.integers(1, 7))
    kind = draw(st.sampled_from(["Gemm", "Gemm transposed", "MatMul", "MatMul, Add"]))
    weight = chain.weight(out, inputs)
    if kind == "Gemm":
        chain.add("Gemm", weight.T.copy(), chain.normal(out), shape=(out,), alpha=0.7, beta=1.3)
    elif kind == "Gemm transposed":
        constants = (weight, chain.normal(1, out)) if draw(st.booleans()) else (weight,)
        chain.add("Gemm", *constants, shape=(out,), transB=1)
    else:
        chain.add("MatMul", weight.T.copy(), shape=(out,))
        if kind == "MatMul, Add":
            chain.add("Add", chain.normal(out))


@st.composite
def mlps(draw) -> onnx.ModelProto:
    chain = Chain(draw(st.integers(0, 2**32)), (draw(st.integers(1, 6)),), draw(st.sampled_from(["N", 1, 2])))
    for _ in range(draw(st.integers(2, 4))):
        connect(draw, chain)
        for step in draw(st.lists(st.sampled_from([activate, shift, normalize]), max_size=3)):
            step(draw, chain)
    connect(draw, chain)
    return chain.model()


@st.composite
def cnns(draw) -> onnx.ModelProto:
    shape = (draw(st.integers(1, 4)), draw(st.integers(4, 7)), draw(st.integers(4, 7)))
    chain = Chain(draw(st.integers(0, 2**32)), shape, draw(st.sampled_from(["N", 1, 2])))
    for _ in range(draw(st.integers(1, 3))):
        convolve(draw, chain)
        for step in draw(st.lists(st.sampled_from([activate, shift, normalize, pool, residual]), max_size=4)):
            step(draw, chain)
    if draw(st.booleans()):
        flatten(draw, chain)
        for _ in range(draw(st.integers(1, 2))):
            connect(draw, chain)
            activate(draw, chain)
    return chain.model()


LIMITS = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@LIMITS
@given(mlps())
def test_random_mlps_give_the_same_outputs_without_their_dead_units(model: onnx.ModelProto) -> None:
    operate(model)


@LIMITS
@given(cnns())
def test_random_cnns_give_the_same_outputs_without_their_dead_units(model: onnx.ModelProto) -> None:
    operate(model)
