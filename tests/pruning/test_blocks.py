import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import onnxprune
from onnxprune.config.settings import PruneConfig
from onnxprune.model.weights import Weight, find_weights
from onnxprune.pruning.allocation import Pool, allocate
from onnxprune.pruning.blocks import BLOCK, BLOCK_PATTERNS
from onnxprune.pruning.masks import make_masks
from tests.builders import cnn, floats, model_of, normal

OUTPUTS, INPUTS = BLOCK_PATTERNS["4x1"], BLOCK_PATTERNS["1x4"]


def product(inputs: int, outputs: int, seed: int = 0) -> Weight:
    """A MatMul's weight, (in, out)."""
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [floats("x", "N", inputs)],
        [floats("y", "N", outputs)],
        {"w": normal(inputs, outputs, seed=seed)},
    )
    return find_weights(ir.from_proto(model)).prunable[0]


def filters(outputs: int, inputs: int, group: int = 1) -> Weight:
    model = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=group)],
        [floats("x", 1, inputs, 5, 5)],
        [floats("y", 1, outputs, 3, 3)],
        {"w": normal(outputs, inputs // group, 3, 3)},
    )
    return find_weights(ir.from_proto(model)).prunable[0]


def blocks_of(matrix: np.ndarray, rows: int) -> list[np.ndarray]:
    """The blocks of an (out, in) matrix whose outputs come in groups of `rows`."""
    return [
        matrix[start : min(start + BLOCK, first + rows), column]
        for first in range(0, len(matrix), rows)
        for start in range(first, first + rows, BLOCK)
        for column in range(matrix.shape[1])
    ]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 14), st.floats(0, 0.99), st.integers(0, 99))
def test_exactly_round_r_n_blocks_are_removed_and_each_whole(inputs, outputs, rate, seed):
    weight = product(inputs, outputs, seed)
    mask = make_masks([Pool((weight,), rate, None)], blocks=OUTPUTS)["w"]
    whole = [block.all() for block in blocks_of(weight.matrix(mask), outputs)]
    assert mask.shape == weight.shape
    assert [block.any() for block in blocks_of(weight.matrix(mask), outputs)] == whole
    assert len(whole) - sum(whole) == round(rate * len(whole))
    norms = [np.sqrt(np.mean(block**2)) for block in blocks_of(weight.matrix(), outputs)]
    lost, kept = (
        [n for n, w in zip(norms, whole, strict=True) if w is side] for side in (np.False_, np.True_)
    )
    assert not lost or not kept or max(lost) <= min(kept) + 1e-6


def test_the_norm_of_a_smaller_block_is_a_mean_too():
    weight = product(1, 5)
    weight.assign(np.full((1, 5), 2.0))
    assert OUTPUTS.norms(weight, weight.numbers()).tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize(("outputs", "group", "blocks"), [(8, 1, 2), (12, 2, 4), (6, 6, 6)])
def test_blocks_of_a_grouped_convolution_stay_within_their_group(outputs, group, blocks):
    weight = filters(outputs, 6, group)
    norms = OUTPUTS.norms(weight, weight.numbers())
    assert len(norms) == blocks
    numbers = OUTPUTS.spread(weight, np.arange(norms.size).reshape(norms.shape))
    rows = weight.matrix(numbers)[:, 0]
    for first in range(0, outputs, outputs // group):
        others = np.delete(rows, range(first, first + outputs // group))
        assert not set(rows[first : first + outputs // group]) & set(others)


def test_global_allocation_layer_rates_and_std_threshold_hold_for_blocks():
    weights = find_weights(ir.from_proto(cnn())).prunable
    total = sum(OUTPUTS.norms(weight, weight.numbers()).size for weight in weights)

    def left(**chosen: object) -> dict[str, int]:
        masks = make_masks(allocate(weights, PruneConfig(pattern="4x1", **chosen)), blocks=OUTPUTS)
        kept = {weight.name: weight.matrix(masks[weight.name]) for weight in weights}
        return {name: sum(b.all() for b in blocks_of(matrix, len(matrix))) for name, matrix in kept.items()}

    sizes = {weight.name: OUTPUTS.norms(weight, weight.numbers()).size for weight in weights}
    assert sum(left(rate=0.6, allocation="global").values()) == total - round(0.6 * total)
    own = left(rate=0.6, layer_rate={"fc": 0.25})
    assert own["fc.weight"] == sizes["fc.weight"] - round(0.25 * sizes["fc.weight"])
    assert own["conv2.weight"] == sizes["conv2.weight"] - round(0.6 * sizes["conv2.weight"])
    for weight in weights:
        kept = np.count_nonzero(OUTPUTS.norms(weight, weight.numbers()) >= 0.9 * weight.array().std())
        assert left(std_threshold=0.9)[weight.name] == kept


def test_blocks_are_pruned_in_steps_and_fine_tuned():
    rows = np.random.default_rng(0).random((60, 1, 8, 8)).astype(np.float32)
    chosen = {"data": {"x": rows}, "steps": 2, "epochs": 2, "batch_size": 20, "format": "dense"}
    result = onnxprune.prune(cnn(), rate=0.7, pattern="4x1", remove_dead=False, **chosen)
    for weight in find_weights(ir.from_proto(result.model)).prunable:
        whole = [np.count_nonzero(block) for block in blocks_of(weight.matrix(), len(weight.matrix()))]
        assert set(whole) <= {0, BLOCK}
        assert whole.count(0) == round(0.7 * len(whole))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 14), st.integers(1, 9), st.sampled_from([1, 3]), st.floats(0, 0.99))
def test_blocks_of_inputs_are_removed_whole_at_every_output_and_kernel_position(
    inputs, outputs, kernel, rate
):
    model = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [floats("x", 1, inputs, 5, 5)],
        [floats("y", 1, outputs, 6 - kernel, 6 - kernel)],
        {"w": normal(outputs, inputs, kernel, kernel)},
    )
    weight = find_weights(ir.from_proto(model)).prunable[0]
    mask = make_masks([Pool((weight,), rate, None)], blocks=INPUTS)["w"]
    blocks = [mask[:, start : start + BLOCK] for start in range(0, inputs, BLOCK)]
    for block in blocks:
        assert (block.any(1) == block.all(1)).all()
    kept = sum(int(block.all(1).sum()) for block in blocks)
    count = len(blocks) * outputs * kernel**2
    assert count - kept == round(rate * count)


def test_blocks_of_inputs_of_a_product_follow_its_layout():
    weight = product(5, 3)
    weight.assign(np.concatenate([np.full((4, 3), 3.0), np.ones((1, 3))]))
    assert INPUTS.norms(weight, weight.numbers()).tolist() == [[3.0] * 3, [1.0] * 3]
    kept = make_masks([Pool((weight,), 0.5, None)], blocks=INPUTS)["w"]
    assert kept.tolist() == [[True] * 3] * 4 + [[False] * 3]


@pytest.mark.parametrize(("pattern", "sizes"), [(INPUTS, [3, 3]), (OUTPUTS, [4, 1])])
def test_blocks_of_a_grouped_transposed_convolution(pattern, sizes):
    model = model_of(
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=2)],
        [floats("x", 1, 6, 3, 3)],
        [floats("y", 1, 10, 3, 3)],
        {"w": normal(6, 5, 1, 1)},
    )
    weight = find_weights(ir.from_proto(model)).prunable[0]
    norms = pattern.norms(weight, weight.numbers())
    axis = pattern.axis(weight)
    assert norms.shape[axis] == len(sizes)
    numbered = pattern.spread(
        weight, np.broadcast_to(np.arange(2).reshape((-1, 1, 1, 1) if axis == 0 else (-1, 1, 1)), norms.shape)
    )
    assert np.unique(numbered, return_counts=True)[1].tolist() == [size * 30 // sum(sizes) for size in sizes]
