import io

import numpy as np
import pytest
from rich.console import Console

from onnxprune import runtime
from onnxprune.cli.tables.bench import suite_tables, to_json
from onnxprune.latency.engines import KERNELS, EngineError, forced
from onnxprune.latency.layers import LAYERS, Layer, bench_layers
from onnxprune.latency.race import difference
from onnxprune.pruning.blocks import BLOCK_PATTERNS

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


@pytest.mark.parametrize("blocks", [None, BLOCK_PATTERNS["1x4"]])
def test_layers_run_quantized_as_well_and_the_table_says_what_sparse_int8_gains(blocks):
    rows = list(bench_layers(TINY, (0.3,), (1,), (KERNELS,), blocks, int8=True))
    for row in rows:
        assert list(row.ratios) == ["onnxruntime", "onnxprune", "onnxruntime int8", "onnxprune int8"]
        assert not row.failures
    console = Console(width=200, file=io.StringIO())
    console.print(suite_tables(rows))
    assert "onnxprune int8 / dense int8" in console.file.getvalue()


def test_outputs_of_bytes_are_compared_as_numbers():
    assert difference([np.array([250], np.uint8)], [np.array([255], np.uint8)]) == 5 / 255
