"""ONNX sparse tensors (SparseTensorProto: non-zeros and their coordinates), on the protobuf.

They occur in `sparse_initializer` and in the attribute `sparse_value` of Constant (opset 11). onnx_ir silently drops
the former and rejects the latter, so both are converted to dense when a file is read, and to sparse before one is
written. onnxruntime reads both, also in subgraphs, and makes them dense when it loads a model.
"""

from __future__ import annotations

import math
from collections.abc import Container

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from onnxprune.errors import ModelFileError
from onnxprune.model.files.protos import all_graphs, all_nodes

# Without bfloat16, which onnxruntime's CPU provider does not compute in.
SPARSE_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
INDEX_TYPES = (np.int64, np.int32)
INDEX_BYTES = 8
MIN_CONSTANT_OPSET = 11


def densify(proto: onnx.ModelProto) -> None:
    """Turn every sparse tensor, subgraphs included, into a dense one of the same name, in place.

    Indices may be linear (NNZ) or coordinates (NNZ, rank), int64 or int32, in any order.

    Raises:
        ModelFileError: the parts of a sparse tensor do not fit together.
    """
    for graph in all_graphs(proto):
        names = {tensor.name for tensor in graph.initializer}
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            if name in names:
                raise _broken(name, "another initializer has its name")
            names.add(name)
            graph.initializer.append(_dense(sparse, name))
        del graph.sparse_initializer[:]
    for node in all_nodes(proto):
        attribute = _constant_attribute(node, "sparse_value")
        if attribute is not None:
            tensor = _dense(attribute.sparse_tensor, node.output[0])
            attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def sparsify(proto: onnx.ModelProto, names: Container[str]) -> dict[str, int]:
    """Turn float initializers and Constant nodes of these names, subgraphs included, sparse in place.

    Only where it saves bytes, and only tensors whose data is in `proto`. Indices are linear, int64 and ascending.

    Returns:
        Name -> bytes of values and indices, for each tensor that became sparse.
    """
    stored: dict[str, int] = {}

    def convert(tensor: onnx.TensorProto, name: str) -> onnx.SparseTensorProto | None:
        sparse = _sparse(tensor) if name in names else None
        if sparse is not None:
            nbytes = len(sparse.values.raw_data) + len(sparse.indices.raw_data)
            stored[name] = stored.get(name, 0) + nbytes
        return sparse

    for graph in all_graphs(proto):
        converted = []
        for position, tensor in enumerate(graph.initializer):
            if sparse := convert(tensor, tensor.name):
                graph.sparse_initializer.append(sparse)
                converted.append(position)
        for position in reversed(converted):
            del graph.initializer[position]
    if any(
        entry.domain in ("", "ai.onnx") and entry.version >= MIN_CONSTANT_OPSET
        for entry in proto.opset_import
    ):
        for node in all_nodes(proto):
            attribute = _constant_attribute(node, "value")
            if attribute is not None and (sparse := convert(attribute.t, node.output[0])):
                attribute.CopyFrom(onnx.helper.make_attribute("sparse_value", sparse))
    return stored


def saves_bytes(tensor: ir.TensorProtocol) -> bool:
    """Whether a dense tensor would be smaller in COO format."""
    if tensor.dtype not in SPARSE_TYPES:
        return False
    return int(np.count_nonzero(tensor.numpy())) * (tensor.dtype.itemsize + INDEX_BYTES) < tensor.nbytes


def _sparse(tensor: onnx.TensorProto) -> onnx.SparseTensorProto | None:
    """The tensor in COO format; None if that is not possible or saves nothing."""
    if tensor.data_type not in SPARSE_TYPES or _is_external(tensor):
        return None
    flat = numpy_helper.to_array(tensor).reshape(-1)
    indices = np.flatnonzero(flat != 0).astype(np.int64, copy=False)
    if indices.size * (flat.itemsize + indices.itemsize) >= flat.nbytes:
        return None
    values = numpy_helper.from_array(flat[indices], tensor.name)
    if tensor.doc_string:
        values.doc_string = tensor.doc_string
    return onnx.helper.make_sparse_tensor(values, numpy_helper.from_array(indices), tensor.dims)


def _dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    if _is_external(sparse.values) or _is_external(sparse.indices):
        raise _broken(name, "its data is in another file, which no runtime supports for sparse tensors")
    try:
        values = numpy_helper.to_array(sparse.values)
        indices = numpy_helper.to_array(sparse.indices)
    except (ValueError, TypeError, KeyError):
        raise _broken(name, "the data of its values or indices does not fit their shape and type") from None
    if values.ndim != 1 or values.dtype.hasobject:
        raise _broken(name, "its values are not a list of numbers")
    dims = list(sparse.dims)
    if min(dims, default=0) < 0:
        raise _broken(name, f"its shape {dims} has a negative dimension")
    try:
        dense = np.zeros(math.prod(dims), values.dtype)
    except (MemoryError, OverflowError, ValueError):
        raise _broken(name, f"its shape {dims} does not fit in memory") from None
    dense[_positions(indices, len(values), dims, name)] = values
    tensor = numpy_helper.from_array(dense.reshape(dims), sparse.values.name)
    if sparse.values.doc_string:
        tensor.doc_string = sparse.values.doc_string
    return tensor


def _positions(indices: np.ndarray, nnz: int, dims: list[int], name: str) -> np.ndarray:
    """The checked positions of `nnz` values in the flattened tensor."""
    if indices.dtype not in INDEX_TYPES:
        raise _broken(name, f"its indices have the type {indices.dtype} instead of int64")
    if indices.shape == (nnz,):
        columns, bounds = indices.reshape(nnz, 1), [math.prod(dims)]
    elif indices.shape == (nnz, len(dims)):
        columns, bounds = indices, dims
    else:
        raise _broken(name, f"its {nnz} values of rank {len(dims)} have indices of shape {indices.shape}")
    positions = np.zeros(nnz, np.int64)
    for column, bound in zip(columns.T, bounds, strict=True):
        if nnz and not 0 <= column.min() <= column.max() < bound:
            raise _broken(name, f"an index is outside of its shape {dims}")
        positions = positions * bound + column
    if not (np.diff(np.sort(positions)) > 0).all():
        raise _broken(name, "two values have the same position")
    return positions


def _constant_attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    """The attribute of this name, if `node` is a Constant that has it."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    return next((attribute for attribute in node.attribute if attribute.name == name), None)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def _broken(name: str, what: str) -> ModelFileError:
    return ModelFileError(f"sparse tensor {name!r} is broken: {what}; export the model again")
