import io
import json

import numpy as np
import onnx
import pytest
from rich.console import Console

import onnxprune
from onnxprune import cli, runtime
from onnxprune.cli.tables.bench import memory_table
from onnxprune.errors import MissingPackageError
from onnxprune.latency import networks
from onnxprune.latency.engines import KERNELS
from onnxprune.latency.models import TUNED, bench_models, prepare
from onnxprune.latency.networks import NETWORKS, Network
from onnxprune.model.weights import find_weights
from onnxprune.pruning.blocks import BLOCK_PATTERNS
from tests.builders import cnn, mlp

pytestmark = pytest.mark.skipif(not runtime.available(), reason=runtime.available().reason or "-")


def test_a_network_is_pruned_layer_by_layer_to_its_densities_and_timed_in_every_format():
    network = Network(cnn, {"x": (2, 1, 8, 8)}, (1.0, 0.3, 0.05))
    weights = find_weights(prepare(network).dense).prunable
    assert [weight.nonzero() for weight in weights] == [72, 1152 - round(0.7 * 1152), 576 - round(0.95 * 576)]
    (row,) = bench_models({"cnn": network}, (1,), (KERNELS,), seconds=0.1)
    assert list(row.ratios) == ["onnxruntime", "onnxprune", TUNED]
    assert row.bytes["onnxprune"] < row.bytes["onnxruntime"]
    console = Console(width=200, file=io.StringIO())
    console.print(memory_table([row]))
    assert console.file.getvalue().count("cnn") == 3


def test_a_network_runs_quantized_as_well_dense_sparse_and_tuned():
    network = Network(cnn, {"x": (2, 1, 8, 8)}, 1.0)
    rows = bench_models({"cnn": network}, (1,), (KERNELS,), 0.1, (0.3, 0.1), BLOCK_PATTERNS["1x4"], int8=True)
    for row, density in zip(rows, (0.3, 0.1), strict=True):
        int8 = ["onnxruntime int8", "onnxprune int8", f"{TUNED} int8"]
        assert list(row.ratios) == ["onnxruntime", "onnxprune", TUNED, *int8]
        assert row.density == density and not row.failures


def test_the_encoder_is_pruned_and_quantized_in_every_product():
    prepared = prepare(NETWORKS["MiniLM encoder, 10 %"])
    weights = find_weights(prepared.dense).prunable
    assert len(weights) == 36 and sum(weight.size for weight in weights) == 6 * 12 * 384 * 384


def test_the_networks_have_their_published_number_of_weights():
    proto = networks.light("squeezenet")
    onnx.checker.check_model(proto, full_check=True)
    assert sum(int(np.prod(tensor.dims)) for tensor in proto.graph.initializer) == pytest.approx(
        1.24e6, rel=0.01
    )
    layers = [len(network.densities) for network in NETWORKS.values() if isinstance(network.densities, tuple)]
    assert sorted(layers) == [8, 16]


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(MissingPackageError, match="no-such"):
        networks.packaged("no_such", "model.onnx")


def test_two_files_are_timed_side_by_side_and_written_as_json(tmp_path, capsys):
    onnx.save(mlp(64, 128, 32), tmp_path / "in.onnx")
    onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", rate=0.9)
    paths = [str(tmp_path / name) for name in ("in.onnx", "out.onnx")]
    cli.main(
        ["bench", *paths, "--threads", "1", "--input-shape", "x:3,64", "--json", str(tmp_path / "rows.json")]
    )
    out = capsys.readouterr().out
    for words in ("latency, median", "latency, 90th", "speedup", "peak memory", "pruned, kernels"):
        assert words in out
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert set(row["seconds"]) == {"baseline", "pruned, stock", "pruned, kernels"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.onnx"], "two files"),
        (["--suite", "layers", "--only", "no*"], "matches no row"),
        ([], "two files"),
    ],
)
def test_a_bench_of_nothing_is_refused_in_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", *arguments])
    assert stop.value.code == 2 and words in capsys.readouterr().err
