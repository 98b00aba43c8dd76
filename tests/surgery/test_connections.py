import numpy as np
import pytest

from onnxprune.surgery.connections import CHUNK, Connections


def sparse(outputs, inputs, positions):
    random = np.random.default_rng(outputs + inputs)
    return random.standard_normal((outputs, inputs, positions)) * (
        random.random((outputs, inputs, positions)) < 0.1
    )


# The last is looked at in more than one go.
SHAPES = [(6, 5, 1), (6, 16, 9), (1, 1, 1), (4, 0, 1), (9, CHUNK // 4, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_what_some_outputs_read_is_what_any_of_them_holds_a_weight_for(shape):
    matrix = sparse(*shape)
    read = (matrix != 0).any(axis=2)
    connections = Connections.of(matrix)
    for outputs in (np.ones(len(matrix), bool), np.arange(len(matrix)) % 2 == 0, np.zeros(len(matrix), bool)):
        assert np.array_equal(connections.read_by(outputs), read[outputs].any(axis=0))


@pytest.mark.parametrize("groups", [1, 3])
def test_the_readers_of_some_inputs_hold_a_weight_for_any_that_their_group_has(groups):
    matrix = sparse(6, 20, 2)
    read = (matrix != 0).any(axis=2).reshape(groups, -1, 20)
    inputs = np.random.default_rng(0).random((groups, 20)) < 0.2
    assert np.array_equal(
        Connections.of(matrix).readers(inputs), (read & inputs[:, None]).any(axis=2).reshape(-1)
    )
