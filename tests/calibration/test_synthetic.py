import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune.calibration.synthetic import SAMPLES, synthetic_data
from onnxprune.config.settings import PruneConfig
from onnxprune.data.axis_choice import declared_axes
from onnxprune.data.specs import input_specs
from onnxprune.errors import SettingError
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.samples.inputs import read_job_data
from tests.builders import cnn, floats, mlp, model_of, normal, open_conv


def synthetic(proto, size=16):
    model = ir.from_proto(proto)
    specs = input_specs(model)
    return synthetic_data(model, specs, declared_axes(specs), size, 0)


def test_synthetic_images_are_in_the_range_of_the_first_batch_normalization():
    for low, high in ((0, 1), (0, 255), (-1, 1)):
        pixels = low + (high - low) * np.random.default_rng(0).random((64, 3, 16, 16))
        weight = normal(8, 3, 1, 1)
        seen = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], pixels)
        norms = {
            "mean": seen.mean((0, 2, 3)),
            "variance": seen.var((0, 2, 3)),
            "scale": np.ones(8),
            "shift": np.zeros(8),
        }
        proto = model_of(
            [
                helper.make_node("Conv", ["x", "w"], ["c"]),
                helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["y"]),
            ],
            [floats("x", "N", 3, 16, 16)],
            [floats("y", "N", 8, 16, 16)],
            {"w": weight} | {name: array.astype(np.float32) for name, array in norms.items()},
        )  # fmt: skip
        images = synthetic(proto).read().inputs["x"]
        assert images.shape == (SAMPLES, 3, 16, 16)
        assert low - 1e-3 <= images.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < images.max() <= high + 1e-3


def test_synthetic_token_ids_fill_their_table_and_masks_are_ones():
    def ids(name):
        return helper.make_tensor_value_info(name, TensorProto.INT64, ["N", 6])

    proto = model_of(
        [
            helper.make_node("Gather", ["table", "ids"], ["g"]),
            helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["m", "last"], ["u"]),
            helper.make_node("Mul", ["g", "u"], ["y"]),
        ],
        [ids("ids"), ids("mask")],
        [floats("y", "N", 6, 4)],
        {"table": normal(50, 4), "last": np.array([-1])},
    )
    inputs = synthetic(proto).read().inputs
    assert inputs["ids"].min() == 0 and inputs["ids"].max() == 49 and (inputs["mask"] == 1).all()


def test_second_order_on_synthetic_inputs_changes_real_outputs_less_than_magnitude():
    real = {"x": np.random.default_rng(3).random((100, 1, 8, 8), dtype=np.float32)}
    settings = {"rate": 0.6, "eval_data": real}
    made = onnxprune.prune(cnn(), criterion="second-order", calibration_data="synthetic", **settings).report
    cut = onnxprune.prune(cnn(), **settings).report
    assert made.evaluation["outputs"][0]["cosine"] > cut.evaluation["outputs"][0]["cosine"]
    assert any("generated from the model" in note for note in made.notes)


def test_fine_tuning_on_synthetic_inputs_says_so():
    report = onnxprune.prune(mlp(), rate=0.5, data="synthetic", epochs=1, steps=1, batch_size=64).report
    assert report.fine_tuning and any("generated from the model" in note for note in report.notes)


def test_synthetic_inputs_have_the_shape_asked_for_or_that_of_the_test_data():
    proto = open_conv()
    settings = {"rate": 0.5, "criterion": "wanda", "calibration_data": "synthetic"}
    samples = {"x": normal(4, 3, 9, 20)}
    for shape, more in (((9, 20), {"eval_data": samples}), ((7, 30), {"input_shape": ["x:1,3,7,30"]})):
        model, session = ir.from_proto(proto), make_session(proto, "the model")
        material = read_job_data(model, session, PruneConfig(**settings, **more))
        assert material.calibration.read().inputs["x"].shape[1:] == (3, *shape)
        assert material.test.read().inputs["x"].shape[2:] == shape
        held = 0 if "eval_data" in more else len(material.test)
        assert len(material.calibration) == SAMPLES - held
    with pytest.raises(SettingError, match="does not fit"):
        read_job_data(model, session, PruneConfig(**settings, input_shape=["x:1,4,7,30"]))


def test_synthetic_inputs_keep_a_batch_size_that_the_model_fixes():
    proto = open_conv(4)
    config = PruneConfig(
        rate=0.5, criterion="wanda", calibration_data="synthetic", eval_data={"x": normal(8, 3, 9, 9)}
    )
    material = read_job_data(ir.from_proto(proto), make_session(proto, "the model"), config)
    assert material.calibration.read().inputs["x"].shape[1:] == (3, 9, 9)
