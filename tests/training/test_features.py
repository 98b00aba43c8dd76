"""The values that --distill-features auto stands for."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper

from onnxprune.config.training import LossSettings
from onnxprune.errors import SettingError
from onnxprune.training.features import features
from onnxprune.training.module.graph import to_torch
from onnxprune.training.module.modes import Modes
from onnxprune.training.module.norms import restore_norms
from tests.builders import floats, mlp, model_of, normal
from tests.training.folded import residual
from tests.training.networks import Bert, MobileNet, VisionTransformer, exported

MODELS = Path(__file__).parents[2] / "models"
AUTO = LossSettings(distill_features=("auto",))


def chosen(proto):
    return features(ir.from_proto(proto), AUTO)


def outputs_of(model, names, x):
    """The values with these names."""
    graph = to_torch(Modes(model, "frozen", ()).prepared(names)).eval()
    with torch.no_grad():
        return graph(x)[len(model.graph.outputs) :]


def test_stages_of_a_residual_network_end_with_its_last_activation():
    assert chosen(residual()) == ["b2.relu"]
    model = ir.from_proto(residual())
    restore_norms(model)
    assert features(model, AUTO) == ["b2.relu"]


def stages(*sizes, height=32):
    """A convolution and an activation at each size, pooled in between, then the mean of each channel."""
    nodes, weights, last = [], {}, "x"
    for number, stride in enumerate(sizes):
        name = f"conv{number}"
        weights[f"{name}.weight"] = normal(3, 3, 3, 3)
        settings = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [stride, stride]}
        nodes.append(helper.make_node("Conv", [last, f"{name}.weight"], [name], f"{name}.n", **settings))
        nodes.append(helper.make_node("Relu", [name], [f"relu{number}"], f"relu{number}.n"))
        last = f"relu{number}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool"))
    nodes.append(helper.make_node("Relu", ["pooled"], ["activated"], "after"))
    nodes.append(helper.make_node("Flatten", ["activated"], ["y"], "flat"))
    return model_of(nodes, [floats("x", "N", 3, height, height)], [floats("y", "N", 3)], weights)


@pytest.mark.parametrize("height", [32, "H"])
def test_each_spatial_size_has_its_last_result_and_one_pixel_is_none(height):
    assert chosen(stages(1, 1, 2, 1, 2, height=height)) == ["relu1", "relu3", "relu4"]


def test_of_many_sizes_the_last_six_are_taken():
    assert chosen(stages(*[2] * 8, height=1024)) == [f"relu{number}" for number in range(2, 8)]


def test_lenet_has_its_two_convolutions():
    model = ir.load(MODELS / "lenet-5.onnx")
    found = outputs_of(model, features(model, AUTO), torch.zeros(2, 1, 28, 28))
    assert [tuple(value.shape) for value in found] == [(2, 20, 24, 24), (2, 50, 8, 8)]


@pytest.mark.parametrize("dynamo", [True, False])
def test_transformers_have_the_results_of_their_blocks(dynamo):
    bert = exported(Bert(), torch.zeros(2, 16, dtype=torch.int64), dynamo=dynamo)
    model = ir.from_proto(bert)
    names = features(model, AUTO)
    assert 1 < len(names) <= 6
    values = outputs_of(model, names, torch.randint(0, 100, (2, 16)))
    assert len({tuple(value.shape) for value in values}) == 1 and values[0].ndim == 3
    for value in values:
        # Each token is normalized, with scale 1 and shift 0 in a new network.
        torch.testing.assert_close(value.mean(2), torch.zeros(2, 16), atol=1e-4, rtol=0)


def test_a_vision_transformer_has_sequences_and_no_patches():
    model = ir.from_proto(exported(VisionTransformer(), torch.zeros(1, 3, 32, 32), dynamo=False))
    values = outputs_of(model, features(model, AUTO), torch.zeros(1, 3, 32, 32))
    assert 1 < len(values) <= 6 and all(value.ndim == 3 for value in values)


def test_a_mobilenet_has_one_value_for_each_size():
    model = ir.from_proto(exported(MobileNet(), torch.zeros(1, 3, 64, 64), dynamo=False))
    values = outputs_of(model, features(model, AUTO), torch.zeros(1, 3, 64, 64))
    assert [value.shape[-1] for value in values] == [32, 16, 8, 4]


def test_names_can_be_added_and_each_value_is_taken_once():
    model = ir.from_proto(residual())
    settings = LossSettings(distill_features=("b2.relu", "auto", "stem"))
    assert features(model, settings) == ["b2.relu", "stem"]


def test_a_network_without_stages_or_blocks_is_refused():
    with pytest.raises(SettingError, match="auto finds neither stages of convolutions nor blocks"):
        chosen(mlp())


def test_residual_sums_stand_for_norms_that_were_taken_apart():
    """x [N, 5, 8] -> x + relu(x w) twice -> the mean over tokens."""
    nodes = []
    for number, source in enumerate(("x", "s0", "s1")):
        nodes += [
            helper.make_node("MatMul", [source, "w"], [f"p{number}"], f"p{number}.n"),
            helper.make_node("Add", [f"p{number}", "b"], [f"a{number}"], f"a{number}.n"),
            helper.make_node("Relu", [f"a{number}"], [f"r{number}"], f"r{number}.n"),
            helper.make_node("Add", [f"r{number}", source], [f"s{number}"], f"s{number}.n"),
        ]
    nodes.append(helper.make_node("ReduceMean", ["s2"], ["y"], "mean", axes=[1], keepdims=0))
    weights = {"w": normal(8, 8), "b": np.zeros(8, np.float32)}
    proto = model_of(nodes, [floats("x", "N", 5, 8)], [floats("y", "N", 8)], weights)
    assert chosen(proto) == ["s0", "s1", "s2"]
