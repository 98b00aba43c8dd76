import numpy as np
import onnx_ir as ir

from onnxprune.data.specs import InputSpec, input_specs
from tests.builders import mlp


def test_specs_are_the_inputs_without_a_value():
    assert input_specs(ir.from_proto(mlp())) == [InputSpec("x", np.dtype(np.float32), ("N", 8))]


def test_a_dim_of_minus_one_is_any():
    model = ir.from_proto(mlp())
    model.graph.inputs[0].shape = ir.Shape([-1, 8])
    assert input_specs(model)[0].shape == (None, 8)
