import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import onnxprune
from onnxprune import runtime
from onnxprune.sparse.choose import density, weight_shape
from onnxprune.sparse.functions import DENSE_DOMAIN, DOMAIN
from onnxprune.sparse.measure import time_node
from onnxprune.sparse.placement import place, sparse_nodes
from onnxprune.sparse.restore import from_ops
from tests.builders import cnn, initializer
from tests.sparse.graphs import run


def pruned() -> onnx.ModelProto:
    return onnxprune.prune(cnn(), rate=0.9, kernels="all").model


def placed(model: onnx.ModelProto, *by_kernel: int) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    nodes = sparse_nodes(graph)
    place(graph, [nodes[index] for index in by_kernel])
    return ir.to_proto(graph)


def test_a_node_placed_dense_is_still_stored_sparse_and_gives_the_same_bits():
    x = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
    expected = run(pruned(), x=x)
    for by_kernel in ((), (0,), (1,), (0, 1)):
        model = placed(pruned(), *by_kernel)
        onnx.checker.check_model(model, full_check=True)
        assert {tensor.name for tensor in model.graph.initializer} == {
            tensor.name for tensor in pruned().graph.initializer
        }
        for got, wanted in zip(run(model, x=x), expected, strict=True):
            assert (got == wanted).all()


def test_placing_nodes_dense_and_back_restores_the_model():
    there = placed(pruned())
    assert {node.domain for node in there.graph.node if node.op_type.startswith("Sparse")} == {DENSE_DOMAIN}
    back = placed(there, *range(2))
    assert {opset.domain for opset in back.opset_import} == {"", DOMAIN}
    assert back.graph.node == pruned().graph.node
    assert back.graph.initializer == pruned().graph.initializer
    assert sorted(body.name for body in back.functions) == sorted(body.name for body in pruned().functions)


def test_weights_decode_the_same_wherever_their_nodes_are_placed():
    dense = []
    for model in (pruned(), placed(pruned()), placed(pruned(), 1)):
        graph = ir.from_proto(model)
        from_ops(graph)
        proto = ir.to_proto(graph)
        assert not proto.functions and {opset.domain for opset in proto.opset_import} == {""}
        dense.append([initializer(proto, name) for name in ("conv2.weight", "fc.weight")])
    for others in dense[1:]:
        for array, first in zip(others, dense[0], strict=True):
            assert (array == first).all()


def decoded() -> onnx.ModelProto:
    """The model with values in int8, which functions in front decode."""
    return onnxprune.prune(cnn(), rate=0.9, kernels="all", values="int8").model


def test_functions_that_decode_for_a_sparse_node_stay_with_it():
    x = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
    expected = run(decoded(), x=x)[0]
    for by_kernel in ((), (1,)):
        model = placed(decoded(), *by_kernel)
        onnx.checker.check_model(model, full_check=True)
        assert np.array_equal(run(model, x=x)[0], expected)
    graph, plain = ir.from_proto(decoded()), ir.from_proto(pruned())
    for own, others in zip(sparse_nodes(graph), sparse_nodes(plain), strict=True):
        assert density(graph, own) == density(plain, others)
        assert weight_shape(graph, own) == weight_shape(plain, others)


@pytest.mark.skipif(not runtime.available(), reason=runtime.available().reason or "-")
def test_a_node_is_timed_alone_with_the_functions_that_decode_for_it():
    graph = ir.from_proto(decoded())
    node = sparse_nodes(graph)[1]
    assert time_node(graph, node, {}, 1) is None
    timing = time_node(graph, node, {node.inputs[0]: (2, 144)}, 1)
    assert timing is not None and timing.ratio == timing.dense / timing.other > 0
