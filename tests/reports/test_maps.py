"""The pictures of where weights are not zero."""

import numpy as np
import onnx_ir as ir
import pytest

import onnxprune
from onnxprune.commands.report import rebuilt
from onnxprune.model.weights import find_weights
from onnxprune.reports.maps import PART, WHOLE, densities, middle, outputs_by_inputs
from onnxprune.sparse.opening import open_model
from tests.builders import cnn, mlp


def test_densities_count_every_element_once():
    present = np.random.default_rng(0).random((211, 403)) < 0.3
    found = densities(present, WHOLE)
    rows = np.diff([*np.linspace(0, 211, 96, endpoint=False).astype(int), 211])
    columns = np.diff([*np.linspace(0, 403, 160, endpoint=False).astype(int), 403])
    assert found.shape == WHOLE
    assert (found * np.outer(rows, columns)).sum() == pytest.approx(present.sum())
    assert np.array_equal(densities(present[:5, :7], WHOLE), present[:5, :7])


def test_the_part_in_the_middle_begins_at_a_block():
    present = np.arange(100 * 203).reshape(100, 203)
    part = middle(present, PART)
    assert part.shape == PART and part[0, 0] == 32 * 203 + 68


@pytest.mark.parametrize(("pattern", "axis"), [("1x4", 1), ("4x1", 0)])
def test_the_elements_of_a_block_are_neighbors(pattern, axis, tmp_path):
    path = onnxprune.prune(cnn(), tmp_path / "out.onnx", rate=0.5, pattern=pattern, remove_dead=False).path
    weight = next(
        each for each in find_weights(open_model(path).model).prunable if each.name == "conv2.weight"
    )
    present = outputs_by_inputs(weight)
    rows, columns = present.shape
    shape = (rows, columns // 4, 4) if axis else (rows // 4, 4, columns)
    blocks = present.reshape(shape)
    assert (blocks.all(2 if axis else 1) == blocks.any(2 if axis else 1)).all() and not blocks.all()


def test_removed_outputs_are_drawn_as_empty_rows(tmp_path):
    onnxprune.prune(mlp(), tmp_path / "out.onnx", rate=0.5, pattern="channel")
    found = rebuilt(tmp_path / "out.onnx")["maps"]
    assert found and any(parts["shape"] != parts["before"] for parts in found.values())
    for parts in found.values():
        assert all(now <= before for now, before in zip(parts["shape"], parts["before"], strict=True))


def test_a_weight_of_another_axis_order_has_outputs_as_rows():
    model = ir.from_proto(mlp())
    for weight in find_weights(model).prunable:
        assert outputs_by_inputs(weight).shape[0] == weight.shape[weight.out_axis]
