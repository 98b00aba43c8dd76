"""Who reads an exported file: each tool that is installed, with ONNXPRUNE_LONG=1."""

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxprune

MODELS = Path(__file__).parents[2] / "models"
SHAPES = {"lenet-300-100": (1, 784), "lenet-5": (1, 1, 28, 28), "resnet-20": (1, 3, 32, 32)}
LONG = pytest.mark.skipif(not os.environ.get("ONNXPRUNE_LONG"), reason="ONNXPRUNE_LONG is not set")

pytestmark = [LONG, pytest.mark.parametrize("name", SHAPES)]


@pytest.fixture(params=["dense", "static"])
def exported(request, name, tmp_path):
    onnxprune.prune(MODELS / f"{name}.onnx", tmp_path / "pruned.onnx", rate=0.9)
    target = tmp_path / "exported.onnx"
    onnxprune.export(tmp_path / "pruned.onnx", target, static=request.param == "static")
    return target


def need(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def run(*words, cwd):
    """Run a tool; returns what it printed."""
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def sample(name):
    return np.random.default_rng(0).random(SHAPES[name], dtype=np.float32)


def outputs(path, name):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: sample(name)})[0]


def test_openvino_gives_the_same_outputs(exported, name):
    need("openvino")
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(exported), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled([sample(name)])[0], outputs(exported, name), rtol=1e-3, atol=1e-3)


def test_pnnx_makes_an_ncnn_model(exported, name):
    need("pnnx")
    program = distribution("pnnx").locate_file("pnnx/pnnx")
    shape = f"inputshape=[{','.join(map(str, SHAPES[name]))}]"
    run(program, exported, shape, cwd=exported.parent)
    layers = (exported.parent / "exported.ncnn.param").read_text()
    assert layers.count("InnerProduct") + layers.count("Convolution") >= 3


def test_mnn_converts(exported):
    need("MNN")
    program = shutil.which("mnnconvert") or distribution("MNN").locate_file("../../../bin/mnnconvert")
    made = exported.with_suffix(".mnn")
    words = ("-f", "ONNX", "--modelFile", exported, "--MNNModel", made, "--bizCode", "x")
    run(sys.executable, program, *words, cwd=made.parent)
    assert made.stat().st_size > 10_000


def test_onnxslim_keeps_the_outputs(exported, name):
    need("onnxslim")
    import onnxslim

    onnx.save(onnxslim.slim(str(exported)), exported.with_name("slim.onnx"))
    slim = outputs(exported.with_name("slim.onnx"), name)
    np.testing.assert_allclose(slim, outputs(exported, name), rtol=1e-4, atol=1e-4)


def test_emx_makes_c_code(exported):
    need("emx_onnx_cgen")
    program = distribution("emx-onnx-cgen").locate_file("../../../bin/emx-onnx-cgen")
    run(sys.executable, program, "compile", exported, "model.c", cwd=exported.parent)
    assert "void model" in (exported.parent / "model.c").read_text()


def test_the_quantizer_of_onnxruntime_quantizes_every_layer(exported):
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(exported, exported.with_name("int8.onnx"))
    kinds = [node.op_type for node in onnx.load(exported.with_name("int8.onnx")).graph.node]
    assert {"ConvInteger", "MatMulInteger"} & set(kinds) and not {"Conv", "Gemm", "MatMul"} & set(kinds)
