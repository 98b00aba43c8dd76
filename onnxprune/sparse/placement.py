"""Where a sparse node runs: by the library's kernel, or dense. Told in the file by the node's domain alone.

    onnxprune::SparseConv  <->  onnxprune.dense::SparseConv

Both have the same function, so stock onnxruntime makes the same of either; the library has kernels for the first
only. Weights are not touched on the way, in whatever form they are stored.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from onnxprune.sparse.functions import DENSE_DOMAIN, DOMAIN, DOMAIN_VERSION, DOMAINS, SPARSE_OPS


def sparse_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes whose weight is stored sparse, wherever they run, in graph order, subgraphs included."""
    # Functions of ours that only decode have no kernels.
    return [node for node in _own(model) if node.op_type in SPARSE_OPS]


def decoders(node: ir.Node) -> list[ir.Node]:
    """The functions of ours that a sparse node's constants pass through, in the order they are computed."""
    found: dict[ir.Node, None] = {}
    for value in node.inputs:
        maker = None if value is None else value.producer()
        if maker is not None and maker.domain in DOMAINS and "dtype" not in maker.attributes:
            found |= dict.fromkeys([*decoders(maker), maker])
    return list(found)


def place(model: ir.Model, by_kernel: Collection[ir.Node]) -> None:
    """Have the sparse nodes in `by_kernel` run by the library's kernels, and all others dense."""
    for node in sparse_nodes(model):
        node.domain = DOMAIN if node in by_kernel else DENSE_DOMAIN
    own = {identifier[1:]: body for identifier, body in model.functions.items() if identifier[0] in DOMAINS}
    for domain in DOMAINS:
        used = {(node.op_type, node.overload) for node in _own(model) if node.domain == domain}
        for name, body in own.items():
            model.functions.pop((domain, *name), None)
            if name in used:
                moved = body.clone()
                moved.domain = domain
                model.functions[moved.identifier()] = moved
        if used:
            model.opset_imports[domain] = DOMAIN_VERSION
        else:
            model.opset_imports.pop(domain, None)


def _own(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph.all_nodes() if node.domain in DOMAINS]
