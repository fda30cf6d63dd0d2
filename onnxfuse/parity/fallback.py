"""onnx's own reference evaluator, one node at a time, held to float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

_NARROW = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})


class Fallback:
    """The nodes of one model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._opsets = list(model.opset_import)
        self._ir_version = model.ir_version
        self._ready: dict[int, ReferenceEvaluator] = {}

    def run(self, index: int, node: onnx.NodeProto, read: Mapping[str, Any]) -> list[Any]:
        """A node's outputs; None for those that nobody asked for.

        Args:
            index: A number of its own for each node.
            node: The node.
            read: What it and its bodies read, by name.
        """
        own = _OWN.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if own is not None:
            return [own(node, *(read[name] for name in node.input))]
        if index not in self._ready:
            self._ready[index] = self._evaluator(node, [name for name in read if name])
        feeds = {name: value for name, value in read.items() if name}
        made = iter(self._ready[index].run(None, feeds))
        return [next(made) if name else None for name in node.output]

    def _evaluator(self, node: onnx.NodeProto, names: list[str]) -> ReferenceEvaluator:
        own = onnx.NodeProto()
        own.CopyFrom(node)
        _widen(own)
        inputs = [onnx.ValueInfoProto(name=name) for name in names]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([own], "node", inputs, outputs)
        model = helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir_version)
        return ReferenceEvaluator(model)


def _group_normalization(node: onnx.NodeProto, x: Any, scale: Any, bias: Any) -> Any:
    """GroupNormalization: scale and bias for each group (opset 18), or each channel (21)."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    groups = attributes["num_groups"]
    grouped = x.reshape(x.shape[0], groups, -1)
    centred = grouped - grouped.mean(2, keepdims=True)
    deviation = np.sqrt(grouped.var(2, keepdims=True) + attributes.get("epsilon", 1e-5))
    normal = (centred / deviation).reshape(x.shape[0], len(scale), -1)
    return (normal * scale[:, None] + bias[:, None]).reshape(x.shape)


def _mean_variance_normalization(node: onnx.NodeProto, x: Any) -> Any:
    """MeanVarianceNormalization, with the epsilon of its definition."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axes = tuple(attributes.get("axes", (0, 2, 3)))
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / (np.sqrt((x**2).mean(axes, keepdims=True) - mean**2) + 1e-9)


_OWN: dict[str, Callable[..., Any]] = {
    "GroupNormalization": _group_normalization,
    "MeanVarianceNormalization": _mean_variance_normalization,
}
"""Operators that onnx defines by other operators, in float32 alone."""


def _widen(node: onnx.NodeProto) -> None:
    """Makes casts to narrow floating types, in bodies too, casts to float64."""
    for attribute in node.attribute:
        narrow = attribute.type == AttributeProto.INT and attribute.i in _NARROW
        if narrow and (node.op_type, attribute.name) in (("Cast", "to"),):
            attribute.i = TensorProto.DOUBLE
        for body in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            for inner in body.node:
                _widen(inner)
