"""What the machine is called, and which of the library's kernels it runs."""

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
    """The CPU's name as its maker gives it, where the system tells."""
    return _from_cpu_info("model name") or platform.processor() or platform.machine()


def instruction_set() -> str:
    """The instruction set of the kernels: what ONNXPRUNE_ISA forces, else the best that Linux says the CPU has."""
    if forced := os.environ.get("ONNXPRUNE_ISA"):
        return forced
    flags = set((_from_cpu_info("flags") or _from_cpu_info("Features")).split())
    return next((name for name, features in _FEATURES.items() if features <= flags), "portable")


def _from_cpu_info(key: str) -> str:
    if not _CPU_INFO.exists():
        return ""
    lines = (line.split(":", 1) for line in _CPU_INFO.read_text().splitlines() if ":" in line)
    return next((text.strip() for name, text in lines if name.strip() == key), "")
