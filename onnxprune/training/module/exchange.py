"""Moving constants between an ONNX model and its torch module."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn

from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.model.reading import dequantized
from onnxprune.training.module.trainable import trained_constants, unique_names


def borrowed(
    module: fx.GraphModule, model: ir.Model, embeddings: Collection[str] = ()
) -> dict[ir.Value, nn.Parameter]:
    """The parameters of the model's constants, by value; parameters of model-local functions are frozen.

    `embeddings`: those that `to_torch` was given.
    """
    values = trained_constants(model, embeddings)
    parameters = dict(module.named_parameters())
    paths = module.meta["parameters"]
    trained = {
        value: parameters.pop(paths[name]) for name, value in zip(unique_names(values), values, strict=True)
    }
    for frozen in parameters.values():
        frozen.requires_grad_(False)
    return trained


def give_back(tensors: Mapping[ir.Value, torch.Tensor]) -> None:
    """Replace the model's constants by copies of the tensors, in the constants' types; integers are rounded."""
    for value, tensor in tensors.items():
        old = constant_tensor(value)
        assert old is not None
        array = tensor.detach().cpu().contiguous().numpy()
        encoding = dequantized(value)
        stored = array.astype(old.dtype.numpy()) if encoding is None else encoding.encode(array)
        set_constant(value, stored, old.dtype)


def take(tensors: Mapping[ir.Value, torch.Tensor]) -> None:
    """Copy the current constants of the model into the tensors that were made from them."""
    with torch.no_grad():
        for value, tensor in tensors.items():
            constant = constant_tensor(value)
            assert constant is not None
            encoding = dequantized(value)
            array = constant.numpy() if encoding is None else encoding.decode(constant.numpy())
            tensor.copy_(torch.from_numpy(np.array(array, dtype=tensor.numpy(force=True).dtype)))
