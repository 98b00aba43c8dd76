"""Builds kernel_test.cc, which compares the micro-kernels with plain loops, and runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from onnxprune.system.cores import usable_cores
from tests.runtime.sessions import ISAS

ROOT = Path(__file__).parents[2]
# What kernel_test says where the machine lacks the instruction set.
SKIPPED = 77


@pytest.fixture(scope="module")
def kernel_test() -> Path:
    """The executable, built anew where sources changed; the variable ONNXPRUNE_KERNEL_TEST names another one."""
    if given := os.environ.get("ONNXPRUNE_KERNEL_TEST"):
        return Path(given).absolute()
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake to build the test of the micro-kernels with")
    source, build = ROOT / "onnxprune" / "runtime", ROOT / "build" / "kernel-test"
    configured = call("cmake", "-S", source, "-B", build, "-DONNXPRUNE_TESTS=ON", "-DONNXPRUNE_LIBRARY=OFF")
    if "no C++ compiler was found" in " ".join(configured.split()):
        pytest.skip("there is no C++ compiler to build the test of the micro-kernels with")
    jobs = str(usable_cores())
    call("cmake", "--build", build, "--parallel", jobs, "--target", "kernel_test", "--config", "Release")
    return next(path for path in build.rglob("kernel_test*") if path.is_file() and os.access(path, os.X_OK))


def call(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.parametrize("isa", ISAS)
def test_micro_kernels_equal_plain_loops_and_write_nothing_else(kernel_test, isa):
    done = subprocess.run([kernel_test, isa], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == SKIPPED:
        pytest.skip(f"this CPU has no {isa}")
    assert done.returncode == 0, done.stdout[-4000:]
