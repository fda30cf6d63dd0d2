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


OWN: dict[str, Callable[..., Any]] = {
    "GroupNormalization": group_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
}
"""By operator of the default domain."""
