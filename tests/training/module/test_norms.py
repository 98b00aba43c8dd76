"""Norms that an export folded away, put back into the graph, and folded again."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import helper

from onnxprune.config.settings import PruneConfig
from onnxprune.job.pruners.pruner import make_pruner
from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.model.weights import find_weights
from onnxprune.pruning.schedule import ONE_SHOT, make_schedule
from onnxprune.surgery import remove_dead_units
from onnxprune.training.module.batch_norm import standardize
from onnxprune.training.module.norms import (
    fold_norms,
    is_restored,
    lacks_norms,
    layers_without_norm,
    restore_norms,
    restored_norms,
)
from onnxprune.training.session import PruningSession
from tests.builders import cnn, floats, initializer, mlp, model_of, normal
from tests.training.folded import array, images, outputs, residual, restored, without_numbers
from tests.training.networks import Bert, MobileNet, VisionTransformer, exported


def names_of(model):
    return [layer.weight.name for layer in layers_without_norm(ir.from_proto(model))]


def test_norms_stand_behind_every_hidden_layer():
    assert names_of(residual(depth=1)) == ["stem.weight", "b0.conv1.weight", "b0.conv2.weight"]
    assert names_of(mlp()) == ["fc1.weight"]


def test_no_norm_stands_where_none_could_be_folded():
    # conv2 has no bias, and a Flatten behind it.
    assert names_of(cnn()) == ["conv1.weight"]
    before_a_norm = model_of(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", kernel_shape=[1, 1]),
            helper.make_node("BatchNormalization", ["c", "s", "b2", "m", "v"], ["n"], "norm"),
            helper.make_node("Relu", ["n"], ["r"], "relu"),
            helper.make_node("Conv", ["r", "w", "b"], ["y"], "again", kernel_shape=[1, 1]),
        ],
        [floats("x", "N", 2, 4, 4)],
        [floats("y", "N", 2, 4, 4)],
        {"w": normal(2, 2, 1, 1), "b": normal(2)}
        | {name: np.ones(2, np.float32) for name in ("s", "b2", "m", "v")},
    )
    assert names_of(before_a_norm) == []


def test_a_shared_weight_and_one_whose_layer_is_an_output_get_no_norm():
    proto = residual(depth=1)
    nodes = {node.name: node for node in proto.graph.node}
    nodes["b0.conv2.node"].input[1] = "b0.conv1.weight"
    proto.graph.output.append(floats("stem", "N", 8, 8, 8))
    assert names_of(proto) == []


@pytest.mark.parametrize(
    ("network", "example"),
    [(Bert, torch.zeros(1, 16, dtype=torch.int64)), (VisionTransformer, torch.zeros(1, 3, 32, 32))],
)
def test_transformers_get_none(network, example):
    assert names_of(exported(network(), example, dynamo=False)) == []


def test_every_convolution_of_an_exported_mobile_net_gets_its_norm_back():
    torch.manual_seed(0)
    network = MobileNet()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Equal biases would be one initializer.
            torch.nn.init.normal_(module.bias)
    proto = exported(network, torch.zeros(1, 3, 64, 64), dynamo=False)
    convolutions = [node.input[1] for node in proto.graph.node if node.op_type == "Conv"]
    assert names_of(proto) == convolutions
    x = normal(2, 3, 64, 64)
    model = restored(proto)
    np.testing.assert_allclose(outputs(model, x), outputs(proto, x), atol=1e-4)


@pytest.mark.parametrize("by_filter", [True, False])
@pytest.mark.parametrize("make", [residual, mlp, cnn])
def test_the_function_does_not_change_and_folding_gives_the_very_structure(make, by_filter):
    proto = make()
    dims = [dim.dim_value or 5 for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    x, model = normal(*dims), restored(proto, by_filter=by_filter)
    assert any(is_restored(node) for node in model.graph)
    np.testing.assert_allclose(outputs(model, x), outputs(proto, x), rtol=1e-4, atol=1e-4)
    fold_norms(model)
    folded = ir.to_proto(model)
    np.testing.assert_allclose(outputs(folded, x), outputs(proto, x), rtol=1e-4, atol=1e-4)
    assert without_numbers(folded) == without_numbers(ir.to_proto(ir.from_proto(proto)))


def test_a_product_with_an_addition_behind_it_is_a_layer():
    proto = model_of(
        [
            helper.make_node("MatMul", ["x", "w1"], ["p"], "product"),
            helper.make_node("Add", ["b1", "p"], ["h"], "add"),
            helper.make_node("Relu", ["h"], ["r"], "relu"),
            helper.make_node("MatMul", ["r", "w2"], ["y"], "last"),
        ],
        [floats("x", "N", 6)],
        [floats("y", "N", 3)],
        {"w1": normal(6, 5), "b1": normal(5), "w2": normal(5, 3)},
    )
    proto = onnx.shape_inference.infer_shapes(proto)
    model, x = restored(proto), normal(7, 6)
    np.testing.assert_allclose(np.linalg.norm(array(model, "w1"), axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(outputs(model, x), outputs(proto, x), atol=1e-4)
    fold_norms(model)
    np.testing.assert_allclose(outputs(model, x), outputs(proto, x), atol=1e-4)


def test_a_transposed_convolution_has_its_filters_on_the_second_axis():
    proto = model_of(
        [
            helper.make_node(
                "ConvTranspose", ["x", "w1", "b1"], ["h"], "up", kernel_shape=[2, 2], strides=[2, 2]
            ),
            helper.make_node("Relu", ["h"], ["r"], "relu"),
            helper.make_node("Conv", ["r", "w2"], ["y"], "last", kernel_shape=[1, 1]),
        ],
        [floats("x", "N", 3, 4, 4)],
        [floats("y", "N", 2, 8, 8)],
        {"w1": normal(3, 5, 2, 2), "b1": normal(5), "w2": normal(2, 5, 1, 1)},
    )
    model, x = restored(proto), normal(2, 3, 4, 4)
    np.testing.assert_allclose(np.square(array(model, "w1")).sum((0, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(outputs(model, x), outputs(proto, x), atol=1e-4)


def test_filters_are_compared_without_the_scales_of_folding():
    """A filter that folding made a thousand times smaller loses no more weights than the others."""
    proto = residual()
    tensor = next(each for each in proto.graph.initializer if each.name == "b0.conv1.weight")
    weights = initializer(proto, "b0.conv1.weight").copy()
    weights[0] /= 1000
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    config = PruneConfig(rate=0.5, data="x", allocation="global", schedule="iterative")
    left = []
    for model in (ir.from_proto(proto), restored(proto)):
        make_pruner(model, find_weights(model).prunable, config).prune(ONE_SHOT, {})
        left.append(np.count_nonzero(array(model, "b0.conv1.weight")[0]))
    assert left[0] == 0
    assert left[1] > 20


def test_channels_keep_their_proportions():
    model = restored(residual(scales=4), by_filter=False)
    before, after = initializer(residual(scales=4), "stem.weight"), array(model, "stem.weight")
    ratio = before / after
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-5)
    assert np.square(after).sum() == pytest.approx(8, rel=1e-5)


def session_of(model, **settings):
    config = PruneConfig(**{"rate": 0.5, "data": "x", "schedule": "iterative"} | settings)
    pruner = make_pruner(model, find_weights(model).prunable, config)
    return PruningSession(model, pruner, make_schedule(config, 10, pruner.families), config)


def test_statistics_are_measured_without_changing_the_function():
    proto = residual()
    session, x = session_of(restored(proto)), torch.from_numpy(images()["x"])
    standardize(
        session.module, session.modes.restored, [(part,) for part in x.split(100)], lambda tensor: tensor
    )
    with torch.no_grad():
        given = session.module(x)[0].numpy()
        np.testing.assert_allclose(given, outputs(proto, x.numpy()), rtol=1e-4, atol=1e-4)
        # All of it as one batch has the statistics that were measured.
        session.module.train()
        np.testing.assert_allclose(session.module(x)[0].numpy(), given, rtol=1e-2, atol=1e-3)
    norm = restored_norms(session.model)[0]
    session.give_back()
    mean, variance = (constant_tensor(value).numpy() for value in norm.node.inputs[3:5])
    stem = torch.nn.functional.conv2d(x, torch.from_numpy(array(session.model, "stem.weight")), padding=1)
    stem += torch.from_numpy(array(session.model, "stem.bias"))[:, None, None]
    # The running statistics have moved by a tenth, towards the same numbers.
    np.testing.assert_allclose(mean, stem.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(variance, stem.var((0, 2, 3)), rtol=1e-3)


def test_a_scale_of_zero_leaves_a_dead_filter_that_surgery_removes():
    model = restored(residual(depth=1))
    norm = next(norm for norm in restored_norms(model) if norm.layer.weight.name == "b0.conv1.weight")
    scale = norm.node.inputs[1]
    numbers = constant_tensor(scale).numpy().copy()
    numbers[2] = 0
    set_constant(scale, numbers, ir.DataType.FLOAT)
    x = normal(3, 3, 8, 8)
    fold_norms(model)
    assert (array(model, "b0.conv1.weight")[2] == 0).all()
    set_constant(norm.layer.bias, np.minimum(array(model, "b0.conv1.bias"), 0), ir.DataType.FLOAT)
    expected = outputs(model, x)
    remove_dead_units(model)
    assert len(array(model, "b0.conv1.weight")) == 7
    np.testing.assert_allclose(outputs(model, x), expected, atol=1e-4)


def test_norms_are_put_back_by_themselves_in_deep_convolutional_networks_without_any():
    model = ir.from_proto(residual())
    assert lacks_norms(model, samples=1000, batch=32)
    assert not lacks_norms(model, samples=999, batch=32)
    assert not lacks_norms(model, samples=1000, batch=8)
    assert not lacks_norms(ir.from_proto(mlp()), samples=10_000, batch=32)
    assert not lacks_norms(ir.from_proto(cnn()), samples=10_000, batch=32)
    restore_norms(model)
    assert not lacks_norms(model, samples=1000, batch=32)


def test_features_of_a_layer_are_what_its_norm_gives():
    session = session_of(restored(residual()), distill_features="stem")
    x = images(8)["x"]
    with torch.no_grad():
        _, feature = session.module.eval()(torch.from_numpy(x))
    probe = residual()
    probe.graph.output.append(helper.make_tensor_value_info("stem", onnx.TensorProto.FLOAT, None))
    expected = ort.InferenceSession(probe.SerializeToString()).run(["stem"], {"x": x})[0]
    np.testing.assert_allclose(feature.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_dropout_of_a_layer_is_behind_its_norm_and_activation():
    code = session_of(restored(residual()), dropout="stem.weight=0.5").module.code
    assert code.index("batch_norm_0") < code.index("relu") < code.index("dropout_0")
