"""onnx's own reference evaluator, one node at a time, held to float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxfuse.messages import bodies
from onnxfuse.parity.inside import OPERATORS
from onnxfuse.parity.operators import OWN

_SLOW = frozenset({"Col2Im", "DeformConv", "GridSample", "MaxRoiPool", "MaxUnpool", "RoiAlign"})
_SLOW_ELEMENTS = 1 << 11
"""onnx's evaluator goes through the elements of these one by one."""

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
        own = OWN.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if own is not None:
            return [own(node, *(read[name] for name in node.input))]
        _check_size(node, read)
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
        return ReferenceEvaluator(model, new_ops=OPERATORS if any(bodies(own)) else None)


def _check_size(node: onnx.NodeProto, read: Mapping[str, Any]) -> None:
    elements = sum(value.size for value in read.values() if isinstance(value, np.ndarray))
    if node.op_type in _SLOW and elements > _SLOW_ELEMENTS:
        raise ValueError(f"{elements} elements would take onnx's evaluator too long")


def _widen(node: onnx.NodeProto) -> None:
    """Makes casts to narrow floating types, and constants in bodies, float64."""
    for attribute in node.attribute:
        narrow = attribute.type == AttributeProto.INT and attribute.i in _NARROW
        if narrow and (node.op_type, attribute.name) == ("Cast", "to"):
            attribute.i = TensorProto.DOUBLE
        if node.op_type == "Constant" and attribute.HasField("t"):
            _widen_tensor(attribute.t)
        for body in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            for tensor in body.initializer:
                _widen_tensor(tensor)
            for inner in body.node:
                _widen(inner)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in _NARROW:
        value = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
