import gc
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from packaging.version import Version

import onnxprune
from onnxprune import runtime
from onnxprune.sparse.choose import LEAST_PROGRESS, LEAST_SPEEDUP, choose_portable
from onnxprune.sparse.estimate import PORTABLE, SPMM_ROWS
from onnxprune.sparse.functions import DOMAIN
from onnxprune.sparse.placement import kernel_nodes, place, sparse_nodes
from tests.runtime.sessions import assert_close
from tests.sparse.graphs import dense_array, parse, run, sparse, sparse_array

MODELS = Path(__file__).parents[2] / "models"
REQUIRED = "1.24"


def why_no_provider():
    if not runtime.available() or Version(ort.__version__) < Version(REQUIRED):
        return f"there are no kernels, or onnxruntime {ort.__version__} is older than {REQUIRED}"
    try:
        runtime.add_provider(ort.SessionOptions())
    except RuntimeError as error:
        return str(error) if "built without" in str(error) else ""
    return ""


needs_provider = pytest.mark.skipif(bool(why_no_provider()), reason=why_no_provider() or "-")


def provider_session(model, kernels="all", threads=1, *, groups=True, **options):
    """A session of a model, its path or its protocol buffer, with the provider."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4
    for name, value in options.items():
        setattr(settings, name, value)
    runtime.add_provider(settings, kernels, groups=groups)
    return ort.InferenceSession(
        model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model), settings
    )


def profiled(model, feeds, folder, kernels="all", threads=1, *, groups=True):
    """The outputs, the number of nodes that the provider ran, and the operators that onnxruntime ran itself."""
    session = provider_session(
        model,
        kernels,
        threads,
        groups=groups,
        enable_profiling=True,
        profile_file_prefix=str(folder / "profile"),
    )
    outputs = session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    claimed = [args for args in ran if args["provider"] == runtime.PROVIDER]
    return outputs, len(claimed), [args["op_name"] for args in ran if args not in claimed]


@pytest.fixture(scope="module", params=["lenet-300-100", "lenet-5", "resnet-20"])
def pruned(request, tmp_path_factory):
    """A committed model, pruned to 90 % in one shot, as a file with zeros in place."""
    path = tmp_path_factory.mktemp("pruned") / "dense.onnx"
    onnxprune.prune(MODELS / f"{request.param}.onnx", path, rate=0.9, format="dense")
    return path


def inputs_of(path, batch):
    (declared,) = onnx.load(path).graph.input
    sizes = [dim.dim_value for dim in declared.type.tensor_type.shape.dim]
    return {declared.name: dense_array(batch, *sizes[1:])}


@needs_provider
def test_pruned_models_give_the_outputs_of_dense_at_any_batch_size(pruned):
    dense = ort.InferenceSession(pruned, providers=["CPUExecutionProvider"])
    sessions = [provider_session(pruned, kernels) for kernels in ("estimated", "all")]
    for batch in (1, 5, 2):
        feeds = inputs_of(pruned, batch)
        expected = dense.run(None, feeds)[0]
        for session in sessions:
            assert_close(session.run(None, feeds)[0], expected)


@needs_provider
def test_the_provider_claims_what_the_estimate_of_the_ops_format_claims(pruned, tmp_path):
    feeds = inputs_of(pruned, 1)
    ops = ir.from_proto(sparse(onnx.load(pruned))[0])
    choice = choose_portable(ops, feeds)
    for kernels, expected in (
        ("estimated", sum(node.by_kernel for node in choice.nodes)),
        ("all", len(choice.nodes)),
    ):
        _, claimed, _ = profiled(pruned, feeds, tmp_path, kernels, groups=False)
        assert claimed == expected > 0


def test_the_constants_of_the_rule_are_those_of_the_estimate():
    source = (Path(runtime.__file__).parent / "csrc" / "ep" / "choice.cc").read_text()
    constants = dict(re.findall(r"constexpr \w+ k(\w+) = ([\d.]+);", source))
    names = ["DenseRows", "Sparse", "SparseRow", "Element", "Reorder"]
    assert tuple(float(constants[name]) for name in names) == PORTABLE
    assert float(constants["SpmmRows"]) == SPMM_ROWS
    assert float(constants["LeastSpeedup"]) == LEAST_SPEEDUP
    assert float(constants["LeastProgress"]) == LEAST_PROGRESS


def chain(seed):
    """Convolutions of several sizes and densities, one behind the other, and products behind them."""
    rng = np.random.default_rng(seed)
    lines, weights, before, channels = [], {}, "x", 16
    for index in range(8):
        outputs, kernel = int(rng.choice([8, 16, 64])), int(rng.choice([1, 3]))
        density = rng.choice([0.02, 0.1, 0.3, 0.6])
        weights[f"w{index}"] = sparse_array(outputs, channels, kernel, kernel, density=density, seed=index)
        lines.append(f"c{index} = Conv <pads = {[kernel // 2] * 4}> ({before}, w{index})")
        lines.append(f"r{index} = {rng.choice(['Relu', 'Tanh'])} (c{index})")
        before, channels = f"r{index}", outputs
    lines.append(f"m = GlobalAveragePool ({before}) f = Flatten (m)")
    before, rows = "f", int(rng.choice([1, 7, 16]))
    for index in range(3):
        outputs, density = int(rng.choice([64, 512])), rng.choice([0.1, 0.3, 0.6])
        weights[f"v{index}"] = sparse_array(channels, outputs, density=density, seed=index)
        lines.append(f"d{index} = MatMul ({before}, v{index})")
        before, channels = f"d{index}", outputs
    text = f"g (float[{rows}, 16, 14, 14] x) => (float[{rows}, {channels}] {before}) {{ {' '.join(lines)} }}"
    return parse(text, **weights), {"x": dense_array(rows, 16, 14, 14)}


@needs_provider
@pytest.mark.parametrize("seed", range(8))
def test_the_rule_for_any_graph_is_that_of_the_ops_format(seed, tmp_path):
    model, feeds = chain(seed)
    (got,), claimed, _ = profiled(model, feeds, tmp_path, "estimated", groups=False)
    assert_close(got, run(model, **feeds)[0])
    choice = choose_portable(ir.from_proto(sparse(model)[0]), feeds)
    assert claimed == sum(node.by_kernel for node in choice.nodes)


@needs_provider
def test_a_model_without_zeros_is_left_alone(tmp_path):
    for path in sorted(MODELS.glob("*.onnx")):
        feeds = inputs_of(path, 1)
        outputs, claimed, _ = profiled(path, feeds, tmp_path, "estimated")
        # On ARM the last bits of onnxruntime's own convolutions depend on the number of threads.
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        dense = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        assert claimed == 0
        np.testing.assert_array_equal(outputs[0], dense.run(None, feeds)[0])


W, V = sparse_array(64, 64), sparse_array(64, 64, seed=7)
B = dense_array(64, seed=3)
CONV = sparse_array(32, 16, 3, 3)
GROUPED = sparse_array(32, 8, 3, 3)
CONV_BIAS = dense_array(32, seed=3)
SQUARE = "g (float[n, 64] x) => (float[n, 64] y)"
RESIDUAL = "g (float[n, 64] x, float[n, 64] r) => (float[n, 64] y)"
IMAGE = "g (float[n, 16, 9, 7] x) => (float[n, 32, h, v] y)"
# A graph, its weights, and the operators that onnxruntime is left with.
GRAPHS = {
    "Gemm, Relu": (f"{SQUARE} {{ z = Gemm <transB = 1, alpha = 0.5> (x, w, b) y = Relu (z) }}", []),
    "Gemm of transposed x": (
        "g (float[64, n] x) => (float[n, 64] y) { y = Gemm <transA = 1, beta = 0.5> (x, w, b) }",
        [],
    ),
    "MatMul, Clip with bounds": (f"{SQUARE} {{ z = MatMul (x, w) y = Clip (z, low, high) }}", []),
    "MatMul, Clip with one bound": (f"{SQUARE} {{ z = MatMul (x, w) y = Clip (z, , high) }}", []),
    "MatMul, Clip with crossed bounds": (
        f"{SQUARE} {{ z = MatMul (x, w) y = Clip (z, high, low) }}",
        ["Clip"],
    ),
    "LeakyRelu": (f"{SQUARE} {{ z = MatMul (x, w) y = LeakyRelu <alpha = 0.2> (z) }}", []),
    "HardSwish": (f"{SQUARE} {{ z = MatMul (x, w) y = HardSwish (z) }}", []),
    "Tanh is none of the kernels'": (f"{SQUARE} {{ z = MatMul (x, w) y = Tanh (z) }}", ["Tanh"]),
    "addend": (f"{RESIDUAL} {{ p = MatMul (x, w) z = Add (r, p) y = Relu (z) }}", []),
    "Sum of two": (f"{RESIDUAL} {{ p = MatMul (x, w) z = Sum (p, r) y = Sigmoid (z) }}", []),
    "x as addend": (f"{SQUARE} {{ p = MatMul (x, w) z = Add (x, p) y = Relu (z) }}", []),
    "activation before an addition": (
        f"{RESIDUAL} {{ p = MatMul (x, w) z = Relu (p) y = Add (z, r) }}",
        ["Add"],
    ),
    "addend whose batch may be another": (
        """g (float[n, 16, 9, 7] x, float[m, 32, 9, 7] r) => (float[k, 32, 9, 7] y)
        { z = Conv <pads = [1, 1, 1, 1]> (x, conv) y = Add (z, r) }""",
        ["Add"],
    ),
    "bias of rows": (
        "g (float[n, 3, 64] x) => (float[n, 3, 64] y) { p = MatMul (x, w) z = Add (b, p) y = Sigmoid (z) }",
        [],
    ),
    "two products added": (
        f"{SQUARE} {{ p = MatMul (x, w) q = MatMul (x, v) z = Add (p, q) y = Relu (z) }}",
        [],
    ),
    "product added to itself": (f"{SQUARE} {{ p = MatMul (x, w) y = Add (p, p) }}", ["Add"]),
    "value between as an output": (
        "g (float[n, 64] x) => (float[n, 64] y, float[n, 64] z) { z = MatMul (x, w) y = Relu (z) }",
        ["Relu"],
    ),
    "one weight, several readers": (
        f"{SQUARE} {{ p = MatMul (x, w) t = Transpose <perm = [1, 0]> (w) q = MatMul (p, t) y = Tanh (q) }}",
        ["Tanh"],
    ),
    "Conv, Relu": (
        f"{IMAGE} {{ z = Conv <pads = [1, 1, 1, 1], strides = [2, 1]> (x, conv, c) y = Relu (z) }}",
        [],
    ),
    "Conv with auto_pad": (f'{IMAGE} {{ y = Conv <auto_pad = "SAME_LOWER"> (x, conv) }}', []),
    "Conv with groups and dilations": (
        f"{IMAGE} {{ y = Conv <group = 2, dilations = [1, 2]> (x, grouped, c) }}",
        [],
    ),
    "Conv with an addend": (
        """g (float[n, 16, 9, 7] x, float[n, 32, 9, 7] r) => (float[n, 32, 9, 7] y)
        { z = Conv <pads = [1, 1, 1, 1]> (x, conv, c) s = Add (z, r) y = Relu (s) }""",
        [],
    ),
}
CONSTANTS = {
    "w": W,
    "v": V,
    "b": B,
    "conv": CONV,
    "grouped": GROUPED,
    "c": CONV_BIAS,
    "low": np.float32(-0.5),
    "high": np.float32(0.5),
}


def graph(name):
    text, left = GRAPHS[name]
    named = {key for key in CONSTANTS if f" {key}," in text or f" {key})" in text or f"({key}," in text}
    model = parse(text, opset=14, **{key: CONSTANTS[key] for key in named})
    inputs = {}
    for index, value in enumerate(model.graph.input):
        sizes = [dim.dim_value or 5 for dim in value.type.tensor_type.shape.dim]
        inputs[value.name] = dense_array(*sizes, seed=index + 11)
    return model, inputs, left


@needs_provider
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", GRAPHS)
def test_each_product_runs_with_what_follows_it(name, threads, tmp_path):
    model, inputs, left = graph(name)
    outputs, claimed, others = profiled(model, inputs, tmp_path, threads=threads)
    for got, expected in zip(outputs, run(model, **inputs), strict=True):
        assert_close(got, expected)
    assert claimed == sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in model.graph.node)
    assert others == left


def with_inputs(model, *names):
    """The model with these initializers as inputs too, which callers can override."""
    for initializer in model.graph.initializer:
        if initializer.name in names:
            model.graph.input.append(
                helper.make_tensor_value_info(initializer.name, 1, list(initializer.dims))
            )
    return model


@needs_provider
def test_a_weight_that_callers_can_override_is_left_alone(tmp_path):
    model = with_inputs(parse(f"{SQUARE} {{ y = MatMul (x, w) }}", w=W), "w")
    x = dense_array(5, 64)
    (got,), claimed, _ = profiled(model, {"x": x, "w": V}, tmp_path)
    assert claimed == 0
    assert_close(got, x @ V)


@needs_provider
def test_a_bias_that_callers_override_is_the_callers(tmp_path):
    model = with_inputs(parse(f"{SQUARE} {{ y = Gemm (x, w, b) }}", w=W, b=B), "b")
    x = dense_array(5, 64)
    (got,), claimed, _ = profiled(model, {"x": x, "b": 2 * B}, tmp_path)
    assert claimed == 1
    assert_close(got, x @ W + 2 * B)
    assert_close(provider_session(model).run(None, {"x": x})[0], x @ W + B)


@needs_provider
@pytest.mark.parametrize("outer", [False, True], ids=["weights of its own", "weights of the graph around it"])
def test_products_in_subgraphs(outer, tmp_path):
    def branch(name, weight):
        weights = [] if outer else [numpy_helper.from_array(weight, f"{name}w")]
        nodes = [
            helper.make_node("MatMul", ["x", "w" if outer else f"{name}w"], [f"{name}p"]),
            helper.make_node("Relu", [f"{name}p"], [f"{name}y"]),
        ]
        result = helper.make_tensor_value_info(f"{name}y", 1, ["n", 64])
        return helper.make_graph(nodes, name, [], [result], weights)

    model = parse("g (float[n, 64] x, bool c) => (float[n, 64] y) { }", **({"w": W} if outer else {}))
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch("t", W), else_branch=branch("e", V))
    model.graph.node.append(choice)
    x = dense_array(5, 64)
    for condition in (True, False):
        feeds = {"x": x, "c": np.array(condition)}
        (got,), claimed, _ = profiled(model, feeds, tmp_path)
        assert_close(got, run(model, **feeds)[0])
        assert claimed == (0 if outer else 1)


@needs_provider
def test_a_file_in_the_ops_format_runs_as_it_says_itself(tmp_path):
    dense = parse(f"{SQUARE} {{ p = MatMul (x, w) q = Relu (p) y = MatMul (q, v) }}", w=W, v=V)
    ops = ir.from_proto(sparse(dense)[0])
    nodes = sparse_nodes(ops)
    x = dense_array(5, 64)
    for by_kernel in (nodes, nodes[:1], []):
        place(ops, set(by_kernel))
        nodes = kernel_nodes(ops)
        (got,), claimed, others = profiled(ir.to_proto(ops), {"x": x}, tmp_path)
        assert_close(got, run(dense, x=x)[0])
        assert claimed == 0
        assert sum(op.startswith("Sparse") for op in others) == len(by_kernel)
        assert sum(node.domain == DOMAIN for node in nodes) == len(by_kernel)


@needs_provider
def test_what_no_kernel_computes_is_left_alone(tmp_path):
    half = sparse_array(64, 64, dtype=np.float16)
    model = parse("g (float16[n, 64] x) => (float16[n, 64] y) { y = MatMul (x, h) }", h=half)
    x = dense_array(5, 64, dtype=np.float16)
    (got,), claimed, _ = profiled(model, {"x": x}, tmp_path)
    assert claimed == 0
    np.testing.assert_array_equal(got, run(model, x=x)[0])


@needs_provider
def test_an_input_that_does_not_fit_is_refused_by_the_node(tmp_path):
    model = parse("g (float[n, k] x) => (float[n, 64] y) { [fc] y = MatMul (x, w) }", w=W)
    session = provider_session(model)
    with pytest.raises(Exception, match=r"MatMul node 'fc' cannot run: its input has shape \[5, 63\]"):
        session.run(None, {"x": dense_array(5, 63)})
    assert session.run(None, {"x": dense_array(5, 64)})[0].shape == (5, 64)


@needs_provider
def test_sessions_in_several_threads_give_the_same_bits_and_close_in_any_order():
    model, inputs, _ = graph("Conv with an addend")
    sessions = [provider_session(model, threads=threads) for threads in (1, 2, 2)]
    expected = sessions[0].run(None, inputs)[0].tobytes()
    different = []

    def work(session):
        for _ in range(30):
            if session.run(None, inputs)[0].tobytes() != expected:
                different.append(session)

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not different
    for index in (1, 0, 0):
        del sessions[index]
        gc.collect()
        for session in sessions:
            assert session.run(None, inputs)[0].tobytes() == expected


LEFT_BEHIND = """
import gc
import json
import sys
import numpy as np
import onnxruntime as ort
from onnxprune import runtime

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

def open_and_close(times):
    for index in range(times):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        runtime.add_provider(options, "all")
        session = ort.InferenceSession(sys.argv[1], options)
        session.run(None, {"x": np.ones(shapes[index % len(shapes)], np.float32)})
        del session
    gc.collect()
    return resident_mb()

shapes, times = json.loads(sys.argv[2]), int(sys.argv[3])
before = open_and_close(times)
print(open_and_close(3 * times) - before)
"""


def left_behind_mb(model, folder, shapes, times):
    """What the memory of a process grows by while sessions are opened and closed, three times as many as before."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not tell a process's memory")
    onnx.save(model, folder / "model.onnx")
    command = [sys.executable, "-c", LEFT_BEHIND, folder / "model.onnx", json.dumps(shapes), str(times)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@needs_provider
def test_sessions_leave_no_memory_behind(tmp_path):
    w = sparse_array(1024, 512)
    model = parse("g (float[n, 1024] x) => (float[n, 512] y) { y = MatMul (x, w) }", w=w)
    # A session's weight, packed: 0.6 MB.
    assert left_behind_mb(model, tmp_path, [(4, 1024)], times=20) < 10


GROWTH = """
import sys
from onnxprune import runtime

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

runtime.session(sys.argv[1], provider=True)
before = resident_mb()
session = runtime.session(sys.argv[2], provider=True)
print(resident_mb() - before)
"""


@needs_provider
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="this system does not tell a process's memory"
)
def test_the_dense_weight_is_let_go(tmp_path):
    for name, size in (("small", 64), ("large", 2048)):
        w = sparse_array(size, size, density=0.02)
        text = f"g (float[n, {size}] x) => (float[n, {size}] y) {{ y = MatMul (x, w) }}"
        onnx.save(parse(text, w=w), tmp_path / name)
    command = [sys.executable, "-c", GROWTH, str(tmp_path / "small"), str(tmp_path / "large")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(printed) < 8  # dense, the weight has 16 MB


@needs_provider
def test_an_unknown_choice_of_kernels_is_refused():
    model, _, _ = graph("Gemm, Relu")
    with pytest.raises(Exception, match="the option kernels of OnnxpruneExecutionProvider is 'some'"):
        provider_session(model, "some")


@needs_provider
def test_a_file_of_what_was_compiled_is_refused(tmp_path):
    settings = ort.SessionOptions()
    settings.add_session_config_entry("ep.context_enable", "1")
    runtime.add_provider(settings)
    with pytest.raises(Exception, match=r"writes no compiled models: leave ep\.context_enable out"):
        ort.InferenceSession(graph("Gemm, Relu")[0].SerializeToString(), settings)


CALLS = """
import sys, onnxruntime as ort
ort.register_execution_provider_library("onnxprune", sys.argv[1])
devices = [device for device in ort.get_ep_devices() if device.ep_name == "OnnxpruneExecutionProvider"]
options = ort.SessionOptions()
options.add_provider_for_devices(devices, {"kernels": "all"})
session = ort.InferenceSession(sys.argv[2], options)
print(session.get_providers()[0])
del session, options, devices
ort.unregister_execution_provider_library("onnxprune")
"""


@needs_provider
def test_onnxruntimes_own_calls_register_and_release_it(pruned):
    command = [sys.executable, "-c", CALLS, str(runtime.library_path()), str(pruned)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == runtime.PROVIDER


@needs_provider
def test_session_takes_the_provider_alone(pruned):
    session = runtime.session(pruned, provider=True)
    assert session.get_providers() == [runtime.PROVIDER, "CPUExecutionProvider"]
    with pytest.raises(RuntimeError, match="leave one of them out"):
        runtime.session(pruned, None, ["CPUExecutionProvider"], provider=True)


def test_an_onnxruntime_without_providers_from_libraries_is_refused(monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda: runtime.Availability(True))
    monkeypatch.delattr(ort, "register_execution_provider_library", raising=False)
    with pytest.raises(RuntimeError, match=r"update it to 1\.24 or later"):
        runtime.add_provider(ort.SessionOptions())


def test_an_installation_without_the_library_is_refused(monkeypatch):
    monkeypatch.setattr(
        runtime, "available", lambda: runtime.Availability(False, "no C++ compiler was found")
    )
    with pytest.raises(RuntimeError, match="no execution provider: no C\\+\\+ compiler was found"):
        runtime.add_provider(ort.SessionOptions())
