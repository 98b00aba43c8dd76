import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from onnxprune.calibration.sections import sections, whole
from onnxprune.calibration.segments import Segment
from onnxprune.model.weights import find_weights
from tests.builders import floats, model_of, normal


def residual(blocks: int = 3) -> onnx.ModelProto:
    """x [N, 8] -> blocks of y = x + W2 relu(W1 x + m), where m comes from an input that no weight reads -> Gemm."""
    nodes, weights = [helper.make_node("Neg", ["mask"], ["m"])], {"head": normal(8, 4)}
    for block in range(blocks):
        before = f"s{block - 1}" if block else "x"
        nodes += [
            helper.make_node("MatMul", [before, f"a{block}"], [f"h{block}"]),
            helper.make_node("Add", [f"h{block}", "m"], [f"k{block}"]),
            helper.make_node("Relu", [f"k{block}"], [f"r{block}"]),
            helper.make_node("MatMul", [f"r{block}", f"b{block}"], [f"t{block}"]),
            helper.make_node("Add", [before, f"t{block}"], [f"s{block}"]),
        ]
        weights |= {f"a{block}": normal(8, 8, seed=block), f"b{block}": normal(8, 8, seed=block + 9)}
    nodes += [
        helper.make_node("MatMul", [f"s{blocks - 1}", "head"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    return model_of(nodes, [floats("x", "N", 8), floats("mask", "N", 8)], [floats("y", "N", 4)], weights)


def pruned(model: ir.Model) -> set[ir.Value]:
    return {weight.value for weight in find_weights(model).prunable}


def outputs(chain):
    return [[value.name for value in section.outputs] for section in chain]


def test_sections_are_residual_blocks_and_end_before_the_softmax():
    model = ir.from_proto(residual())
    chain = sections(model, pruned(model), most=2)
    assert outputs(chain) == [["s0"], ["s1"], ["s2"], ["z"]]
    assert outputs(sections(model, pruned(model), most=4)) == [["s1"], ["z"]]
    assert outputs([whole(chain)]) == [["s0", "s1", "s2", "z"]]


def test_sections_one_after_the_other_are_the_model():
    model = ir.from_proto(residual())
    values = {value: normal(5, 8, seed=index) for index, value in enumerate(model.graph.inputs)}
    chain = sections(model, pruned(model), most=2)
    arrays = Segment(model, 0, chain[0].start, {node.outputs[0] for node in model.graph}).run(values) | values
    for section in chain:
        arrays |= Segment(model, section.start, section.end, section.outputs).run(arrays)
    every = Segment(model, 0, len(model.graph), chain[-1].outputs).run(values)
    np.testing.assert_allclose(arrays[chain[-1].outputs[0]], every[chain[-1].outputs[0]], rtol=1e-5)


def test_a_graph_whose_values_skip_all_layers_is_one_section():
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["k"]),
        helper.make_node("MatMul", ["k", "c"], ["l"]),
        helper.make_node("Concat", ["h", "l"], ["y"], axis=1),
    ]
    weights = {name: normal(8, 8) for name in "abc"}
    model = ir.from_proto(model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 16)], weights))
    chain = sections(model, pruned(model), most=1)
    assert outputs(chain) == [["h"], ["y"]]


def test_a_model_without_pruned_constants_has_no_section():
    assert sections(ir.from_proto(residual()), set(), most=2) == []
