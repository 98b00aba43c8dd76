import json

import pytest

from onnxprune.latency.fit import error, fit, read, speedup
from onnxprune.latency.layers import LAYERS, output_shape
from onnxprune.sparse.estimate import PORTABLE


def test_the_fit_finds_the_constants_that_made_the_figures(tmp_path):
    truth = PORTABLE._replace(sparse=3.1, element=31.0, dense_rows=8.0)
    rows = [
        {"name": layer.name, "density": density, "ratios": {"onnxprune": speedup(layer, density, truth)}}
        for layer in LAYERS
        for density in (0.02, 0.1, 0.3)
    ]
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    samples = read(tmp_path / "rows.json")
    found = fit(samples)
    assert error(samples, PORTABLE) > 0.1 > error(samples, found)
    assert found.sparse == pytest.approx(truth.sparse, rel=0.1)


def test_the_output_of_every_layer_is_known():
    shapes = {layer.name: output_shape(layer) for layer in LAYERS}
    assert shapes["Conv 3x3 128->256 at 28x28 /2"] == (1, 256, 14, 14)
    assert shapes["Gemm 25088->4096"] == (1, 4096)
    assert shapes["MatMul 128x768x3072"] == (128, 3072)
