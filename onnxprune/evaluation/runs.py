"""Running a model on batches; wrong data and endless loops become errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.data.axes import BatchAxes
from onnxprune.data.batch import IGNORED, Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.ragged import joined_rows
from onnxprune.data.random import random_data
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError, OnnxPruneError, first_line
from onnxprune.evaluation.fitting import fit_labels
from onnxprune.evaluation.labels import LabelForm, label_forms, unnamed_output, with_form
from onnxprune.evaluation.scores import BY_KIND, Metrics, RunningScores

BATCH_SAMPLES = 256
# Samples that a model is tried on.
FIRST = 2
# Samples whose labels show their form, spread over the data.
LABELS_READ = 32
LABELS_CHECKED = 4096
# Kinds of labels for which outputs are compared with a threshold.
THRESHOLD_KINDS = ("binary", "multi-label")
# Kinds of labels that can be ignored.
IGNORING_KINDS = ("classes", "positions", "binary", "multi-label")
# Sizes to try for dynamic axes other than the first.
FREE_SIZES = (16, 64, 224, 512, 1)
# Time limit of a run on generated inputs, with which a Loop may never end.
LOOP_SECONDS = 3.0
CHECK = "; check the inputs, such as token ids beyond the vocabulary"


def random_inputs(
    session: ort.InferenceSession,
    specs: list[InputSpec],
    axes: BatchAxes,
    seed: int,
    make: Callable[[list[InputSpec], BatchAxes, int, int], Dataset] = random_data,
    patience: float | None = None,
) -> Dataset:
    """Generated inputs that the model runs on; sizes for dynamic axes are tried. For `patience` see `Dataset`.

    Raises:
        DataError: the model runs on none of them.
    """
    failures = []
    for size in FREE_SIZES:
        try:
            data = replace(make(specs, axes, size, seed), patience=patience)
            check_runs(session, data)
            return data
        except EndlessError:
            raise
        except DataError as error:
            failures.append(str(error))
    raise DataError(f"{failures[0].removesuffix(CHECK)}; give data that fits the model")


def patience(model: ir.Model) -> float | None:
    """The time limit of a run on generated inputs, in seconds; None for a model without a Loop."""
    functions = (function.all_nodes() for function in model.functions.values())
    nodes = chain(model.graph.all_nodes(), *functions)
    return LOOP_SECONDS if any(node.op_type == "Loop" for node in nodes) else None


def check_runs(session: ort.InferenceSession, data: Dataset, metrics: Metrics = BY_KIND) -> Dataset:
    """Run a model on the first samples before any long work; the dataset with its labels as they fit the outputs.

    `metrics`: of the job, which decide where labels can be read in several ways. All labels are checked where
    they can be read without the inputs, else those of some samples.

    Raises:
        DataError: the model does not run on the data, or the labels do not fit it or the metrics.
        SettingError: there is no such metric.
        MissingPackageError: a package that a metric needs is not installed.
    """
    size = data.axes.size or FIRST
    first = next(data.take(slice(0, size)).batches(size))
    outputs = run_batch(session, first)
    if not first.labels or label_forms(data):
        return data
    parts, numbers = _labeled_alike(data.spread(LABELS_READ))
    found = _fitted(session, data, _together(parts), outputs, len(first), metrics, np.concatenate(numbers))
    ran = first
    if any(form.kind in THRESHOLD_KINDS for form in label_forms(found).values()):
        # Probabilities and logits look alike on few samples.
        runs = [run_batch(session, part) for part in parts]
        same = [place for place, run in enumerate(runs) if _row_shapes(run) == _row_shapes(runs[0])]
        outputs = [_joined(column) for column in zip(*(runs[place] for place in same), strict=True)]
        ran = _together([parts[place] for place in same])
        known = np.concatenate([numbers[place] for place in same])
        found = _fitted(session, data, ran, outputs, len(ran), metrics, known)
    if metrics.own_loss and not metrics.names:
        found = _scorable(found, ran, dict(zip(_names(session), outputs, strict=True)), metrics)
    metrics.chosen(label_forms(found))
    found = _all_checked(data, found, metrics)
    return replace(found, group=max(form.group for form in label_forms(found).values()))


def _all_checked(data: Dataset, fitted: Dataset, metrics: Metrics) -> Dataset:
    """The fitted dataset, after a check of all labels of `data` where they can be read alone.

    Those that do not fit are left to the user's own loss, if there is one and no metric is named.
    """
    read, counted = False, dict.fromkeys(label_forms(fitted), False)
    for samples, labels in data.labels_alone(LABELS_CHECKED):
        read = True
        for key, array in labels.items():
            name = key or unnamed_output(fitted)
            form = label_forms(fitted)[name]
            try:
                found = form.normalize(array, samples)
            except DataError:
                if not metrics.own_loss or metrics.names:
                    raise
                own = LabelForm("other", data.name, offset=form.offset)
                fitted = with_form(fitted, name, own)
                found = array
            counted[name] |= form.kind not in IGNORING_KINDS or bool((found != IGNORED).any())
    if read and not metrics.own_loss and not all(counted.values()):
        raise DataError(
            f"all labels of {data.name} are ignored, as {IGNORED} is: give labels for some samples"
        )
    return fitted


def _labeled_alike(some: Dataset) -> tuple[list[Batch], list[np.ndarray]]:
    """The runs whose labels have the shapes of the first one's, and the numbers of their samples."""
    parts = list(some.batches(LABELS_READ))
    numbers = np.split(some.numbers(), np.cumsum([len(part) for part in parts])[:-1])
    shapes = [_row_shapes(part.labels.values()) for part in parts]
    chosen = [place for place, each in enumerate(shapes) if each == shapes[0]]
    return [parts[place] for place in chosen], [numbers[place] for place in chosen]


def _row_shapes(arrays: Iterable[Any]) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in arrays if isinstance(array, np.ndarray)]


def _together(parts: Sequence[Batch]) -> Batch:
    """The samples of several runs as one batch."""
    inputs, labels = (
        {key: joined_rows([getattr(part, kind)[key] for part in parts]) for key in getattr(parts[0], kind)}
        for kind in ("inputs", "labels")
    )
    return replace(parts[0], inputs=inputs, labels=labels)


def _joined(outputs: Sequence[Any]) -> Any:
    """An output of several runs, of one shape, as that of one."""
    first = outputs[0]
    return np.concatenate(outputs) if isinstance(first, np.ndarray) and first.ndim else first


def _scorable(data: Dataset, some: Batch, outputs: dict[str, Any], metrics: Metrics) -> Dataset:
    """The dataset; labels that the metric of their kind cannot be computed with are left to the user's own loss."""
    labels = {key or unnamed_output(data): array for key, array in some.labels.items()}
    for key, form in label_forms(data).items():
        try:
            scores = RunningScores(metrics, {key: form}, list(outputs))
            scores.add(outputs, replace(some, labels={key: form.normalize(labels[key])}))
            scores.results()
        except OnnxPruneError:
            data = with_form(data, key, LabelForm("other", data.name, offset=form.offset))
    return data


def _names(session: ort.InferenceSession) -> list[str]:
    return [output.name for output in session.get_outputs()]


def _fitted(
    session: ort.InferenceSession,
    data: Dataset,
    some: Batch,
    outputs: Sequence[Any],
    samples: int,
    metrics: Metrics,
    numbers: np.ndarray | None,
) -> Dataset:
    names = _names(session)
    made = metrics.processed(dict(zip(names, outputs, strict=True)), samples)
    ends = {
        name: end for name, end in metrics.ends.items() if metrics.postprocess is None or name != names[0]
    }
    # What --postprocess makes takes the place of the first output.
    asked = metrics.output or (names[0] if metrics.postprocess is not None else None)
    by_sample = {name for name, output in made.items() if data.axes.whole or _rows(output) == samples}
    return fit_labels(
        data,
        some,
        made,
        metrics.wanted(),
        numbers,
        ends,
        asked,
        by_sample or set(made),
        own_loss=metrics.own_loss,
    )


def _rows(output: Any) -> int | None:
    """The length of an array's first axis, of a list such as of a Map for each sample; None of a scalar."""
    return len(output) if isinstance(output, list) or np.ndim(output) else None


def run_batch(session: ort.InferenceSession, batch: Batch) -> list[Any]:
    """The outputs for a batch that one run is for, samples along the first axis; one that is too small is padded."""
    count, size = len(batch), batch.axes.size
    if size and count < size:
        batch = batch.take(np.resize(np.arange(count), size))
    outputs = run_feeds(session, batch.feeds(), batch.name, batch.patience)
    names = _names(session)
    found = [
        batch.axes.samples(name, output, len(batch)) for name, output in zip(names, outputs, strict=True)
    ]
    if len(batch) == count:
        return found
    return [
        output[:count] if isinstance(output, np.ndarray) and output.shape[:1] == (size,) else output
        for output in found
    ]


def run_feeds(
    session: ort.InferenceSession, feeds: Mapping[str, np.ndarray], name: str, patience: float | None = None
) -> list[Any]:
    """The outputs of a run; `name`: of the data; for `patience` see `Batch`.

    Raises:
        DataError: the model does not run on it, or not within the time limit.
    """
    try:
        with _stopped_after(patience) as options:
            return session.run(None, feeds, options)
    except Exception as error:
        if options is not None and options.terminate:
            raise EndlessError(
                f"a run of the model on {name} had not ended after {patience:g} s, perhaps because of its "
                "Loop: give data on which it ends"
            ) from None
        raise DataError(f"onnxruntime cannot run the model on {name}: {first_line(error)}{CHECK}") from error


class EndlessError(DataError):
    """A run on generated inputs exceeded its time limit."""


@contextmanager
def _stopped_after(seconds: float | None) -> Iterator[ort.RunOptions | None]:
    """Run options with which onnxruntime stops a run after some seconds, between two nodes; None without a limit."""
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
