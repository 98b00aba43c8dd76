"""Loads and runs broken copies of sparse models, with the kernels; prints how many were refused.

    python -m tests.runtime.mutations COUNT

A process of its own, since what it looks for is a crash. The copies are the same at every run.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.model.weights import find_weights
from onnxprune.sparse.rewrite import to_ops
from tests.runtime.sessions import kernel_session
from tests.sparse.test_fuse import SUMS, TAILS, followed
from tests.sparse.test_quantized import model_of, x_of

NUMBERS = (-(2**63), -(2**31), -1, 0, 1, 2, 3, 16, 255, 4097, 2**31, 2**62)
SPECIALS = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e38, 1e-42)


def whole_models():
    """A sparse model of each form of weight and a few of what follows it, and its inputs."""
    for values in ("fp32", "fp16", "int8"):
        for name in SUMS:
            for tail, addend in (
                ("Relu", True),
                ("Clip", False),
                ("AddClipDivMul", False),
                ("SigmoidMul", True),
            ):
                dense, inputs = followed(name, TAILS[tail][0], addend=addend)
                model = ir.from_proto(dense)
                to_ops(model, find_weights(model).prunable, values)
                yield ir.to_proto(model), inputs
    for name in ("SparseQLinearConv", "SparseQDQConv") * 6:
        dense = model_of(name)
        model = ir.from_proto(dense)
        to_ops(model, find_weights(model).prunable)
        yield ir.to_proto(model), {"x": x_of(dense)}


def mutate(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Change one thing: a constant's numbers, its length, its type, or an attribute."""
    tensor = model.graph.initializer[rng.integers(len(model.graph.initializer))]
    array = onnx.numpy_helper.to_array(tensor).copy()
    kind = rng.integers(5)
    flat = array.reshape(-1)
    if kind == 0 and flat.size:
        choices = SPECIALS if array.dtype.kind == "f" else NUMBERS
        with np.errstate(over="ignore"):
            flat[rng.integers(flat.size)] = np.array(rng.choice(choices)).astype(array.dtype)
    elif kind == 1:
        array = flat[: rng.integers(flat.size + 1)]
    elif kind == 2:
        array = np.concatenate([flat, flat[:3]])
    elif kind == 3:
        array = array.reshape(1, *array.shape)
    else:
        node = next(node for node in model.graph.node if node.domain == "onnxprune" and node.attribute)
        attribute = node.attribute[rng.integers(len(node.attribute))]
        attribute.i = int(rng.choice(NUMBERS))
        strides = onnx.helper.make_attribute("strides", [int(rng.choice(NUMBERS)) for _ in range(2)])
        node.attribute.append(strides)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def main(count: int) -> None:
    rng = np.random.default_rng(0)
    models = list(whole_models())
    refused = 0
    for _ in range(count):
        original, inputs = models[rng.integers(len(models))]
        model = onnx.ModelProto()
        model.CopyFrom(original)
        mutate(model, rng)
        try:
            kernel_session(model).run(None, inputs)
        except Exception:
            refused += 1
    print(refused)


if __name__ == "__main__":
    main(int(sys.argv[1]))
