"""Counting a model's nodes, multiply-adds and bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import onnx

from onnxfuse.graph import TensorType
from onnxfuse.messages import attributes, bodies
from onnxfuse.report.report import Counts
from onnxfuse.shapes import hollow, infer_types, payload_bytes, tensors

BATCH = 1
EXTENT = 224
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def assumed_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """A size for each symbolic dimension of the graph's inputs: 1 in front, 224 elsewhere."""
    sizes: dict[str, int] = {}
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                sizes.setdefault(dim.dim_param, EXTENT if axis else BATCH)
    return sizes


def concrete_types(
    model: onnx.ModelProto, assumed: Mapping[str, int], types: Mapping[str, TensorType]
) -> Mapping[str, TensorType]:
    """Types with the assumed sizes in place of symbols; `types` where nothing is symbolic."""
    return infer_types(_concrete(model, assumed)) if assumed else types


def count(model: onnx.ModelProto, types: Mapping[str, TensorType]) -> Counts:
    """Counts a model, with tensor types as `concrete_types` gives them."""
    nodes = list(_nodes(model.graph))
    stored = list(tensors(model))
    shapes = {t.name: tuple(t.dims) for t in stored}
    return Counts(
        nodes=len(nodes),
        operators=dict(sorted(Counter(node.op_type for node in nodes).items())),
        macs=sum(_macs(node, types, shapes) for node in nodes),
        parameter_bytes=sum(payload_bytes(t) for t in stored),
    )


def lacks_types(model: onnx.ModelProto, types: Mapping[str, TensorType]) -> bool:
    """True when a product reads or makes a tensor that the types do not cover."""
    return any(
        node.output[0] not in types or node.input[0] not in types
        for node in _nodes(model.graph)
        if node.op_type in _PRODUCTS and len(node.input) > 1
    )


def _concrete(model: onnx.ModelProto, assumed: Mapping[str, int]) -> onnx.ModelProto:
    """A copy without weights whose inputs have the assumed sizes."""
    copy = hollow(model)
    for value in copy.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in assumed:
                dim.dim_value = assumed[dim.dim_param]
    del copy.graph.value_info[:]
    return copy


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from _nodes(body)


def _macs(
    node: onnx.NodeProto,
    types: Mapping[str, TensorType],
    shapes: Mapping[str, tuple[int, ...]],
) -> int:
    """Multiply-adds of one node; 0 where it has none or a shape is not known."""

    def shape(name: str) -> tuple[int, ...] | None:
        known = shapes.get(name) or types.get(name, TensorType()).shape
        if known is None:
            return None
        sizes = tuple(d for d in known if isinstance(d, int))
        return sizes if len(sizes) == len(known) else None

    if node.op_type not in _PRODUCTS or len(node.input) < 2:
        return 0
    x, w, y = shape(node.input[0]), shape(node.input[1]), shape(node.output[0])
    if x is None or w is None or y is None:
        return 0
    if node.op_type == "Conv":
        return math.prod(y) * math.prod(w[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(x) * math.prod(w[1:])
    turned = node.op_type == "Gemm" and bool(getattr(attributes(node).get("transA"), "i", 0))
    return math.prod(y) * (x[0] if turned else x[-1])
