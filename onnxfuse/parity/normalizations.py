"""What normalizations round inside: the mean that they subtract, magnified where maps are flat."""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.parity.evaluator import Read
from onnxfuse.parity.operators import EPSILON, attributes

Wide = NDArray[np.float64]


def mean_error(node: onnx.NodeProto, read: Read, unit: float) -> Wide | float:
    """By how much a normalization's output is off where its mean is off by rounding; else 0.

    The mean of n numbers is off by about sqrt(n) roundoffs, alike for all that it is subtracted
    from, and is then divided by a deviation that may be as small as sqrt(epsilon).

    Args:
        node: The node; InstanceNormalization, LayerNormalization and GroupNormalization count.
        read: What it reads.
        unit: Roundoff of the type that it computes in.
    """
    kind = node.op_type
    if kind not in ("GroupNormalization", "InstanceNormalization", "LayerNormalization"):
        return 0.0
    x, scale = (read[name][0] for name in node.input[:2])
    given = attributes(node)
    grouped = x
    if kind == "GroupNormalization":
        grouped = x.reshape(x.shape[0], given["num_groups"], -1)
    first = given.get("axis", -1) % x.ndim if kind == "LayerNormalization" else 2
    axes = tuple(range(first, grouped.ndim))
    if not axes or not x.size:
        return 0.0
    mean, variance = grouped.mean(axes, keepdims=True), grouped.var(axes, keepdims=True)
    terms = math.prod(grouped.shape[first:])
    deviation = np.sqrt(variance + given.get("epsilon", EPSILON))
    off = np.broadcast_to(unit * math.sqrt(terms) * np.abs(mean) / deviation, grouped.shape)
    if kind == "LayerNormalization":
        return np.asarray(off * np.abs(scale))
    per_channel = off.reshape(x.shape)
    if scale.shape == x.shape[1:2]:
        per_channel = per_channel * np.abs(scale).reshape(-1, *[1] * (x.ndim - 2))
    return np.asarray(per_channel)
