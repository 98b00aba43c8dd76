"""The name of the CPU, and the instruction set of the kernels on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
# As in csrc/cpu.cc: the first whose features the CPU has all of.
_FEATURES = {
    "avx512": {"avx512f", "avx2", "fma"},
    "avx2": {"avx2", "fma"},
    "neon": {"asimd"},
}


def cpu_name() -> str:
    """The model name of the CPU, as far as the system knows it."""
    return _from_cpu_info("model name") or platform.processor() or platform.machine()


def instruction_set() -> str:
    """The instruction set of the kernels: that of ONNXPRUNE_ISA, else the best one of the CPU according to Linux."""
    if forced := os.environ.get("ONNXPRUNE_ISA"):
        return forced
    flags = set((_from_cpu_info("flags") or _from_cpu_info("Features")).split())
    return next((name for name, features in _FEATURES.items() if features <= flags), "portable")


def _from_cpu_info(key: str) -> str:
    if not _CPU_INFO.exists():
        return ""
    lines = (line.split(":", 1) for line in _CPU_INFO.read_text().splitlines() if ":" in line)
    return next((text.strip() for name, text in lines if name.strip() == key), "")
