"""Layers that stay float, which ONNX Runtime would otherwise bring to int8 when it loads them.

    DequantizeLinear(q, s, z) -> DequantizeLinear(q, (s, ..., s), (z, ..., z)), one for each channel

Between a DequantizeLinear and a QuantizeLinear, newer versions of it (WeightBiasQuantization) give
float32 weights int8 ones, with one scale for the whole weight and products that may saturate; but
not where what they read was dequantized with a scale for each channel. The numbers are the same.

1. A Conv, ConvTranspose or Gemm with a constant weight in float32.
2. It reads what was dequantized with one scale.
3. It reads more channels than one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfuse.messages import all_names, attributes, operator

_BACK = "DequantizeLinear"


def guarded(model: onnx.ModelProto) -> None:
    """Gives such layers of a quantized model a DequantizeLinear of their own, in place."""
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    taken = set(all_names(graph))
    made: list[onnx.NodeProto] = []

    def unique(base: str) -> str:
        while base in taken:
            base += "_"
        taken.add(base)
        return base

    for node in graph.node:
        given = makers.get(node.input[0]) if node.input else None
        count, axis = _channels(node, held)
        if count > 1 and given is not None and _has_one_scale(given, held):
            label = unique(f"{node.input[0]}_float")
            inputs = [given.input[0], *(unique(f"{label}/{name}") for name in given.input[1:])]
            for name, alike in zip(given.input[1:], inputs[1:], strict=True):
                value = np.full(count, numpy_helper.to_array(held[name]).reshape(()))
                graph.initializer.append(numpy_helper.from_array(value, alike))
            made.append(helper.make_node(_BACK, inputs, [label], label, axis=axis))
            node.input[0] = label
        made.append(node)
    if len(made) > len(graph.node):
        read = {value.name for value in graph.output}
        read.update(name for node in made for name in node.input)
        made = [node for node in made if read.intersection(node.output) or node.op_type != _BACK]
        del graph.node[:]
        graph.node.extend(made)


def _channels(node: onnx.NodeProto, held: Mapping[str, onnx.TensorProto]) -> tuple[int, int]:
    """How many channels a layer of 1. reads, and along which axis; none of another node."""
    weight = held.get(node.input[1]) if len(node.input) > 1 else None
    if weight is None or weight.data_type != onnx.TensorProto.FLOAT:
        return 0, 0
    flags = {name: attribute.i for name, attribute in attributes(node).items()}
    if operator(node) == "Conv":
        return weight.dims[1] * flags.get("group", 1), 1
    if operator(node) == "ConvTranspose":
        return weight.dims[0], 1
    if operator(node) == "Gemm":
        return weight.dims[1 if flags.get("transB") else 0], 0 if flags.get("transA") else 1
    return 0, 0


def _has_one_scale(node: onnx.NodeProto, held: Mapping[str, onnx.TensorProto]) -> bool:
    return operator(node) == _BACK and all(
        name in held and math.prod(held[name].dims) == 1 for name in node.input[1:]
    )
