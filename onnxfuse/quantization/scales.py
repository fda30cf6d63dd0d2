"""Scales of int8 weights whose sums of products cannot saturate.

Where a processor has no dot product of bytes, ONNX Runtime multiplies pairs of uint8 activations
and int8 weights and adds the two products in int16. Which weights make a pair depends on how a
kernel lays them out; but if the two largest of one sign in a channel add up to 128 at most, no pair
of any layout goes beyond 255 * 128 = 32,640, which int16 holds. The usual remedy, 7 bits for all
weights, makes each 64 at most. That is the same where a channel has two large weights, and up to
twice as coarse where one stands out, as the center tap of a folded identity branch does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfuse.messages import attributes, operator

_KINDS = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
_LARGEST = 127
_PAIR = 127.99
"""Of two scaled weights: below 128 by more than float32 rounds, so that rounded they are 128."""

Weights = np.ndarray[Any, Any]


def unsaturated_scales(weight: Weights) -> Weights:
    """The finest scale of each channel at which no two products with uint8 saturate.

    scale = max(largest / 127, (largest + second largest of one sign) / 128), rounded up

    Args:
        weight: (C, K), float32 or float16.

    Returns:
        (C,), of the same type; 1 for a channel of zeros.
    """
    ends = []
    for signed in (weight, -weight):
        positive = np.maximum(signed.astype(np.float64), 0)
        two = np.sort(positive, axis=1)[:, -2:]
        ends.append(np.maximum(two.max(1, initial=0) / _LARGEST, two.sum(1) / _PAIR))
    exact = np.maximum(*ends)
    scales = exact.astype(weight.dtype)
    scales = np.where(scales < exact, np.nextafter(scales, weight.dtype.type(np.inf)), scales)
    made: Weights = np.where(exact > 0, scales, weight.dtype.type(1))
    return made


def unsaturated_overrides(model: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    """The same for all weights of Conv, Gemm and MatMul, as the quantizer takes them.

    Weights that nodes read along different axes, or that are no matrices of a MatMul, are left to
    it.

    Args:
        model: A float model, its tensors' data in it.

    Returns:
        By name of the weight: for each channel its axis, scale and zero point.
    """
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    axes: dict[str, set[int | None]] = {}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in held:
                axis = _axis(node, len(held[name].dims)) if index == 1 else None
                axes.setdefault(name, set()).add(axis)
    made = {}
    for name, found in axes.items():
        axis = next(iter(found))
        tensor = held[name]
        if len(found) > 1 or axis is None or tensor.data_type not in _KINDS or 0 in tensor.dims:
            continue
        weight = np.moveaxis(numpy_helper.to_array(tensor), axis, 0)
        made[name] = list(_entries(unsaturated_scales(weight.reshape(len(weight), -1)), axis))
    return made


def _axis(node: onnx.NodeProto, rank: int) -> int | None:
    """The axis of a node's weight along which it makes channels; None of what is not looked at."""
    if operator(node) == "Conv":
        return 0
    if operator(node) == "Gemm":
        transposed = attributes(node).get("transB")
        return 0 if transposed is not None and transposed.i else 1
    return 1 if operator(node) == "MatMul" and rank == 2 else None


def _entries(scales: Weights, axis: int) -> Iterator[dict[str, Any]]:
    for scale in scales:
        yield {"axis": axis, "scale": scale, "zero_point": np.int8(0)}
