"""The process that takes the hostile input: `python -m tests.fuzz.worker FOLDER FIRST STOP STEP`.

Case n of the fuzzer is always the same. A line says that a case begins, another how it ended, so that whoever reads
along knows which one took the process down.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from pathlib import Path

from onnxprune import cli
from tests.fuzz.models import MODELS
from tests.fuzz.mutate import mutated

MEMORY_BYTES = 1 << 30
# Of processor time: the machine may be busy with other things.
CASE_SECONDS = 5
PATTERNS = ("unstructured", "unstructured", "unstructured", "channel")


def main(folder: str, first: str, stop: str, step: str) -> None:
    """Run the cases first, first + step, ... below stop, each through the command line."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    Path("w.bin").write_bytes(bytes(4096))
    if not Path("link").is_symlink():
        Path("link").symlink_to("w.bin")
        os.mkfifo("pipe")
    for left in Path().glob(".onnxprune-*"):
        shutil.rmtree(left)
    models = [build() for build in MODELS.values()]
    # onnxruntime writes to the descriptor, past sys.stderr.
    err = os.open("stderr", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(err, sys.stderr.fileno())
    base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY_BYTES, base + MEMORY_BYTES))
    for case in range(int(first), int(stop), int(step)):
        print("begin", case, flush=True)
        # Nothing handles this signal, so it ends native code too.
        signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS)
        print("end", case, _run(case, models), flush=True)


def _run(case: int, models: list) -> str:
    """How a case went: "ok", "refused", or what is wrong with it."""
    chance = random.Random(case)
    model = models[case % len(models)]
    Path("in.onnx").write_bytes(mutated(model, chance))
    Path("out.onnx").unlink(missing_ok=True)
    form, pattern = chance.choice(("ops", "dense", "coo")), chance.choice(PATTERNS)
    arguments = ["in.onnx", "out.onnx", "--rate", "0.5", "--format", form, "--pattern", pattern]
    if chance.random() < 0.15:
        arguments = ["inspect", "in.onnx"]
    elif chance.random() < 0.2:
        # onnxruntime does not check the model then.
        arguments.append("--no-evaluate")
    os.truncate("stderr", 0)
    status: object = 0
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        return "traceback " + " | ".join(traceback.format_exc().strip().splitlines()[-7:])
    message = Path("stderr").read_text()
    if status == 0:
        written = arguments[0] == "inspect" or Path("out.onnx").is_file()
        return "ok" if written and not message else f"status 0, {message!r}"
    if status != 2 or message.count("\n") != 1 or not message.startswith("onnxprune: "):
        return f"status {status}, {message!r}"
    if Path("out.onnx").exists() or any(Path().glob(".onnxprune-*")):
        return "refused, but something was written"
    return "refused " + message.strip()


if __name__ == "__main__":
    main(*sys.argv[1:])
