import math

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper

from onnxprune.training.reconstruction import PROBE, Descent, Runs, fit
from tests.builders import floats, initializer, mlp, model_of, normal


def runs(model, batches: range, held: bool = False) -> Runs:
    session = ort.InferenceSession(model.SerializeToString())
    inputs = [[normal(16, 8, seed=seed)] for seed in batches]
    return Runs(inputs, [session.run(None, {"x": run[0]}) for run in inputs], 16)


def halved() -> tuple:
    """A network, the same with half of the weights zero, and the sizes of its constants."""
    dense, pruned = mlp(), mlp()
    sizes = {}
    for tensor in pruned.graph.initializer:
        array = initializer(pruned, tensor.name).copy()
        kept = np.abs(array) > np.median(np.abs(array)) if array.ndim > 1 else np.ones(array.shape, bool)
        tensor.raw_data = (array * kept).astype(np.float32).tobytes()
        sizes[tensor.name] = kept.astype(np.float32)
    return dense, pruned, sizes


def trained(dense, pruned, sizes, steps):
    training, held = runs(dense, range(8)), runs(dense, range(8, 12))
    return fit(ir.from_proto(pruned), sizes, training, held, Descent(steps, 16, 0.05, 0))


def test_two_layers_together_come_nearer_to_the_dense_outputs_and_zeros_stay():
    dense, pruned, sizes = halved()
    fitted = trained(dense, pruned, sizes, 150)
    assert fitted.after < 0.5 * fitted.before and fitted.steps == 150
    for name, size in sizes.items():
        assert not fitted.arrays[name][size == 0].any()


def test_the_first_state_is_kept_where_none_is_better_on_validation_inputs():
    dense = mlp()
    sizes = {tensor.name: np.ones(tuple(tensor.dims), np.float32) for tensor in dense.graph.initializer}
    fitted = fit(
        ir.from_proto(dense), sizes, runs(dense, range(4)), runs(dense, range(4, 6)), Descent(20, 16, 0.5, 0)
    )
    assert not fitted.arrays and fitted.before == fitted.after < 1e-9
    assert fitted.steps == math.ceil(PROBE * 20)


def test_what_has_no_time_left_makes_one_step():
    dense, pruned, sizes = halved()
    how = Descent(100, 16, 0.05, 0, seconds=0.0)
    fitted = fit(ir.from_proto(pruned), sizes, runs(dense, range(8)), runs(dense, range(8, 12)), how)
    assert fitted.steps == 1 and trained(dense, pruned, sizes, 30).steps == 30


def test_steps_and_seconds_both_end_it():
    assert [Descent(10, 16, 0.05, 0).position(step, 1e9) for step in (1, 5, 10)] == [0.1, 0.5, 1.0]
    timed = Descent(10, 16, 0.05, 0, seconds=40.0)
    assert [timed.position(2, since) for since in (1.0, 10.0, 39.0, 60.0)] == [0.2, 0.25, 0.975, 1.0]


def test_constants_without_a_size_stay():
    dense, pruned, sizes = halved()
    del sizes["fc1.weight"]
    fitted = trained(dense, pruned, sizes, 20)
    assert fitted.after < fitted.before and "fc1.weight" not in fitted.arrays


def test_inputs_without_axes_keep_none():
    nodes = [
        helper.make_node("Unsqueeze", ["size", "axes"], ["sizes"]),
        helper.make_node("Concat", ["first", "sizes"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    constants = {"axes": np.array([0]), "first": np.array([-1]), "w": normal(8, 4)}
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [])
    model = model_of(nodes, [floats("x", "N", 8), size], [floats("y", "N", 4)], constants)
    inputs = [[normal(4, 8, seed=seed), np.array(8)] for seed in range(3)]
    part = Runs(inputs, [[2 * x @ constants["w"]] for x, _ in inputs], 4)
    fitted = fit(ir.from_proto(model), {"w": np.ones((8, 4), np.float32)}, part, part, Descent(20, 4, 0.1, 0))
    assert fitted.after < fitted.before
