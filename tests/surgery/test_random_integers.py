"""Random graphs as onnxruntime's quantizer writes them, without some of their channels.

20 graphs of each kind; with ONNXPRUNE_LONG=1 in the environment, 400.
"""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from onnxruntime.quantization import QuantType

from tests.quantizing import dynamic, optimized, static
from tests.surgery.oracle import prune_channels
from tests.surgery.test_random_graphs import EXAMPLES, random_graph

SEEDS = st.integers(0, 2**32)
RANDOM = settings(
    max_examples=EXAMPLES // 5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
FORMS = st.sampled_from(
    [
        {"per_channel": True},
        {"weights": QuantType.QUInt8},
        {"weights": QuantType.QInt8, "activations": QuantType.QInt8},
    ]
)


@RANDOM
@given(SEEDS, FORMS, st.sampled_from([0.2, 0.5, 0.8]))
def test_removing_channels_of_a_graph_of_integers_equals_zeroing_them(
    seed: int, form: dict, rate: float
) -> None:
    proto = random_graph(seed)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    data = np.random.default_rng(seed).standard_normal([dim.dim_value or 4 for dim in dims], np.float32)
    try:
        quantized = static(proto, {"x": data}, **form)
        onnx.checker.check_model(quantized)
    except (AttributeError, RuntimeError):
        reject()  # the quantizer's own faults, with Reshape of a weight for example
    prune_channels(quantized, rate, alone=False)


@RANDOM
@given(SEEDS, st.booleans(), st.sampled_from([QuantType.QUInt8, QuantType.QInt8]), st.booleans())
def test_removing_channels_of_what_is_quantized_as_it_runs_equals_zeroing_them(
    seed: int, per_channel: bool, weights: QuantType, fused: bool
) -> None:
    try:
        quantized = dynamic(random_graph(seed), per_channel=per_channel, weights=weights)
    except (AttributeError, RuntimeError):
        reject()
    prune_channels(optimized(quantized) if fused else quantized, 0.5, alone=False)
