import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxprune.model.weights import find_weights
from onnxprune.sparse.choose import LEAST_SPEEDUP, choose_portable, search
from onnxprune.sparse.rewrite import to_ops
from tests.builders import floats, model_of
from tests.sparse.graphs import sparse_array

REORDER = 3.0


def chain(gains):
    """The speedup of nodes that take 10 each when dense, with a reorder wherever neighbors differ."""

    def speedup(chosen):
        cost = sum(10 - gain * (place in chosen) for place, gain in enumerate(gains))
        borders = sum((place in chosen) != (place + 1 in chosen) for place in range(-1, len(gains)))
        return 10 * len(gains) / (cost + REORDER * borders)

    return speedup


def never():
    return False


def test_nodes_that_gain_by_themselves_run_by_kernels():
    gains = [8, 8, -5, 8]
    assert search(gains, lambda chosen: 1 + sum(gains[place] for place in chosen) / 40, never) == {0, 1, 3}


def test_a_lone_node_whose_gain_is_lost_to_reorders_runs_dense():
    gains = [-9, 4, -9, 8, 8, 8]
    assert search(gains, chain(gains), never) == {3, 4, 5}


def test_a_slow_node_between_fast_ones_runs_by_its_kernel_too():
    gains = [8, 8, -2, 8, 8]
    assert search(gains, chain(gains), never) == {0, 1, 2, 3, 4}


def test_a_run_of_kernels_is_divided_where_a_part_of_it_is_better():
    good = {0, 1, 2, 3}
    gains = [8, 8, 8, 8, 1, 1, 1, 1]
    assert search(gains, lambda chosen: 1 + len(chosen & good) - len(chosen - good) / 9, never) == good


def test_a_graph_that_gains_too_little_runs_dense():
    assert search([1, 1], lambda chosen: LEAST_SPEEDUP - 0.001, never) == frozenset()
    assert search([1, 1], lambda chosen: LEAST_SPEEDUP, never) == {0, 1}


def test_the_choice_is_confirmed_by_a_new_measurement():
    heard = iter([2.0, 0.9])  # the first was luck
    assert search([1.0], lambda chosen: next(heard), never) == frozenset()


def test_when_time_runs_out_the_better_start_is_taken():
    gains = [-9, 4, -9, 8, 8, 8]
    assert search(gains, chain(gains), lambda: True) == {1, 3, 4, 5}


def test_without_nodes_there_is_nothing_to_measure():
    def speedup(chosen):
        raise AssertionError("measured")

    assert search([], speedup, never) == frozenset()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-20, 9), min_size=1, max_size=8))
def test_the_choice_is_never_slower_than_dense(gains):
    chosen = search(gains, chain(gains), never)
    assert not chosen or chain(gains)(chosen) >= LEAST_SPEEDUP


def layers(density: float, batch: int, size: int = 512):
    """Two products with weights of this density."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "v"], ["y"], "second"),
    ]
    weights = {name: sparse_array(size, size, density=density, seed=seed) for seed, name in enumerate("wv")}
    graph = ir.from_proto(model_of(nodes, [floats("x", batch, size)], [floats("y", batch, size)], weights))
    to_ops(graph, find_weights(graph).prunable)
    return graph


@pytest.mark.parametrize(("density", "batch", "by_kernel"), [(0.05, 1, 2), (0.05, 64, 2), (0.75, 64, 0)])
def test_the_estimated_choice_takes_kernels_where_few_weights_are_left(density, batch, by_kernel):
    choice = choose_portable(layers(density, batch), {"x": np.zeros((batch, 512), np.float32)})
    assert [node.name for node in choice.nodes] == ["first", "second"]
    assert sum(node.by_kernel for node in choice.nodes) == by_kernel
    assert choice.nodes[0].density == pytest.approx(density, abs=0.02)
    assert choice.nodes[0].shape == (512, 512)


def test_a_start_that_the_caller_names_is_tried():
    good = frozenset({0, 2})
    assert search([-1, -1, -1], lambda chosen: 2.0 if chosen == good else 1.0, lambda: True, [good]) == good


def test_the_last_word_has_a_measurement_of_all_that_was_tried_side_by_side():
    luck = {frozenset({0}): 3.0, frozenset({0, 1}): 1.2}
    truth = {frozenset({0}): 1.1, frozenset({0, 1}): 2.0}
    asked = []

    def confirm(finalists):
        asked.extend(finalists)
        return [truth.get(places, 1.0) for places in finalists]

    found = search([1, -1], lambda chosen: luck.get(frozenset(chosen), 1.0), never, (), confirm)
    assert found == {0, 1} and {frozenset({0}), frozenset({0, 1})} <= {*asked}
