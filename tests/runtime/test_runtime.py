import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxprune import runtime
from tests.runtime.sessions import needs_kernels, run_kernels, sparse_model
from tests.sparse.graphs import run, sparse
from tests.sparse.test_rewrite import weighted_model


def test_a_relative_library_path_becomes_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNXPRUNE_LIBRARY", "build/library.so")
    assert runtime.library_path() == tmp_path / "build" / "library.so"


def test_importing_the_runtime_imports_neither_torch_nor_onnxscript():
    code = "import sys, onnxprune.runtime; print(sorted({'torch', 'onnxscript'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@needs_kernels
@pytest.mark.parametrize(("isa", "flags"), [("avx2", {"avx2", "fma"}), ("avx512", {"avx512f"})])
@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="reads Linux's flags of x86"
)
def test_the_library_finds_the_instructions_that_the_cpu_has(isa, flags, monkeypatch):
    monkeypatch.setenv("ONNXPRUNE_ISA", isa)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    has = flags <= set(next(line for line in lines if line.startswith("flags")).split())
    one = np.ones((1, 1), np.float32)
    try:
        assert run_kernels(sparse_model("SparseMatMul", one), one) == 1
        found = True
    except ort.capi.onnxruntime_pybind11_state.RuntimeException as refusal:
        assert "but this machine has" in str(refusal)
        found = False
    assert found == has


@pytest.fixture
def no_library(monkeypatch, tmp_path):
    """An installation without a library, as its folder."""
    monkeypatch.delenv("ONNXPRUNE_LIBRARY", raising=False)
    monkeypatch.setattr(runtime, "__path__", [str(tmp_path)])
    return tmp_path


def test_available_says_why_not(no_library):
    assert not runtime.available()
    assert "without a build" in runtime.available().reason
    (no_library / "no-library.txt").write_text("no C++ compiler was found\n")
    assert runtime.available().reason == "no C++ compiler was found"
    assert runtime.library_path() is None


def test_a_session_without_the_library_gives_the_same_outputs(no_library):
    dense, x = weighted_model("Gemm (x, w, b)")
    onnx.save(sparse(dense)[0], no_library / "sparse.onnx")
    got = runtime.session(no_library / "sparse.onnx").run(None, {"x": x})[0]
    np.testing.assert_array_equal(got, run(dense, x=x)[0])


@needs_kernels
def test_the_kernel_takes_the_place_of_the_function(tmp_path):
    dense, x = weighted_model("Conv (x, w, b)")
    onnx.save(sparse(dense)[0], tmp_path / "sparse.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = runtime.session(tmp_path / "sparse.onnx", options)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], run(dense, x=x)[0], rtol=1e-4, atol=1e-5)
    optimized = onnx.load(tmp_path / "optimized.onnx")
    assert "SparseConvRelu" in [node.op_type for node in optimized.graph.node]


@needs_kernels
def test_the_library_can_be_registered_many_times():
    for _ in range(3):
        options = ort.SessionOptions()
        assert runtime.register(options)
        dense, x = weighted_model("MatMul (x, w)")
        session = ort.InferenceSession(sparse(dense)[0].SerializeToString(), options)
        assert session.run(None, {"x": x})[0].shape == run(dense, x=x)[0].shape


def test_register_says_whether_there_are_kernels():
    assert bool(runtime.register(ort.SessionOptions())) == bool(runtime.available())
