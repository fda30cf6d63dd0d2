"""Operators in float64 that onnx's own evaluator lacks, has in float32, or for newer opsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper

EPSILON = 1e-5


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values, by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def group_normalization(node: onnx.NodeProto, x: Any, scale: Any, bias: Any) -> Any:
    """GroupNormalization: scale and bias for each group (opset 18), or each channel (21)."""
    given = attributes(node)
    grouped = x.reshape(x.shape[0], given["num_groups"], -1)
    centred = grouped - grouped.mean(2, keepdims=True)
    deviation = np.sqrt(grouped.var(2, keepdims=True) + given.get("epsilon", EPSILON))
    normal = (centred / deviation).reshape(x.shape[0], len(scale), -1)
    return (normal * scale[:, None] + bias[:, None]).reshape(x.shape)


def mean_variance_normalization(node: onnx.NodeProto, x: Any) -> Any:
    """MeanVarianceNormalization, with the epsilon of its definition."""
    axes = tuple(attributes(node).get("axes", (0, 2, 3)))
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / (np.sqrt((x**2).mean(axes, keepdims=True) - mean**2) + 1e-9)


def quantize_linear(node: onnx.NodeProto, x: Any, scale: Any, zero: Any = None) -> Any:
    """QuantizeLinear: saturate(round(x / scale) + zero), for the whole tensor or along an axis."""
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    limits = np.iinfo(kind)
    scale, zero = _along(node, x, scale), _along(node, x, np.zeros(1) if zero is None else zero)
    return np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(kind)


def dequantize_linear(node: onnx.NodeProto, x: Any, scale: Any, zero: Any = None) -> Any:
    """DequantizeLinear: (x - zero) * scale, for the whole tensor or along an axis."""
    shift = 0.0 if zero is None else _along(node, x, zero).astype(np.float64)
    return (x.astype(np.float64) - shift) * _along(node, x, scale)


def _along(node: onnx.NodeProto, x: Any, value: Any) -> Any:
    """One number, or a vector that broadcasts along the node's axis."""
    given = attributes(node)
    if value.size == 1:
        return value.reshape(())
    if value.ndim != 1 or given.get("block_size", 0):
        raise ValueError("quantization in blocks is not covered")
    axis = given.get("axis", 1) % x.ndim
    return value.reshape([-1 if a == axis else 1 for a in range(x.ndim)])


OWN: dict[str, Callable[..., Any]] = {
    "DequantizeLinear": dequantize_linear,
    "GroupNormalization": group_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "QuantizeLinear": quantize_linear,
}
"""By operator of the default domain."""
