import os
import subprocess
import sys

from tests.runtime.sessions import needs_kernels

pytestmark = needs_kernels

COUNT = 3000 if os.environ.get("ONNXPRUNE_LONG") else 300


def test_no_broken_file_crashes_the_process():
    command = [sys.executable, "-m", "tests.runtime.mutations", str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert COUNT / 4 < int(done.stdout) < COUNT
