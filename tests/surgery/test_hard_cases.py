"""The hard cases of structured pruning; python -m tests.benchmarks.hard_cases prints them beside other tools."""

from __future__ import annotations

import pytest

from tests.surgery.hard_cases import CASES, HardCase, outcome


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hard_case_is_pruned_exactly_or_frozen_with_the_reason(case: HardCase) -> None:
    assert outcome(case) == ("prunes" if case.frozen is None else f"freezes: {case.frozen}")
