import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelFileError
from onnxprune.model.files.coo import densify, sparsify


def sparse_weight(*shape, density=0.1, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < density, rng.standard_normal(shape), 0).astype(dtype)


def matmul_model(weight, name="w"):
    """x -> MatMul (x, weight) -> y"""
    elem_type = helper.np_dtype_to_tensor_dtype(weight.dtype)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", name], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", elem_type, ["n", weight.shape[0]])],
        [helper.make_tensor_value_info("y", elem_type, ["n", weight.shape[1]])],
        [numpy_helper.from_array(weight, name)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def if_model(weight):
    """y = x @ weight or x @ -weight, both weights named w inside the bodies."""
    bodies = []
    for sign in (1, -1):
        output = helper.make_tensor_value_info(f"y{sign}", TensorProto.FLOAT, ["n", weight.shape[1]])
        node = helper.make_node("MatMul", ["x", "w"], [f"y{sign}"])
        signed = np.where(weight != 0, sign * weight, 0).astype(weight.dtype)
        tensor = numpy_helper.from_array(signed, "w")
        bodies.append(helper.make_graph([node], "body", [], [output], [tensor]))
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])],
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weight.shape[0]]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weight.shape[1]])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def run(proto, **inputs):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def copy(proto):
    duplicate = onnx.ModelProto()
    duplicate.CopyFrom(proto)
    return duplicate


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_a_sparse_model_runs_in_onnxruntime_and_comes_back_dense(dtype):
    dense = matmul_model(sparse_weight(32, 16, dtype=dtype))
    dense.graph.initializer[0].doc_string = "trained"
    proto = copy(dense)
    nonzeros = np.count_nonzero(sparse_weight(32, 16))
    assert sparsify(proto, {"w"}) == {"w": nonzeros * (np.dtype(dtype).itemsize + 8)}
    assert not proto.graph.initializer
    onnx.checker.check_model(proto)
    x = np.random.default_rng(1).standard_normal((3, 32)).astype(dtype)
    np.testing.assert_array_equal(run(proto, x=x), run(dense, x=x))
    densify(proto)
    assert proto == dense


def test_indices_are_linear_int64_and_ascending():
    weight = np.zeros((4, 8), np.float32)
    weight[1, 2], weight[3, 0] = 5, 6
    proto = matmul_model(weight)
    sparsify(proto, {"w"})
    (sparse,) = proto.graph.sparse_initializer
    indices = numpy_helper.to_array(sparse.indices)
    assert (indices.dtype, indices.tolist()) == (np.int64, [10, 24])
    assert numpy_helper.to_array(sparse.values).tolist() == [5, 6]
    assert list(sparse.dims) == [4, 8]


def test_a_weight_of_zeros_becomes_sparse_and_runs():
    proto = matmul_model(np.zeros((8, 4), np.float32))
    assert sparsify(proto, {"w"}) == {"w": 0}
    np.testing.assert_array_equal(run(proto, x=np.ones((1, 8), np.float32)), np.zeros((1, 4)))


def test_weights_in_if_bodies_become_sparse_and_dense_again():
    dense = if_model(sparse_weight(32, 16))
    proto = copy(dense)
    assert list(sparsify(proto, {"w"})) == ["w"]
    bodies = [attribute.g for attribute in proto.graph.node[0].attribute]
    assert [len(body.sparse_initializer) for body in bodies] == [1, 1]
    for condition in (True, False):
        inputs = {"x": np.ones((1, 32), np.float32), "c": np.array(condition)}
        np.testing.assert_array_equal(run(proto, **inputs), run(dense, **inputs))
    densify(proto)
    assert proto == dense


def constant_model(weight, opset=13):
    """x -> MatMul (x, Constant) -> y"""
    proto = matmul_model(weight)
    proto.opset_import[0].version = opset
    constant = helper.make_node("Constant", [], ["w"], value=proto.graph.initializer[0])
    del proto.graph.initializer[:]
    proto.graph.node.insert(0, constant)
    return proto


def test_a_constant_node_becomes_sparse_and_dense_again():
    dense = constant_model(sparse_weight(32, 16))
    proto = copy(dense)
    assert sparsify(proto, {"w"}) == {"w": np.count_nonzero(sparse_weight(32, 16)) * 12}
    assert [attribute.name for attribute in proto.graph.node[0].attribute] == ["sparse_value"]
    onnx.checker.check_model(proto)
    x = np.random.default_rng(1).standard_normal((3, 32)).astype(np.float32)
    np.testing.assert_array_equal(run(proto, x=x), run(dense, x=x))
    densify(proto)
    assert proto == dense


def test_a_constant_node_stays_dense_where_the_opset_knows_no_sparse_one():
    proto = constant_model(sparse_weight(32, 16), opset=10)
    before = copy(proto)
    assert sparsify(proto, {"w"}) == {}
    assert proto == before


def test_sparse_constants_inside_functions_become_dense():
    proto = constant_model(sparse_weight(32, 16))
    constant = proto.graph.node[0]
    function = helper.make_function(
        "local", "Weight", [], ["w"], [constant], opset_imports=[helper.make_opsetid("", 13)]
    )
    proto.functions.append(function)
    sparse = copy(proto)
    sparsify(sparse, {"w"})
    assert sparse.functions[0].node[0].attribute[0].name == "sparse_value"
    densify(sparse)
    assert sparse == proto


@pytest.mark.parametrize(
    ("weight", "names", "reason"),
    [
        (sparse_weight(32, 16), {"other"}, "is not named"),
        (sparse_weight(32, 16, density=0.5), {"w"}, "would take more bytes"),
        (np.zeros((32, 16), np.int32), {"w"}, "is not a float"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_weight_stays_dense_where_coo_cannot_hold_it(weight, names, reason):
    proto = matmul_model(weight)
    before = copy(proto)
    assert sparsify(proto, names) == {}
    assert proto == before


def test_a_weight_whose_data_lies_elsewhere_stays_dense():
    proto = matmul_model(sparse_weight(32, 16))
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], "model.data")
    proto.graph.initializer[0].ClearField("raw_data")
    assert sparsify(proto, {"w"}) == {}


def sparse_model(values, indices, dims):
    proto = matmul_model(np.zeros((2, 3), np.float32))
    del proto.graph.initializer[:]
    proto.graph.sparse_initializer.append(
        onnx.SparseTensorProto(
            values=numpy_helper.from_array(np.asarray(values), "w"),
            indices=numpy_helper.from_array(np.asarray(indices), ""),
            dims=dims,
        )
    )
    return proto


VALUES = np.array([5, 6], np.float32)


@pytest.mark.parametrize(
    "indices",
    [
        np.array([1, 5], np.int64),
        np.array([1, 5], np.int32),
        np.array([[0, 1], [1, 2]], np.int64),
        np.array([[0, 1], [1, 2]], np.int32),
    ],
    ids=["linear int64", "linear int32", "coordinates int64", "coordinates int32"],
)
def test_every_form_of_indices_is_read(indices):
    proto = sparse_model(VALUES, indices, [2, 3])
    densify(proto)
    assert numpy_helper.to_array(proto.graph.initializer[0]).tolist() == [[0, 5, 0], [0, 0, 6]]


def test_indices_in_any_order_are_read():
    proto = sparse_model(VALUES, np.array([5, 1]), [2, 3])
    densify(proto)
    assert numpy_helper.to_array(proto.graph.initializer[0]).tolist() == [[0, 6, 0], [0, 0, 5]]


@pytest.mark.parametrize(
    ("values", "indices", "dims", "message"),
    [
        (VALUES, np.array([1, 6]), [2, 3], r"outside of its shape \[2, 3\]"),
        (VALUES, np.array([-1, 5]), [2, 3], "outside of its shape"),
        (VALUES, np.array([[0, 3], [1, 0]]), [2, 3], "outside of its shape"),
        (VALUES, np.array([1]), [2, 3], r"2 values of rank 2 have indices of shape \(1,\)"),
        (VALUES, np.array([[1, 1, 1], [0, 0, 0]]), [2, 3], r"indices of shape \(2, 3\)"),
        (VALUES, np.array([1, 1]), [2, 3], "two values have the same position"),
        (VALUES, np.array([1, 2], np.float32), [2, 3], "its indices have the type float32"),
        (VALUES.reshape(1, 2), np.array([1, 2]), [2, 3], "not a list of numbers"),
        (np.array([b"a", b"b"], dtype=object), np.array([1, 2]), [2, 3], "not a list of numbers"),
        (VALUES, np.array([1, 2]), [-2, -3], "negative dimension"),
        (VALUES, np.array([1, 2]), [2**62, 3], "does not fit in memory"),
    ],
)
def test_a_broken_sparse_initializer_is_refused_in_a_sentence(values, indices, dims, message):
    proto = sparse_model(values, indices, dims)
    with pytest.raises(ModelFileError, match=message) as caught:
        densify(proto)
    assert str(caught.value).startswith("sparse tensor 'w' is broken: ")


def test_values_cut_short_are_refused():
    proto = sparse_model(VALUES, np.array([1, 2]), [2, 3])
    proto.graph.sparse_initializer[0].values.raw_data = b"\0\0\0"
    with pytest.raises(ModelFileError, match="does not fit their shape"):
        densify(proto)


def test_values_in_another_file_are_refused():
    proto = sparse_model(VALUES, np.array([1, 2]), [2, 3])
    proto.graph.sparse_initializer[0].values.data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelFileError, match="in another file"):
        densify(proto)


def test_two_initializers_of_one_name_are_refused():
    proto = sparse_model(VALUES, np.array([1, 2]), [2, 3])
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((2, 3), np.float32), "w"))
    with pytest.raises(ModelFileError, match="another initializer has its name"):
        densify(proto)


def test_a_model_without_sparse_initializers_stays_as_it_is():
    proto = matmul_model(sparse_weight(32, 16))
    before = copy(proto)
    densify(proto)
    assert proto == before
