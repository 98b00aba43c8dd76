import io

import pytest
from rich.console import Console

from onnxprune import runtime
from onnxprune.cli.tables.bench import suite_tables, to_json
from onnxprune.latency.engines import KERNELS, EngineError, forced
from onnxprune.latency.layers import LAYERS, Layer, bench_layers

TINY = (
    Layer("tiny product", "MatMul", (8, 16), (16, 32)),
    Layer("tiny filters", "Conv", (1, 4, 6, 6), (8, 4, 3, 3), (("pads", [1, 1, 1, 1]),)),
)

pytestmark = pytest.mark.skipif(not runtime.available(), reason=runtime.available().reason or "-")


def test_every_layer_and_density_is_a_row_of_the_table_checked_and_with_its_mean():
    rows = list(bench_layers(TINY, (0.1, 0.5), (1,), (KERNELS, forced("portable"))))
    console = Console(width=200, file=io.StringIO())
    console.print(suite_tables(rows))
    text = console.file.getvalue()
    for layer in TINY:
        assert text.count(layer.name) == 2
    assert text.count("geometric mean") == 2 and "onnxprune portable" in text
    for row in to_json(rows)["rows"]:
        assert (
            set(row["ratios"]) == {"onnxruntime", "onnxprune", "onnxprune portable"} and not row["failures"]
        )


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(EngineError, match=r"'abacus', but this machine has .*portable"):
        list(bench_layers(TINY[:1], (0.1,), (1,), (forced("abacus"),)))


def test_a_layer_of_a_larger_batch_has_more_rows_and_a_name_of_its_own():
    names = {layer.at(batch).name for layer in LAYERS for batch in (1, 8, 64)}
    assert len(names) == 3 * len(LAYERS)
    assert all(layer.at(8).x[0] == 8 * layer.x[0] for layer in LAYERS)
