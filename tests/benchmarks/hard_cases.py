"""The hard cases of structured pruning, beside onnxsim and Torch-Pruning: python -m tests.benchmarks.hard_cases"""

from __future__ import annotations

from collections.abc import Iterator

from tests.surgery.hard_cases import CASES, outcome


def table() -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| case | onnxprune | onnxsim | Torch-Pruning |"
    yield "|---|---|---|---|"
    yield from (
        f"| {case.name} | {outcome(case)} | {case.onnxsim} | {case.torch_pruning} |" for case in CASES
    )


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
