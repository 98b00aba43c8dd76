"""Running a training graph on samples; what only the numbers show to be wrong becomes an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from onnxprune.errors import DataError, OnnxPruneError, first_line


def run(module: nn.Module, inputs: Sequence[Any]) -> Any:
    """The outputs of a module.

    Raises:
        DataError: it does not run on these inputs, for example as an index is out of range.
    """
    try:
        return module(*inputs)
    except OnnxPruneError:
        raise
    # torch and onnxruntime raise by many classes.
    except Exception as error:
        raise DataError(
            f"the model cannot be trained on a batch of the data: {first_line(error)}; check the inputs, such as token "
            "ids beyond the vocabulary, or prune without --data, which does not fine-tune"
        ) from error
