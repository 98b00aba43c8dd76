"""Files that are broken or hostile: each is refused with a sentence that names what is wrong."""

import os
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import ModelFileError
from onnxprune.model.files.io import load
from tests.builders import mlp


def external(location, offset="0", length=None):
    def damage(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": offset, "length": length}
        for key, value in entries.items():
            if value is not None:
                tensor.external_data.add(key=key, value=value)

    return damage


def dims(*numbers):
    def damage(model):
        model.graph.initializer[0].dims[:] = numbers

    return damage


def cycle(model):
    model.graph.node[0].input[0] = "r"


def made_twice(model):
    model.graph.node[1].output[0] = "y"
    model.graph.node[2].input[0] = "h"


def read_from_nowhere(model):
    model.graph.node[0].input[0] = "z"


def read_from_nowhere_without_a_name(model):
    read_from_nowhere(model)
    model.graph.node[0].name = ""


def two_initializers_of_a_name(model):
    model.graph.initializer.append(model.graph.initializer[0])


def output_from_nowhere(model):
    model.graph.output[0].name = "z"


def a_missing_input(model):
    del model.graph.node[0].input[1:]


def a_function_that_calls_itself(model):
    node = helper.make_node("twice", ["a"], ["b"], domain="local")
    opsets = [helper.make_opsetid("local", 1)]
    model.functions.append(helper.make_function("local", "twice", ["a"], ["b"], [node], opsets))


def functions_that_double_thirty_times(model):
    opsets = [helper.make_opsetid("local", 1), helper.make_opsetid("", 17)]
    for depth in range(30):
        called, domain = (f"f{depth - 1}", "local") if depth else ("Relu", "")
        nodes = [
            helper.make_node(called, ["a"], ["c"], domain=domain),
            helper.make_node(called, ["c"], ["b"], domain=domain),
        ]
        model.functions.append(helper.make_function("local", f"f{depth}", ["a"], ["b"], nodes, opsets))


def an_absurd_dimension(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**62


def an_unknown_type(model):
    model.graph.initializer[0].data_type = 99


def bodies_forty_deep(model):
    for _ in range(40):
        body = onnx.GraphProto()
        body.CopyFrom(model.graph)
        model.graph.ClearField("node")
        node = model.graph.node.add(op_type="If")
        node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(body)


BROKEN = {
    "an absolute path": (external("/etc/passwd"), "not a path inside"),
    "a path out of the folder": (external("sub/../../w.bin"), "not a path inside"),
    "a link": (external("link.bin"), "is a link that leads to /etc/passwd"),
    "a folder that is a link": (external("folder/passwd"), "is a link that leads to /etc/passwd"),
    "a device": (external("pipe"), "missing"),
    "data beyond the file's end": (external("w.bin", offset="4000"), "cut short"),
    "a negative offset": (external("w.bin", offset="-4"), "cut short"),
    "a length that is not the tensor's": (external("w.bin", length="8"), "8 bytes in .* instead of 512"),
    "an offset in words": (external("w.bin", offset="far"), "not a number"),
    "a negative dimension": (dims(-16, -8), "negative"),
    "dims longer than the data": (dims(2**40, 2**22), "has 512 bytes of data instead of"),
    "dims shorter than the data": (dims(1), "has 512 bytes of data instead of 4"),
    "an absurd rank": (dims(*[1] * 100), "100 dimensions"),
    "an absurd dimension": (an_absurd_dimension, "dimension of 4611686018427387904"),
    "an unknown type": (an_unknown_type, "type 99"),
    "a cycle": (cycle, "a cycle"),
    "a value made twice": (made_twice, "'y' is produced twice"),
    "a value made by nothing": (read_from_nowhere, "Gemm node 'fc1' reads 'z', which no node produces"),
    "an input of a node without a name": (read_from_nowhere_without_a_name, "Gemm node 'h' reads 'z'"),
    "an output made by nothing": (output_from_nowhere, "output 'z'"),
    "two initializers of a name": (two_initializers_of_a_name, "'fc1.weight'"),
    "a missing input": (a_missing_input, "has 1 inputs"),
    "a function that calls itself": (a_function_that_calls_itself, "calls itself"),
    "functions that double": (functions_that_double_thirty_times, "more than 1,000,000 nodes"),
    "bodies forty deep": (bodies_forty_deep, "not an ONNX model"),
}


@pytest.mark.parametrize(("damage", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused(tmp_path, damage, words):
    (tmp_path / "w.bin").write_bytes(bytes(4096))
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    (tmp_path / "folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    model = mlp()
    damage(model)
    (tmp_path / "in.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError) as refusal:
        load(tmp_path / "in.onnx")
    assert re.search(words, str(refusal.value)), refusal.value


def test_nodes_in_any_order_are_put_in_one_that_runs():
    model = mlp()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert [node.name for node in load(model)[0].graph] == ["fc1", "relu", "fc2"]


@pytest.mark.parametrize("large", [False, True])
def test_data_that_lies_in_the_model_file_is_that_file_s(tmp_path, large):
    model = mlp(64, 512 if large else 16)
    onnx.save(model, tmp_path / "in.onnx")
    weight = load(tmp_path / "in.onnx")[0].graph.initializers["fc1.weight"].const_value
    expected = onnx.numpy_helper.to_array(model.graph.initializer[0])
    assert np.array_equal(weight.numpy(), expected)
    assert isinstance(weight.numpy().base, np.ndarray)
