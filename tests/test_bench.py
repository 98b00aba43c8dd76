import io

import pytest
from rich.console import Console

from onnxprune import runtime
from onnxprune.bench import Layer, bench_layers, layer_table

TINY = (
    Layer("tiny product", "MatMul", (8, 16), (16, 32)),
    Layer("tiny filters", "Conv", (1, 4, 6, 6), (8, 4, 3, 3), (("pads", [1, 1, 1, 1]),)),
)


@pytest.mark.skipif(not runtime.available(), reason=runtime.available().reason)
def test_every_layer_and_density_is_a_row_of_the_table():
    console = Console(width=200, file=io.StringIO())
    console.print(layer_table(bench_layers(TINY, (0.1, 0.5), (1,))))
    text = console.file.getvalue()
    for layer in TINY:
        assert text.count(layer.name) == 2
