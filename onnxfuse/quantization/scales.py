"""Scales of int8 weights: those whose sums of products cannot saturate, and those of zeros.

Where a processor has no dot product of bytes, ONNX Runtime multiplies pairs of uint8 activations
and int8 weights and adds the two products in int16. Which weights make a pair depends on how a
kernel lays them out; but if the two largest of one sign in a channel add up to 128 at most, no pair
of any layout goes beyond 255 * 128 = 32,640, which int16 holds. The usual remedy, 7 bits for all
weights, makes each 64 at most. That is the same where a channel has two large weights, and up to
twice as coarse where one stands out, as the center tap of a folded identity branch does.

A bias is rounded to multiples of the input's scale times the weight's. Any scale holds a channel of
zeros, but with the 1 that the library chooses its bias is rounded to whole steps of the input; with
the largest of the other channels' it is as exact as theirs.
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
_NOTHING = 2.0**-10
"""The scale of a weight of zeros: steps of a bias a thousand times finer than the input's."""
_PAIR = 127.99
"""Of two scaled weights: below 128 by more than float32 rounds, so that rounded they are 128."""

Weights = np.ndarray[Any, Any]


def plain_scales(weight: Weights) -> Weights:
    """The finest scale of each channel that int8 holds.

    scale = largest / 127, rounded up

    Args:
        weight: (C, K), float32 or float16.

    Returns:
        (C,), of the same type; for a channel of zeros that of the channel with the largest.
    """
    exact = np.abs(weight.astype(np.float64)).max(1, initial=0) / _LARGEST
    return _rounded(exact, weight.dtype)


def unsaturated_scales(weight: Weights) -> Weights:
    """The finest scale of each channel at which no two products with uint8 saturate.

    scale = max(largest / 127, (largest + second largest of one sign) / 128), rounded up

    Args:
        weight: As above.

    Returns:
        As above.
    """
    ends = []
    for signed in (weight, -weight):
        positive = np.maximum(signed.astype(np.float64), 0)
        two = np.sort(positive, axis=1)[:, -2:]
        ends.append(np.maximum(two.max(1, initial=0) / _LARGEST, two.sum(1) / _PAIR))
    return _rounded(np.maximum(*ends), weight.dtype)


def _rounded(exact: Weights, dtype: np.dtype[Any]) -> Weights:
    scales = exact.astype(dtype)
    scales = np.where(scales < exact, np.nextafter(scales, dtype.type(np.inf)), scales)
    nothing = scales.max(initial=0) or dtype.type(_NOTHING)
    made: Weights = np.where(exact > 0, scales, nothing).astype(dtype)
    return made


def scale_overrides(model: onnx.ModelProto, weight_bits: int) -> dict[str, list[dict[str, Any]]]:
    """Scales of weights of Conv, ConvTranspose, Gemm and MatMul, as the quantizer takes them.

    With 8 bits, those of weights with channels of zeros; with 7, all. Weights that nodes read along
    different axes, or that are no matrices of a MatMul, are left to it.

    Args:
        model: A float model, its tensors' data in it.
        weight_bits: 7 or 8.

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
        rows = weight.reshape(len(weight), -1)
        if weight_bits == 7:
            made[name] = list(_entries(unsaturated_scales(rows), axis))
        elif not rows.any(1).all():
            made[name] = list(_entries(plain_scales(rows), axis))
    return made


def _axis(node: onnx.NodeProto, rank: int) -> int | None:
    """The axis of a node's weight along which it makes channels; None of what is not looked at."""
    if operator(node) == "Conv":
        return 0
    if operator(node) == "Gemm":
        transposed = attributes(node).get("transB")
        return 0 if transposed is not None and transposed.i else 1
    if operator(node) == "ConvTranspose":
        return 1
    return 1 if operator(node) == "MatMul" and rank == 2 else None


def _entries(scales: Weights, axis: int) -> Iterator[dict[str, Any]]:
    for scale in scales:
        yield {"axis": axis, "scale": scale, "zero_point": np.int8(0)}
