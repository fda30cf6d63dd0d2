"""What a tensor can never be below: from the signs of a weight, and of what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from onnxfuse.affine import Array
from onnxfuse.equalization.layers import Layer
from onnxfuse.graph import Graph
from onnxfuse.messages import operator

Limits: TypeAlias = tuple[float, float]

_BOUNDED: Mapping[str, Limits] = {
    "HardSigmoid": (0.0, 1.0),
    "Relu": (0.0, np.inf),
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
}
_KEEPING = frozenset({"GlobalMaxPool", "Identity", "MaxPool"})
_FARTHEST = 8


def limits(graph: Graph, name: str) -> Limits | None:
    """Between what a tensor is, by the operator that makes it; None where nothing is known."""
    for _ in range(_FARTHEST):
        index = graph.producers.get(name)
        if index is None:
            return None
        op_type = operator(graph.nodes[index])
        if op_type in _BOUNDED:
            return _BOUNDED[op_type]
        if op_type not in _KEEPING:
            return None
        name = graph.nodes[index].input[0]
    return None


def floor(layer: Layer, weight: Array, bias: Array, given: Limits) -> Array:
    """What the channels of a layer's output are never below, (C_out,).

    Args:
        layer: A Conv or Gemm that scales nothing by attributes.
        weight: Its weight.
        bias: Its bias, (C_out,).
        given: Between what its input is, which is padded with zeros.
    """
    low, high = given
    others = tuple(axis for axis in range(weight.ndim) if axis != layer.weight_axes[1])
    with np.errstate(invalid="ignore"):
        least = np.where(weight > 0, weight * low, np.where(weight < 0, weight * high, 0.0))
    return np.asarray(np.minimum(least, 0.0).sum(axis=others) + bias)
