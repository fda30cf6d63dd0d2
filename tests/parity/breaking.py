"""Folds gone wrong on purpose."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

import onnxfuse


def initializer(model: ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def changed(model: ModelProto, name: str, value: np.ndarray) -> ModelProto:
    """A copy with another value of an initializer."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = initializer(copy, name)
    dtype = numpy_helper.to_array(tensor).dtype
    tensor.CopyFrom(numpy_helper.from_array(value.astype(dtype), name))
    return copy


def folded_convs(result: onnxfuse.OptimizeResult) -> list[NodeProto]:
    """The Convs with a bias that folds have made."""
    targets = {fold.target for fold in result.report.folds}
    return [
        node
        for node in result.model.graph.node
        if node.op_type == "Conv" and len(node.input) == 3 and node.output[0] in targets
    ]


def bias_off(model: ModelProto, conv: NodeProto, channel: int, by: float = 1e-3) -> ModelProto:
    bias = numpy_helper.to_array(initializer(model, conv.input[2])).copy()
    bias[channel % len(bias)] += by
    return changed(model, conv.input[2], bias)


def tap_shifted(model: ModelProto, conv: NodeProto, channel: int) -> ModelProto:
    """One kernel moved by a tap along the last axis."""
    weight = numpy_helper.to_array(initializer(model, conv.input[1])).copy()
    channel %= len(weight)
    weight[channel, 0] = np.roll(weight[channel, 0], 1, axis=-1)
    return changed(model, conv.input[1], weight)


def without_epsilon(model: ModelProto, number: int) -> tuple[ModelProto, str]:
    """The model with the epsilon of one BatchNormalization 0, and what that node is called."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [node for node in copy.graph.node if node.op_type == "BatchNormalization"]
    node = nodes[number % len(nodes)]
    for attribute in node.attribute:
        if attribute.name == "epsilon":
            attribute.f = 0.0
    return copy, node.name
