"""Judging a model in onnxruntime: metrics on labelled data, and outputs against those of another model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.data.dataset import Dataset, InputSpec, class_axis, fixed_batch, random_data
from onnxprune.errors import DataError, ModelFileError, first_line
from onnxprune.model.protos import all_tensors
from onnxprune.model.wire import with_data_apart

BATCH_SAMPLES = 256
# Tried one after the other for the axes, but the first, whose length a model leaves open.
FREE_SIZES = (16, 64, 224, 512, 1)
# Of a run on made-up inputs that may never end.
LOOP_SECONDS = 3.0
# Models with as much data as this are judged with their weights mapped.
MAPPED_BYTES = 1 << 26
# Errors come back as exceptions; onnxruntime would log them to stderr as well.
LOG_FATAL_ONLY = 4


def make_session(model: Path | onnx.ModelProto, name: str, threads: int = 0) -> ort.InferenceSession:
    """A CPU session for a model file, whose weights stay there if they are many, or for a model in memory.

    `threads` that a run takes; 0: one for each core.

    Raises:
        ModelFileError: onnxruntime refuses the model.
    """
    if isinstance(model, Path) and (mapped := _mapped_session(model, threads)) is not None:
        return mapped
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        return ort.InferenceSession(content, _session_options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelFileError(f"onnxruntime refuses {name}: {first_line(error)}") from error


def _session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = LOG_FATAL_ONLY
    return options


def _mapped_session(file: Path, threads: int) -> ort.InferenceSession | None:
    """A session that reads its weights where they are in the file; None where they are few, or that does not work.

    onnxruntime maps external data. Weights inside of a model file it would copy, twice while it loads them.
    """
    # What fails, being broken or unknown to this onnxruntime, has another chance, and the last word, as a plain file.
    with suppress(Exception):
        proto = with_data_apart(file)
        apart = (tensor.external_data for tensor, _ in all_tensors(proto))
        sizes = (int(entry.value) for entries in apart for entry in entries if entry.key == "length")
        if sum(sizes) < MAPPED_BYTES:
            return None
        options = _session_options(threads)
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(file.parent)
        )
        # Packed for the kernels, weights would be in memory after all.
        options.add_session_config_entry("session.disable_prepacking", "1")
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return None


@dataclass(frozen=True)
class Metric:
    """What the labels ask for, of the first output. `name` is "top-1" (a fraction, higher is better) or "mse"."""

    name: str
    value: float
    samples: int

    def worse_than(self, before: Metric) -> float:
        """How much worse than `before`: accuracy points as a fraction, or the relative growth of the error."""
        if self.name == "top-1":
            return before.value - self.value
        return (self.value - before.value) / before.value if before.value else float(self.value > 0)


@dataclass(frozen=True)
class Tolerance:
    """Two elements a and b are the same where |a - b| <= absolute + relative * |a|, and NaN is the same as NaN."""

    relative: float = 0.0
    absolute: float = 0.0


@dataclass(frozen=True)
class OutputDifference:
    """One output of both models on the same inputs.

    `relative` is the largest absolute difference over the largest absolute value; `agreement` the share of samples
    with the same arg-max (None where the output has no class axis); `beyond` the number of its `elements` that are
    beyond the tolerance, all where the shapes differ.
    """

    output: str
    cosine: float
    absolute: float
    relative: float
    agreement: float | None
    elements: int
    beyond: int


@dataclass(frozen=True)
class Evaluation:
    """The input model against the output model, on the same samples."""

    data: str
    samples: int
    before: Metric | None
    after: Metric | None
    outputs: tuple[OutputDifference, ...]
    drop_error: float | None = None
    """The standard error of `drop()`, from the samples' own differences; None where it is not known."""

    def drop(self) -> float:
        """How much worse the output model is: by its metric, else 1 - agreement, else 1 - cosine."""
        if self.before is not None and self.after is not None:
            return self.after.worse_than(self.before)
        first = self.outputs[0]
        return 1 - (first.cosine if first.agreement is None else first.agreement)

    def relative(self) -> float:
        """The largest relative difference of any output."""
        return max(output.relative for output in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"drop": self.drop()}


def compare(
    before: ort.InferenceSession,
    after: ort.InferenceSession,
    data: Dataset,
    specs: list[InputSpec],
    progress: Callable[[float], None] = lambda fraction: None,
    tolerance: Tolerance = Tolerance(),
) -> Evaluation:
    """Run both models on all of `data`.

    Raises:
        DataError: a model does not run on the data, or the labels do not fit its first output.
    """
    names = [output.name for output in before.get_outputs()]
    fixed = None if data.whole else fixed_batch(specs)
    differences = [_Difference(tolerance) for _ in names]
    metrics = (_Score(), _Score())
    done = 0
    for batch in _batches(data, fixed or BATCH_SAMPLES):
        results = [_run(session, batch, fixed) for session in (before, after)]
        for difference, old, new in zip(differences, *results, strict=True):
            difference.add(old, new)
        if batch.labels is not None:
            for score, outputs in zip(metrics, results, strict=True):
                score.add(outputs[0], batch.labels, data.name)
        done += len(batch)
        progress(done / len(data))
    old_metric, new_metric = (score.result() for score in metrics)
    moved = tuple(difference.result(name) for difference, name in zip(differences, names, strict=True))
    error = differences[0].agreement_error() if old_metric is None else _paired_error(*metrics)
    return Evaluation(data.name, len(data), old_metric, new_metric, moved, error)


def random_inputs(
    session: ort.InferenceSession,
    specs: list[InputSpec],
    seed: int,
    make: Callable[[list[InputSpec], int, int], Dataset] = random_data,
    patience: float | None = None,
) -> Dataset:
    """Inputs made up, of a size that the model runs on, where it leaves sizes open; for `patience` see `Dataset`.

    Raises:
        DataError: it runs on none.
    """
    failures = []
    for size in FREE_SIZES:
        try:
            data = replace(make(specs, size, seed), patience=patience)
            check_runs(session, data, specs)
            return data
        except EndlessError:
            raise
        except DataError as error:
            failures.append(str(error))
    raise DataError(f"{failures[0]}; give inputs that fit it")


def patience(model: ir.Model) -> float | None:
    """How long a run of a model on made-up inputs may take, in seconds: they may have a Loop turn for ever."""
    functions = (function.all_nodes() for function in model.functions.values())
    nodes = chain(model.graph.all_nodes(), *functions)
    return LOOP_SECONDS if any(node.op_type == "Loop" for node in nodes) else None


def check_runs(session: ort.InferenceSession, data: Dataset, specs: list[InputSpec]) -> None:
    """Run a model on the first samples and hold the labels against its first output, before any long work.

    Raises:
        DataError: the model does not run on the data, or the labels do not fit.
    """
    fixed = None if data.whole else fixed_batch(specs)
    batch = data.take(slice(0, fixed or 2))
    outputs = _run(session, batch, fixed)
    if batch.labels is not None:
        _Score().add(outputs[0], batch.labels, data.name)
        if data.labels is not None and data.labels.dtype.kind != "f":
            axis = class_axis(outputs[0].shape, batch.labels.shape)
            assert axis is not None
            if data.labels.min() < 0 or data.labels.max() >= outputs[0].shape[axis]:
                raise DataError(_misfit(data.labels, outputs[0], data.name))


def _batches(data: Dataset, size: int) -> Iterator[Dataset]:
    for start in range(0, len(data), size):
        yield data.take(slice(start, start + size))


def _run(session: ort.InferenceSession, batch: Dataset, fixed: int | None) -> list[np.ndarray]:
    """The outputs for a batch; a model of fixed batch size gets the last one filled up, and cut again."""
    samples, inputs = len(batch), batch.inputs
    if fixed and samples < fixed:
        inputs = {
            name: np.resize(array, (fixed, *array.shape[1:])) if array.ndim else array
            for name, array in inputs.items()
        }
    try:
        with _stopped_after(batch.patience) as options:
            outputs = session.run(None, inputs, options)
    except Exception as error:
        if options is not None and options.terminate:
            raise EndlessError(
                f"a run of the model on {batch.name} had not ended after {batch.patience:g} s, and its Loop may never: "
                "give inputs that it ends on"
            ) from None
        raise DataError(f"onnxruntime cannot run the model on {batch.name}: {first_line(error)}") from error
    return [
        output[:samples]
        if fixed and isinstance(output, np.ndarray) and output.shape[:1] == (fixed,)
        else output
        for output in outputs
    ]


class EndlessError(DataError):
    """A run on made-up inputs took longer than the patience with it."""


@contextmanager
def _stopped_after(seconds: float | None) -> Iterator[ort.RunOptions | None]:
    """Options of a run that onnxruntime ends, between two nodes, after so long; None where it takes its time."""
    if seconds is None:
        yield None
        return
    options = ort.RunOptions()
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


class _Difference:
    """Running sums of one output's differences."""

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self.dot = self.norm_old = self.norm_new = self.absolute = self.largest = 0.0
        self.agreeing = self.compared = self.elements = self.beyond = 0

    def add(self, old: Any, new: Any) -> None:
        # What is not finite differs, in ways that need no warning.
        with np.errstate(all="ignore"):
            self._add(old, new)

    def _add(self, old: Any, new: Any) -> None:
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for one, other in zip(old, new, strict=True):
                self.add(one, other)
            return
        size = old.size if isinstance(old, np.ndarray) else 1
        self.elements += size
        if not isinstance(old, np.ndarray) or old.dtype.kind not in "fiub":
            self.beyond += 0 if np.array_equal(old, new) else size
            return
        if old.shape != new.shape or old.dtype != new.dtype:
            self.absolute = self.largest = np.inf
            self.beyond += size
            return
        if old.ndim >= 2 and old.shape[-1] > 1 and old.dtype.kind == "f":
            same = old.argmax(-1) == new.argmax(-1)
            self.agreeing += int(same.sum())
            self.compared += same.size
        old64, new64 = old.astype(np.float64).ravel(), new.astype(np.float64).ravel()
        self.dot += float(old64 @ new64)
        self.norm_old += float(old64 @ old64)
        self.norm_new += float(new64 @ new64)
        same = np.isclose(new64, old64, self.tolerance.relative, self.tolerance.absolute, equal_nan=True)
        self.beyond += int(np.count_nonzero(~same))
        if old64.size:
            self.absolute = max(self.absolute, float(np.abs(old64 - new64).max()))
            self.largest = max(self.largest, float(np.abs(old64).max()))

    def result(self, name: str) -> OutputDifference:
        with np.errstate(all="ignore"):
            norms = np.sqrt(self.norm_old * self.norm_new)
            cosine = self.dot / norms if norms else float(self.norm_old == self.norm_new)
            relative = self.absolute / self.largest if self.largest else float(self.absolute > 0)
        agreement = self.agreeing / self.compared if self.compared else None
        return OutputDifference(
            name, float(cosine), self.absolute, float(relative), agreement, self.elements, self.beyond
        )

    def agreement_error(self) -> float | None:
        """The standard error of the agreement."""
        if not self.compared:
            return None
        share = self.agreeing / self.compared
        return max(np.sqrt(share * (1 - share) / self.compared), 1 / self.compared)


class _Score:
    """Running sum of the metric that the labels ask for."""

    def __init__(self) -> None:
        self.name = "top-1"
        self.total = 0.0
        self.count = 0
        self.parts: list[np.ndarray] = []

    def add(self, output: np.ndarray, labels: np.ndarray, data: str) -> None:
        if labels.dtype.kind == "f":
            self.name = "mse"
            if labels.shape != output.shape and labels.size != output.size:
                raise DataError(_misfit(labels, output, data))
            error = output.astype(np.float64).reshape(labels.shape) - labels
            scores = error**2
        else:
            axis = class_axis(output.shape, labels.shape)
            if axis is None or labels.min() < 0 or labels.max() >= output.shape[axis]:
                raise DataError(_misfit(labels, output, data))
            scores = output.argmax(axis) == labels
        self.parts.append(scores.reshape(len(labels), -1).sum(1, dtype=np.float64))
        self.total += float(self.parts[-1].sum())
        self.count += labels.size

    def result(self) -> Metric | None:
        return Metric(self.name, self.total / self.count, self.count) if self.count else None


def _paired_error(before: _Score, after: _Score) -> float:
    """The standard error of the drop, from what each sample loses: what both models get wrong tells nothing.

    At least that of one sample, for where no two answers differ.
    """
    old, new = np.concatenate(before.parts), np.concatenate(after.parts)
    if before.name == "top-1":
        lost = old - new
        return max(float(np.linalg.norm(lost - lost.mean())), 1.0) / before.count
    # To first order, of the ratio of two sums.
    total = old.sum()
    return float(np.linalg.norm(new - old * (new.sum() / total)) / total) if total else 0.0


def _misfit(labels: np.ndarray, output: np.ndarray, data: str) -> str:
    found = f"{labels.dtype} {list(labels.shape)}, {labels.min()} to {labels.max()}"
    return (
        f"the labels of {data} ({found}) do not fit the first output {list(output.shape)}: "
        "give class numbers, or float targets of the output's shape"
    )
