"""The figures of Han et al. 2015 on the two LeNets, ours beside the paper's, on whole MNIST.

    python -m models.reproduce                 everything, some 65 minutes of one core
    python -m models.reproduce table           per-layer densities at 12x, beside the paper's Table 3 and 4
    python -m models.reproduce records         as few weights as it goes, beside the best published since
    python -m models.reproduce unlabeled      12x with the labels withheld
    python -m models.reproduce tradeoff        what is lost at which rate, by how the weights go: tradeoff.svg

Every error is onnxruntime's on the written file, on the 10,000 test images, which are used for no choice. Each part
prints a table in Markdown, with the time of each run and the command that gives it.
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
from models.tradeoff import Curve, draw
from onnxprune import prune
from onnxprune.reports.record import Report

HERE = Path(__file__).parent
TRAINING = DEFAULT_FOLDER / "train-images-idx3-ubyte"
TEST = DEFAULT_FOLDER / "t10k-images-idx3-ubyte"
OUTPUT = Path("build/reproduce")

# Tables 3 and 4 of the paper: per cent of the weights that stay.
PAPER_DENSITIES = {
    "lenet-300-100": {"fc1.weight": 8, "fc2.weight": 9, "fc3.weight": 26},
    "lenet-5": {"conv1.weight": 66, "conv2.weight": 12, "fc1.weight": 8, "fc2.weight": 19},
}
PAPER_ERRORS = {"lenet-300-100": "1.64 -> 1.59 %", "lenet-5": "0.80 -> 0.77 %"}


@dataclass(frozen=True)
class Run:
    """A job on one of the LeNets; `beside` is what others reached at the rate."""

    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    beside: str = ""

    def command(self) -> str:
        """The command line of the same job, without --data and --eval-data."""
        flags = itertools.chain.from_iterable(_flags(name, value) for name, value in self.settings.items())
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
    """What came of a run: the report, and its wall time in seconds."""

    run: Run
    report: Report
    seconds: float

    @property
    def errors(self) -> tuple[float, float]:
        """Test error before and after, in per cent."""
        before, after = (self.report.evaluation[side]["value"] for side in ("baseline", "pruned"))
        return 100 * (1 - before), 100 * (1 - after)

    @property
    def kept(self) -> int:
        return sum(layer.kept for layer in self.report.layers)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.report.layers)


TABLE = (
    Run("lenet-300-100", {"rate": 0.917, "allocation": "global", "epochs": 40}),
    Run("lenet-5", {"rate": 0.917, "allocation": "global", "epochs": 12}),
)

# So few weights fit no mixtures of images, and learn more from the soft outputs than from the labels.
FEW_WEIGHTS = {
    "allocation": "global",
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
    # One threshold for all layers leaves conv1 with 60 weights, three for each channel.
    Run(
        "lenet-5",
        {"rate": 0.99677, **FEW_WEIGHTS, "layer_rate": (("conv1.weight", 0.7),), "epochs": 36},
        "0.75 % (Molchanov 2017, 280x)",
    ),
)

UNLABELLED = Run(
    "lenet-5", {"rate": 0.917, "allocation": "global", "epochs": 12}, "0.77 % (Han 2015, labels used)"
)

# The trade-off is drawn for the smaller network: a run is a fraction of a minute.
TRADEOFF_MODEL = "lenet-300-100"
TRADEOFF_RATES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
PENALTY_EPOCHS = 5
RETRAIN_EPOCHS = 8
PENALTIES = {"l1": 1e-5, "l2": 1e-4}


def perform(run: Run, source: Path | None = None, *, data: Any = TRAINING) -> Outcome:
    """Do a run on the model in models/, or on the file `source`; `data` None leaves it one-shot."""
    start = time.perf_counter()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    report = prune(
        source or HERE / f"{run.model}.onnx", OUTPUT / "out.onnx", data=data, eval_data=TEST, **run.settings
    ).report
    return Outcome(run, report, time.perf_counter() - start)


def table() -> None:
    """Per-layer densities at 12x."""
    for run in TABLE:
        outcome = perform(run)
        before, after = outcome.errors
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
        rows.append(("test error", "", f"{before:.2f} -> {after:.2f} %", PAPER_ERRORS[run.model]))
        _print(("layer", "weights", "kept", "kept in the paper"), rows)
        click.echo(f"{outcome.seconds:.0f} s: {run.command()}\n")


def records() -> None:
    """As few weights as it goes."""
    outcomes = [perform(run) for run in RECORDS]
    _print(
        ("network", "rate", "weights", "test error", "best published", "seconds"),
        [
            (
                outcome.run.model,
                f"{outcome.size / outcome.kept:.0f}x",
                f"{outcome.size:,} -> {outcome.kept:,}",
                "{:.2f} -> {:.2f} %".format(*outcome.errors),
                outcome.run.beside,
                f"{outcome.seconds:.0f}",
            )
            for outcome in outcomes
        ],
    )
    for outcome in outcomes:
        click.echo(outcome.run.command())


def unlabeled() -> None:
    """12x from images alone."""
    images, _ = idx.read_split(DEFAULT_FOLDER, "train")
    pixels = images[:, None].astype("float32") / 255
    outcome = perform(UNLABELLED, data={"input": pixels})
    before, after = outcome.errors
    click.echo(
        f"LeNet-5 at {outcome.size / outcome.kept:.0f}x, labels withheld: {before:.2f} -> {after:.2f} % "
        f"in {outcome.seconds:.0f} s\n"
    )


def tradeoff() -> None:
    """Loss of accuracy over the rate, as Figure 5 of the paper, and the ways that it compares in its text."""
    curves = list(_curves())
    draw(curves, HERE / "tradeoff.svg")
    _print(
        ("", *(f"{rate:.0%}" for rate in TRADEOFF_RATES)),
        [(curve.name, *(f"{error:.2f} %" for error in curve.errors)) for curve in curves],
    )


def _curves() -> Iterator[Curve]:
    """A curve for each way to prune; the dense model is first trained on with the penalty that the way uses."""
    for penalty in PENALTIES:
        dense = OUTPUT / f"dense-{penalty}.onnx"
        regular = {"regularization": penalty, "weight_decay": PENALTIES[penalty]}
        perform(Run(TRADEOFF_MODEL, {"rate": 0.0, "epochs": PENALTY_EPOCHS, **regular}))
        (OUTPUT / "out.onnx").replace(dense)
        name = penalty.upper()
        yield _curve(f"{name}, not retrained", dense, {}, data=None)
        retrain = {"epochs": RETRAIN_EPOCHS, "schedule": "one-shot", **regular}
        yield _curve(f"{name}, retrained", dense, retrain)
        if penalty == "l2":
            yield _curve("L2, retrained, by probability", dense, retrain | {"selection": "probability"})
            yield _curve("L2, pruned and retrained in turns", dense, retrain | {"schedule": "iterative"})
            yield _curve("L2, gradually", dense, retrain | {"schedule": "gradual"})


def _curve(name: str, dense: Path, settings: dict[str, Any], data: Any = TRAINING) -> Curve:
    outcomes = [
        perform(Run(TRADEOFF_MODEL, {"rate": rate, "allocation": "global", **settings}), dense, data=data)
        for rate in TRADEOFF_RATES
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
