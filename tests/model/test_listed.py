import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune.errors import NothingToPruneError
from onnxprune.evaluation.sessions import make_session
from onnxprune.model.files.io import load
from tests.builders import cnn, initializer, normal


def listing(*names: str, ir_version: int = 8) -> onnx.ModelProto:
    """A network whose initializers are inputs too: all of them, or those named."""
    model = cnn()
    model.ir_version = ir_version
    for tensor in model.graph.initializer:
        if not names or tensor.name in names:
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return model


def inputs_of(result: onnxprune.Result) -> list[str]:
    return [value.name for value in result.model.graph.input]


@pytest.mark.parametrize("pattern", ["unstructured", "channel"])
def test_initializers_that_are_all_listed_are_constants(pattern):
    settings = {"rate": 0.4, "pattern": pattern, "format": "dense"}
    plain, listed = (onnxprune.prune(model, **settings) for model in (cnn(), listing()))
    assert inputs_of(listed) == inputs_of(plain)
    for tensor in plain.model.graph.initializer:
        assert (initializer(listed.model, tensor.name) == onnx.numpy_helper.to_array(tensor)).all()
    assert any("lists among its inputs are plain constants now" in note for note in listed.report.notes)


def test_a_flag_keeps_them_overridable_in_their_shapes():
    with pytest.raises(NothingToPruneError, match="a caller can override its values"):
        onnxprune.prune(listing(), rate=0.4, pattern="channel", overridable=True)
    result = onnxprune.prune(listing(), rate=0.4, overridable=True, format="dense")
    names = [tensor.name for tensor in cnn().graph.initializer]
    assert sorted(inputs_of(result)) == sorted([*inputs_of(onnxprune.prune(cnn(), rate=0)), *names])
    x = {"x": normal(2, *(d.dim_value for d in cnn().graph.input[0].type.tensor_type.shape.dim[1:]))}
    session = make_session(result.model, "it")
    first = names[0]
    other = {first: 2 * initializer(result.model, first)}
    assert not np.allclose(session.run(None, x)[0], session.run(None, x | other)[0])


def test_the_few_of_many_that_are_listed_are_meant():
    bias = next(tensor.name for tensor in cnn().graph.initializer if len(tensor.dims) == 1)
    model, source = load(listing(bias))
    assert not source.listed and bias in [value.name for value in model.graph.inputs]


def test_before_ir_4_all_have_to_be_listed():
    model, source = load(listing(ir_version=3))
    assert not source.listed and len(model.graph.inputs) == 1 + len(model.graph.initializers)
