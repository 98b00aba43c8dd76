"""The models of onnx.backend.test through the whole job; all of them with ONNXPRUNE_LONG=1."""

import os

import pytest

from tests.backend import KINDS, NOTHING, PRUNED, counts, outcomes

LONG = bool(os.environ.get("ONNXPRUNE_LONG"))
# make test takes every so many of them.
STRIDE = 1 if LONG else 40
# Of all: at least so many give equal outputs at rate 0, and so many of these are pruned at rate 0.5.
LEAST = {
    "node": (2_100, 60),
    "simple": (17, 0),
    "light": (9, 0),
    "pytorch-converted": (59, 29),
    "pytorch-operator": (24, 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_at_rate_0_outputs_are_equal_and_at_half_the_file_is_valid_or_refused(kind):
    found = dict(outcomes(kind, STRIDE))
    wrong = [f"{name}: {result}" for name, result in found.items() if result.startswith("wrong")]
    assert not wrong, "\n".join(wrong)
    equal, pruned = LEAST[kind] if LONG else (len(found) // 2, 0)
    counted = counts(found)
    assert counted[PRUNED] + counted[NOTHING] >= equal
    assert counted[PRUNED] >= pruned
