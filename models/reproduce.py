"""The results of Han et al. 2015 on the two LeNets, reproduced on the whole of MNIST.

    python -m models.reproduce                 everything, some 65 minutes of one core
    python -m models.reproduce table           per-layer densities at 12x, beside the paper's Table 3 and 4
    python -m models.reproduce records         the highest compression, beside the best published results
    python -m models.reproduce unlabeled       12x without labels
    python -m models.reproduce tradeoff        error over the rate, for several pruning methods: tradeoff.svg

Every error is measured in onnxruntime on the written file, on the 10,000 test images, which are not used for any
choice. Each part prints a table in Markdown, with the time and the command of each run.
"""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from models import idx
from models.mnist import DEFAULT_FOLDER
from models.tradeoff import ONE_SHOT, Curve, draw
from onnxprune import prune
from onnxprune.reports.record import Report

HERE = Path(__file__).parent
TRAINING = DEFAULT_FOLDER / "train-images-idx3-ubyte"
TEST = DEFAULT_FOLDER / "t10k-images-idx3-ubyte"
OUTPUT = Path("build/reproduce")

# Tables 3 and 4 of the paper: density of each weight, in per cent.
PAPER_DENSITIES = {
    "lenet-300-100": {"fc1.weight": 8, "fc2.weight": 9, "fc3.weight": 26},
    "lenet-5": {"conv1.weight": 66, "conv2.weight": 12, "fc1.weight": 8, "fc2.weight": 19},
}
PAPER_ERRORS = {"lenet-300-100": "1.64 -> 1.59 %", "lenet-5": "0.80 -> 0.77 %"}


# As Han et al. 2015 prune, and what fine-tuned best with it; nothing is left for the job to choose.
STEPWISE: dict[str, Any] = {
    "allocation": "global",
    "schedule": "iterative",
    "learning_rate": 1e-3,
    "mixup": True,
    "augment": "none",
}


@dataclass(frozen=True)
class Run:
    """A job on one of the LeNets; `published` is the best published error at its rate."""

    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    published: str = ""

    def command(self) -> str:
        """The command line of the same job, without --data and --eval-data."""
        settings = STEPWISE | self.settings
        flags = itertools.chain.from_iterable(_flags(name, value) for name, value in settings.items())
        return shlex.join(["onnxprune", f"models/{self.model}.onnx", "out.onnx", *flags])


def _flags(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, tuple):
        return [f"--{flag}={selector}={rate:g}" for selector, rate in value]
    return [f"--{flag}", f"{value:g}" if isinstance(value, float) else str(value)]


@dataclass(frozen=True)
class Outcome:
    """The result of a run: the report, and its wall time in seconds."""

    run: Run
    report: Report
    seconds: float

    @property
    def errors(self) -> tuple[float, float]:
        """Test error of the baseline and of the pruned model, in per cent."""
        assert self.report.evaluation is not None
        baseline, pruned = (self.report.evaluation[model]["value"] for model in ("baseline", "pruned"))
        return 100 * (1 - baseline), 100 * (1 - pruned)

    @property
    def kept(self) -> int:
        return sum(layer.kept for layer in self.report.layers)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.report.layers)


TABLE = (
    Run("lenet-300-100", {"rate": 0.917, "epochs": 40}),
    Run("lenet-5", {"rate": 0.917, "epochs": 12}),
)

# With so few weights, mixup does not help, and distillation helps more than the labels.
FEW_WEIGHTS = {
    "schedule": "gradual",
    "mixup": False,
    "distill": 0.7,
    "temperature": 4.0,
    "learning_rate": 3e-3,
    "weight_decay": 4e-4,
    "validation_split": 0.02,
}
RECORDS = (
    Run("lenet-300-100", {"rate": 0.98214, **FEW_WEIGHTS, "epochs": 60}, "1.99 % (Guo 2016, 56x)"),
    Run(
        "lenet-300-100",
        {"rate": 0.99, **FEW_WEIGHTS, "distill": 0.5, "temperature": 2.0, "epochs": 80},
        "1.92 % (Molchanov 2017, 68x)",
    ),
    Run("lenet-5", {"rate": 0.99074, **FEW_WEIGHTS, "epochs": 20}, "0.91 % (Guo 2016, 108x)"),
    # With one threshold for all layers, conv1 would keep 60 weights, three for each channel.
    Run(
        "lenet-5",
        {"rate": 0.99677, **FEW_WEIGHTS, "layer_rate": (("conv1.weight", 0.7),), "epochs": 36},
        "0.75 % (Molchanov 2017, 280x)",
    ),
)

UNLABELED = Run("lenet-5", {"rate": 0.917, "epochs": 12}, "0.77 % (Han 2015, labels used)")

# The trade-off is drawn for the smaller network, on which a run takes less than a minute.
TRADEOFF_MODEL = "lenet-300-100"
TRADEOFF_RATES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
PENALTY_EPOCHS = 5
FINE_TUNE_EPOCHS = 8
PENALTIES = {"l1": 1e-5, "l2": 1e-4}


def perform(run: Run, source: Path | None = None, *, data: Any = TRAINING) -> Outcome:
    """Perform a run on the model in models/, or on the file `source`; with `data` None it is one-shot."""
    start = time.perf_counter()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    report = prune(
        source or HERE / f"{run.model}.onnx",
        OUTPUT / "out.onnx",
        data=data,
        eval_data=TEST,
        **STEPWISE | run.settings,
    ).report
    return Outcome(run, report, time.perf_counter() - start)


def table() -> None:
    """Per-layer densities at 12x."""
    for run in TABLE:
        outcome = perform(run)
        baseline, pruned = outcome.errors
        paper = PAPER_DENSITIES[run.model]
        rows: list[tuple[object, ...]] = [
            (
                layer.name,
                f"{layer.size:,}",
                f"{100 * layer.kept / layer.size:.1f} %",
                f"{paper[layer.name]} %",
            )
            for layer in outcome.report.layers
        ]
        rows.append(("all", f"{outcome.size:,}", f"{100 * outcome.kept / outcome.size:.1f} %", "8 %"))
        rows.append(("test error", "", f"{baseline:.2f} -> {pruned:.2f} %", PAPER_ERRORS[run.model]))
        _print(("layer", "weights", "density", "density in the paper"), rows)
        click.echo(f"{outcome.seconds:.0f} s: {run.command()}\n")


def records() -> None:
    """The highest compression."""
    outcomes = [perform(run) for run in RECORDS]
    _print(
        ("network", "compression", "weights", "test error", "best published", "seconds"),
        [
            (
                outcome.run.model,
                f"{outcome.size / outcome.kept:.0f}x",
                f"{outcome.size:,} -> {outcome.kept:,}",
                "{:.2f} -> {:.2f} %".format(*outcome.errors),
                outcome.run.published,
                f"{outcome.seconds:.0f}",
            )
            for outcome in outcomes
        ],
    )
    for outcome in outcomes:
        click.echo(outcome.run.command())


def unlabeled() -> None:
    """12x without labels."""
    images, _ = idx.read_split(DEFAULT_FOLDER, "train")
    pixels = images[:, None].astype("float32") / 255
    outcome = perform(UNLABELED, data={"input": pixels})
    baseline, pruned = outcome.errors
    click.echo(
        f"LeNet-5 at {outcome.size / outcome.kept:.0f}x without labels: {baseline:.2f} -> {pruned:.2f} % "
        f"in {outcome.seconds:.0f} s\n"
    )


def tradeoff() -> None:
    """Error over the rate, as in Figure 5 of the paper, for the methods that the paper compares."""
    curves = list(_curves())
    draw(curves, HERE / "tradeoff.svg")
    _print(
        ("", *(f"{rate:.0%}" for rate in TRADEOFF_RATES)),
        [(curve.name, *(f"{error:.2f} %" for error in curve.errors)) for curve in curves],
    )


def _curves() -> Iterator[Curve]:
    """A curve for each method; the dense model is first fine-tuned with the regularization of the method."""
    for penalty in PENALTIES:
        dense = OUTPUT / f"dense-{penalty}.onnx"
        regular = {"regularization": penalty, "weight_decay": PENALTIES[penalty]}
        perform(Run(TRADEOFF_MODEL, {"rate": 0.0, "epochs": PENALTY_EPOCHS, **regular}))
        (OUTPUT / "out.onnx").replace(dense)
        name = penalty.upper()
        yield _curve(f"{name}, {ONE_SHOT}", dense, {}, data=None)
        fine_tuning = {"epochs": FINE_TUNE_EPOCHS, "schedule": "one-shot", **regular}
        yield _curve(f"{name}, with fine-tuning", dense, fine_tuning)
        if penalty == "l2":
            yield _curve(
                "L2, fine-tuning, random selection", dense, fine_tuning | {"selection": "probability"}
            )
            yield _curve("L2, iterative", dense, fine_tuning | {"schedule": "iterative"})
            yield _curve("L2, gradual", dense, fine_tuning | {"schedule": "gradual"})


def _curve(name: str, dense: Path, settings: dict[str, Any], data: Any = TRAINING) -> Curve:
    outcomes = [
        perform(Run(TRADEOFF_MODEL, {"rate": rate, **settings}), dense, data=data) for rate in TRADEOFF_RATES
    ]
    return Curve(name, TRADEOFF_RATES, tuple(outcome.errors[1] for outcome in outcomes))


def _print(headings: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    for row in (headings, ["---"] * len(headings), *rows):
        click.echo(f"| {' | '.join(map(str, row))} |")
    click.echo()


PARTS: dict[str, Callable[[], None]] = {
    "table": table,
    "records": records,
    "unlabeled": unlabeled,
    "tradeoff": tradeoff,
}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
def main(parts: tuple[str, ...]) -> None:
    """Reproduce PARTS, or everything."""
    for part in parts or PARTS:
        click.echo(f"## {part}\n")
        PARTS[part]()


if __name__ == "__main__":
    main()
