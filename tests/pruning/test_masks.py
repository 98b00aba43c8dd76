import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import NothingToPruneError, SelectorError
from onnxprune.model.weights import Weight, find_weights
from onnxprune.pruning.allocation import Pool, allocate
from onnxprune.pruning.masks import apply_masks, make_masks
from tests.builders import cnn, floats, mlp, model_of, normal


def weight_of(array: np.ndarray) -> Weight:
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")],
        [floats("x", "N", array.shape[0])],
        [floats("y", "N", array.shape[1])],
        {"w": array},
    )
    return find_weights(ir.from_proto(model)).prunable[0]


def weights_of_mlp() -> tuple[Weight, ...]:
    return find_weights(ir.from_proto(mlp())).prunable


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.floats(0, 0.999),
    st.integers(0, 2**16),
    st.sampled_from([1, 3, 1000]),
)
def test_exactly_round_r_n_weights_are_removed_even_among_ties(rows, columns, rate, seed, levels):
    array = np.random.default_rng(seed).integers(1, levels + 1, (rows, columns)).astype(np.float32)
    weight = weight_of(array)
    mask = make_masks([Pool((weight,), rate, None)])["w"]
    assert np.count_nonzero(~mask) == round(rate * array.size)
    if mask.any() and not mask.all():
        assert np.abs(array[~mask]).max() <= np.abs(array[mask]).min()


def test_among_equal_weights_the_first_are_removed():
    mask = make_masks([Pool((weight_of(np.ones((2, 4), np.float32)),), 0.5, None)])["w"]
    assert mask.tolist() == [[False] * 4, [True] * 4]


def test_zeros_count_towards_the_rate_and_stay_zero_beyond_it():
    array = np.array([[0, 0, 0, 4], [5, 6, 7, 8]], np.float32)
    for rate, lost in ((0.25, 3), (0.5, 4)):
        mask = make_masks([Pool((weight_of(array),), rate, None)])["w"]
        assert np.count_nonzero(~mask) == lost
        assert not mask[array == 0].any()


def test_global_allocation_finds_one_threshold_for_all_layers():
    weights = weights_of_mlp()
    masks = make_masks(allocate(weights, PruneConfig(rate=0.6, allocation="global")))
    lost = np.concatenate([np.abs(weight.array())[~masks[weight.name]] for weight in weights])
    kept = np.concatenate([np.abs(weight.array())[masks[weight.name]] for weight in weights])
    assert lost.size == round(0.6 * (lost.size + kept.size))
    assert lost.max() <= kept.min()


def test_uniform_allocation_gives_every_layer_the_rate():
    weights = weights_of_mlp()
    masks = make_masks(allocate(weights, PruneConfig(rate=0.6)))
    for weight in weights:
        assert np.count_nonzero(~masks[weight.name]) == round(0.6 * weight.size)


def test_std_threshold_prunes_below_that_times_the_standard_deviation():
    weights = weights_of_mlp()
    masks = make_masks(allocate(weights, PruneConfig(std_threshold=0.8)))
    for weight in weights:
        array = weight.array()
        assert (masks[weight.name] == (np.abs(array) >= 0.8 * array.std())).all()


def test_a_layer_rate_does_not_count_towards_the_rate():
    weights = weights_of_mlp()
    config = PruneConfig(rate=0.5, allocation="global", layer_rate={"fc2": 0.25})
    masks = make_masks(allocate(weights, config))
    assert np.count_nonzero(~masks["fc2.weight"]) == round(0.25 * weights[1].size)
    assert np.count_nonzero(~masks["fc1.weight"]) == round(0.5 * weights[0].size)


@pytest.mark.parametrize("selector", ["fc1", "fc1.weight", "*1.weight", "re:fc1.*", "re:.*1"])
def test_a_weight_is_excluded_by_node_or_initializer_name_glob_or_expression(selector):
    masks = make_masks(allocate(weights_of_mlp(), PruneConfig(rate=0.5, exclude=(selector,))))
    assert set(masks) == {"fc2.weight"}


def names_pruned(proto, **settings):
    pools = allocate(find_weights(ir.from_proto(proto)).prunable, PruneConfig(rate=0.5, **settings))
    return {weight.name: pool.rate for pool in pools for weight in pool.weights}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"exclude": "op:Conv"}, {"fc"}),
        ({"exclude": "op:G*"}, {"conv1", "conv2"}),
        ({"exclude": ["op:Gemm", "conv1"]}, {"conv2"}),
    ],
)
def test_weights_are_chosen_by_the_type_of_their_operator(settings, names):
    assert {name.partition(".")[0] for name in names_pruned(cnn(), **settings)} == names


def test_an_operator_type_can_have_a_rate_of_its_own():
    rates = names_pruned(cnn(), layer_rate="op:Gemm=0.75")
    assert rates.pop("fc.weight") == 0.75 and set(rates.values()) == {0.5}


def test_a_weight_that_two_operators_share_is_of_both_types():
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    proto = model_of(nodes, [floats("x", "N", 4)], [floats("y", "N", 4)], {"w": normal(4, 4)})
    for selector in ("op:Gemm", "op:MatMul"):
        assert names_pruned(proto, layer_rate=f"{selector}=0.75") == {"w": 0.75}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exclude": "op:Conv"}, "selector 'op:Conv' matches no prunable weight: give one of op:Gemm"),
        ({"exclude": "op:gemm"}, "selector 'op:gemm' matches no prunable weight: give one of op:Gemm"),
        ({"exclude": "fc9"}, "selector 'fc9' matches no prunable weight"),
        ({"layer_rate": ["conv*=0.5"]}, r"selector 'conv\*' matches no prunable weight"),
        ({"exclude": "re:("}, r"selector 're:\(' is not a valid regular expression"),
    ],
)
def test_a_selector_that_matches_nothing_is_an_error_that_quotes_it(settings, message):
    with pytest.raises(SelectorError, match=message):
        allocate(weights_of_mlp(), PruneConfig(rate=0.5, **settings))


def test_excluding_every_weight_is_an_error():
    with pytest.raises(NothingToPruneError, match="every weight is excluded"):
        allocate(weights_of_mlp(), PruneConfig(rate=0.5, exclude="*"))


def test_random_selection_removes_the_exact_number_and_small_weights_more_often():
    weight = weight_of(np.linspace(0.01, 1, 2000, dtype=np.float32).reshape(40, 50))
    mask = make_masks([Pool((weight,), 0.5, None)], np.random.default_rng(0))["w"]
    assert np.count_nonzero(mask) == 1000
    small, large = mask.ravel()[:500].mean(), mask.ravel()[-500:].mean()
    assert 0 < small < 0.5 < large < 1


def test_applied_masks_leave_exactly_the_kept_values():
    weights = weights_of_mlp()
    before = {weight.name: weight.array().copy() for weight in weights}
    masks = make_masks(allocate(weights, PruneConfig(rate=0.7)))
    apply_masks(weights, masks)
    for weight in weights:
        assert (weight.array() == before[weight.name] * masks[weight.name]).all()


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.8])
def test_per_output_allocation_removes_the_smallest_of_every_output(rate):
    array = normal(6, 20) * np.logspace(0, 3, 6)[:, None].astype(np.float32)
    weight = weight_of(array.T.copy())
    mask = make_masks(allocate((weight,), PruneConfig(rate=rate, allocation="per-output")))["w"]
    for row, kept in zip(array, mask.T, strict=True):
        assert np.count_nonzero(~kept) == round(rate * 20)
        assert np.abs(row[~kept]).max() < np.abs(row[kept]).min()
