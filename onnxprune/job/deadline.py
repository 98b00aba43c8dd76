"""When a job with --time has to have finished its training: what comes after takes time too."""

from __future__ import annotations

import time

import onnxruntime as ort

from onnxprune.evaluation.runs import BATCH_SAMPLES, run_batch
from onnxprune.job.samples.inputs import JobData

# The part of --time that writing takes, and what is left for mishaps.
WRITING = 0.02
# At most this part is kept for the evaluation: a budget too short for it is for the training.
MOST_EVALUATING = 0.5


def training_deadline(begun: float, seconds: float, session: ort.InferenceSession, data: JobData) -> float:
    """The end of the training of a job, by `time.monotonic()`; `begun`: its start, `seconds`: its time.

    The input model is run on the first test samples, which tells how long both models will take for all of them.
    """
    first = next(data.test.batches(BATCH_SAMPLES))
    run_batch(session, first)
    started = time.monotonic()
    run_batch(session, first)
    evaluation = 2 * (time.monotonic() - started) * len(data.test) / len(first)
    for_the_end = WRITING * seconds + min(evaluation, MOST_EVALUATING * seconds)
    return begun + seconds - for_the_end
