"""ONNX element types as torch dtypes; types with little support in torch are widened."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

TORCH_DTYPES: dict[ir.DataType, torch.dtype] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float32,
    ir.DataType.BFLOAT16: torch.float32,
    ir.DataType.FLOAT8E4M3FN: torch.float32,
    ir.DataType.FLOAT8E4M3FNUZ: torch.float32,
    ir.DataType.FLOAT8E5M2: torch.float32,
    ir.DataType.FLOAT8E5M2FNUZ: torch.float32,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.int32,
    ir.DataType.UINT32: torch.int64,
    ir.DataType.UINT64: torch.int64,
    ir.DataType.INT4: torch.int8,
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}

# Types of graph inputs that are widened on entry.
WIDENED_TYPES = frozenset(
    {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64}
)


def torch_dtype(onnx_type: int) -> torch.dtype:
    """The dtype that values of an ONNX type are computed in; NotImplementedError for strings and the like."""
    try:
        return TORCH_DTYPES[ir.DataType(onnx_type)]
    except KeyError:
        raise NotImplementedError(f"torch has no numbers of type {ir.DataType(onnx_type).name}") from None


def to_tensor(constant: ir.TensorProtocol) -> torch.Tensor:
    """A copy of a constant's values in the dtype they are computed in; NotImplementedError as `torch_dtype`."""
    dtype = np.dtype(str(torch_dtype(constant.dtype)).removeprefix("torch."))
    return torch.from_numpy(np.array(constant.numpy(), dtype=dtype, order="C"))


def scalar(value: Any) -> Any:
    """The number itself, or the only one of a list: operands that are scalars come in both forms."""
    return value[0] if isinstance(value, list | tuple) else value
