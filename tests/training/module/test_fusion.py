"""What exporters take apart becomes one function of torch again, with the same outputs, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F

from onnxprune.training.module.fusion import attend, hold, linear_by_columns
from onnxprune.training.module.graph import to_torch
from tests.builders import normal
from tests.surgery.oracle import model

NORM = """m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) p = Pow(d, two) v = ReduceMean<axes=[-1]>(p)
          e = Add(v, epsilon) r = Sqrt(e) n = Div(d, r) s = Mul(n, scale) y = Add(s, bias)"""
SCORES = "q = MatMul(x, w) k = Transpose<perm=[0, 1, 3, 2]>(x) s = MatMul(q, k)"

FUSED: dict[str, tuple[str, Callable]] = {
    "gelu, halved last": ("a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)", F.gelu),
    "gelu, halved first": ("h = Mul(half, x) a = Div(x, root) b = Erf(a) c = Add(one, b) y = Mul(h, c)", F.gelu),
    "silu": ("a = Sigmoid(x) y = Mul(x, a)", F.silu),
    "layer norm": (NORM, F.layer_norm),
    "linear": ("a = MatMul(x, w) y = Add(bias, a)", linear_by_columns),
    "attention": (f"{SCORES} p = Softmax<axis=-1>(s) y = MatMul(p, x)", attend),
    "scaled attention with a mask": (
        f"{SCORES} t = Div(s, two) u = Add(t, mask) p = Softmax<axis=-1>(u) y = MatMul(p, x)", attend
    ),
    "relu of a sum": ("a = Add(x, bias) y = Relu(a)", torch.relu_),
    "relu of a convolution": ("a = Conv(x, filters) y = Relu(a)", torch.relu_),
    "limits of a convolution": ("a = Conv(x, filters) y = Clip(a, zero, half)", hold),
    "one limit of a sum": ("a = Add(x, bias) y = Clip(a, zero)", hold),
    "attention of scaled operands": (
        "h = Mul(x, half) k = Transpose<perm=[0, 1, 3, 2]>(x) l = Mul(k, half) s = MatMul(h, l) "
        "p = Softmax<axis=-1>(s) y = MatMul(p, x)", attend
    ),
}  # fmt: skip

UNFUSED: dict[str, tuple[str, Callable]] = {
    "an erf of another scale": ("a = Div(x, two) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)", F.gelu),
    "a gate of another operand": ("z = Neg(x) a = Sigmoid(x) y = Mul(z, a)", F.silu),
    "a norm by the largest square": (NORM.replace("v = ReduceMean", "v = ReduceMax"), F.layer_norm),
    "a product that is read twice": ("a = MatMul(x, w) b = Add(a, bias) y = Add(a, b)", linear_by_columns),
    "relu of an input": ("y = Relu(x)", torch.relu_),
    "relu of a sum that is read twice": ("a = Add(x, bias) b = Relu(a) y = Mul(a, b)", torch.relu_),
    "limits of an input": ("y = Clip(x, zero, half)", hold),
    "limits of a convolution that is read twice": (
        "a = Conv(x, filters) b = Clip(a, zero, half) y = Mul(a, b)", hold
    ),
    "a softmax over another axis": (f"{SCORES} p = Softmax<axis=2>(s) y = MatMul(p, x)", attend),
    "weights that are read twice": (
        f"{SCORES} p = Softmax<axis=-1>(s) z = MatMul(p, x) m = ReduceMean(p) y = Add(z, m)", attend
    ),
}  # fmt: skip


def proto_of(lines: str) -> onnx.ModelProto:
    numbers = {"root": 2**0.5, "one": 1, "half": 0.5, "two": 2, "zero": 0, "epsilon": 1e-5}
    return model(
        "(float[2,3,4,4] x) => (float[2,3,4,4] y) {" + lines + "}",
        w=normal(4, 4), bias=normal(4, seed=1), scale=normal(4, seed=2), mask=normal(2, 1, 4, 4, seed=3),
        filters=normal(3, 3, 1, 1, seed=5),
        **{name: np.array(number, np.float32) for name, number in numbers.items()},
    )  # fmt: skip


def targets(lines: str) -> list[object]:
    """The functions that the graph calls, once its output is that of onnxruntime."""
    proto, x = proto_of(lines), normal(2, 3, 4, 4, seed=4)
    module = to_torch(ir.from_proto(proto))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = module(torch.from_numpy(x))
    np.testing.assert_allclose(result.detach().numpy(), session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", FUSED)
def test_a_pattern_becomes_one_function(name: str) -> None:
    lines, function = FUSED[name]
    assert function in targets(lines)


@pytest.mark.parametrize("name", UNFUSED)
def test_a_pattern_of_another_meaning_is_not_fused(name: str) -> None:
    lines, function = UNFUSED[name]
    assert function not in targets(lines)


def test_the_weights_of_what_is_fused_stay_parameters() -> None:
    module = to_torch(ir.from_proto(proto_of("a = MatMul(x, w) y = Add(a, bias)")))
    assert [name for name, _ in module.named_parameters()] == ["w", "bias"]


@pytest.mark.parametrize("limit", ["Relu(a)", "Clip(a, zero, half)", "Clip(a, zero)"])
@pytest.mark.parametrize("before", ["Conv(x, filters)", "Add(x, bias)"])
def test_what_is_overwritten_does_not_change_the_gradients(before: str, limit: str) -> None:
    gradients = []
    # Read a second time, the values before the limit are kept.
    for more in (f"y = {limit}", f"b = {limit} c = Mul(a, zero) y = Add(b, c)"):
        module = to_torch(ir.from_proto(proto_of(f"a = {before} {more}")))
        x = torch.from_numpy(normal(2, 3, 4, 4, seed=4)).requires_grad_()
        module(x)[0].square().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert gradients[0].count_nonzero() > 0
    torch.testing.assert_close(gradients[0], gradients[1])
