"""Quantized weights, fine-tuned: rounded in every run, and returned as integers."""

import numpy as np
import onnxruntime as ort
import pytest
import torch

import onnxprune
from onnxprune.model.files.io import load
from onnxprune.model.reading import dequantized
from onnxprune.model.weights import constants_by_name
from onnxprune.training.module.exchange import borrowed, give_back, take
from onnxprune.training.module.graph import UnsupportedOperatorError, to_torch
from tests.builders import initializer, normal
from tests.fuzz.models import written

SCALES = np.linspace(0.01, 0.03, 16, dtype=np.float32)
ZEROS = np.arange(120, 136, dtype=np.uint8)


def quantized():
    """x -> Gemm of uint8 with a scale and zero point for each output, and an int32 bias -> Relu -> MatMul of floats."""
    integers = np.random.default_rng(0).integers(0, 255, (16, 8), np.uint8, endpoint=True)
    return written(
        """g (float[N,8] x) => (float[N,4] y) {
            w = DequantizeLinear <axis = 0> (k, s, z) b = DequantizeLinear <axis = 0> (c, t, o)
            h = Gemm <transB = 1> (x, w, b) r = Relu (h) y = MatMul (r, v)
        }""",
        {"k": integers, "s": SCALES, "z": ZEROS, "v": normal(16, 4)}
        | {"c": np.arange(16, dtype=np.int32) * 100, "t": SCALES / 100, "o": np.zeros(16, np.int32)},
    )


def run(model, x):
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]


def test_a_quantized_model_as_a_torch_module_computes_the_same():
    x = normal(5, 8)
    module = onnxprune.to_torch(quantized())
    assert {"k", "c", "v"} <= dict(module.named_parameters()).keys()
    (y,) = module(torch.from_numpy(x))
    assert np.allclose(y.detach().numpy(), run(quantized(), x), atol=1e-4)


def test_a_module_that_was_not_trained_returns_the_same_integers():
    model, _ = load(quantized())
    parameters = borrowed(to_torch(model), model)
    before = {value.name: value.const_value.numpy().copy() for value in parameters}
    give_back(parameters)
    take(parameters)
    give_back(parameters)
    for value in parameters:
        assert np.array_equal(value.const_value.numpy(), before[value.name])
        assert value.const_value.numpy().dtype == before[value.name].dtype


def test_fine_tuning_changes_the_remaining_integers_and_no_other():
    model, x = quantized(), normal(256, 8, seed=5)
    data = {"x": x, "labels": run(model, x)}
    settings = {"rate": 0.6, "format": "dense", "remove_dead": False, "eval_data": data}
    once = onnxprune.prune(model, **settings)
    trained = onnxprune.prune(model, data=data, epochs=20, learning_rate=0.02, batch_size=16, **settings)
    before, after = initializer(model, "k"), initializer(trained.model, "k")
    assert after.dtype == np.uint8
    assert np.count_nonzero(after == ZEROS[:, None]) >= round(0.6 * after.size)
    assert np.count_nonzero(after != before) > round(0.6 * after.size)
    assert not np.array_equal(initializer(trained.model, "c"), initializer(model, "c"))
    moved = [np.square(run(result.model, x) - data["labels"]).mean() for result in (once, trained)]
    assert moved[1] < 0.7 * moved[0]


def test_the_encoding_of_a_constant_is_known_where_all_its_readers_agree():
    model, _ = load(quantized())
    named = constants_by_name(model)
    encoding = dequantized(named["k"])
    assert encoding is not None
    assert np.array_equal(
        encoding.encode(encoding.decode(initializer(quantized(), "k"))), initializer(quantized(), "k")
    )
    assert encoding.encode(np.full((16, 8), 1e9, np.float32)).max() == 255
    assert dequantized(named["v"]) is None


def test_operators_that_compute_in_integers_are_refused_with_how_to_fix_it():
    model = written(
        """g (float[N,8] x) => (float[N,4] y) {
            q, s, z = DynamicQuantizeLinear (x) i = MatMulInteger (q, w, z) y = Cast <to = 1> (i)
        }""",
        {"w": np.ones((8, 4), np.uint8)},
    )
    with pytest.raises(UnsupportedOperatorError, match=r"MatMulInteger .* prune without --data"):
        onnxprune.prune(model, rate=0.5, data={"x": normal(64, 8)}, epochs=1)
