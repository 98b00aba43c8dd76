"""Hostile input through the command line: no crash, no hang, no traceback, no memory, and one line that says why."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, Queue

CASES, WORKERS = (20_000, 2) if os.environ.get("ONNXPRUNE_LONG") else (500, 1)
# A case takes some 30 ms, and the worker gives it 5 s of processor time; this is for one that waits for ever.
HANG_SECONDS = 300
START_SECONDS = 120
PACKAGE_ROOT = Path(__file__).parents[2]


def outcomes(folder, first, stop, step):
    """The outcome of each case; a worker that dies or hangs is replaced, and its case says so."""
    found = {}
    case = first
    while case < stop:
        arguments = [sys.executable, "-m", "tests.fuzz.worker", str(folder), *map(str, (case, stop, step))]
        worker = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=PACKAGE_ROOT
        )
        lines: Queue[str] = Queue()
        threading.Thread(target=_read, args=(worker.stdout, lines), daemon=True).start()
        begun = None
        while True:
            try:
                line = lines.get(timeout=START_SECONDS if begun is None else HANG_SECONDS)
            except Empty:
                worker.kill()
                found[begun] = "hang"
                break
            if not line:
                if begun is not None and begun not in found:
                    died = -worker.wait()
                    found[begun] = "hang" if died == signal.SIGPROF else f"crash {died}"
                break
            word, number, *rest = line.split(maxsplit=2)
            begun = int(number)
            if word == "end":
                found[begun] = rest[0].strip()
        worker.wait()
        assert begun is not None, "the worker did not start"
        case = begun + step
    return found


def _read(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put("")


def test_a_damaged_file_is_pruned_or_refused_in_one_line(tmp_path):
    with ThreadPoolExecutor(WORKERS) as pool:
        runs = [pool.submit(outcomes, tmp_path / str(n), n, CASES, WORKERS) for n in range(WORKERS)]
        found = {case: outcome for run in runs for case, outcome in run.result().items()}
    assert sorted(found) == list(range(CASES))
    bad = {
        case: outcome
        for case, outcome in found.items()
        if not re.match(r"(ok|refused onnxprune: .*)$", outcome)
    }
    print(Counter(outcome.split()[0] for outcome in found.values()))
    assert not bad, "\n".join(f"{case}: {outcome[-700:]}" for case, outcome in bad.items())
    # Both ends are reached, or the fuzzer tries nothing.
    assert sum(outcome == "ok" for outcome in found.values()) > CASES // 50
