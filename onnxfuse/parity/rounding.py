"""Constants moved by roundings: how far that carries an output is what rounding explains.

A number that was stored in a model's own type may be off by one rounding, and one that a tool
computed in that type by a few. Numbers whose mantissa ends in zeros (2, 0.5, 6) were not rounded.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.hollow import tensors

ROUNDINGS = 4
"""By how many roundings constants are moved. Kernels that a tool folds in their own type are off by
several, but not all to the same side: tools in use reach a tenth of what 8 explain."""

_EXACT_INPUTS = {
    "Pow": {1},
    "Range": {0, 1, 2},
    "Resize": {1, 2, 3},
    "Upsample": {1},
}
"""Inputs, by operator, that are structure: moved, they would give other shapes or no number."""

_FORMATS = {
    # type: (unsigned integer of its size, stored bits of the mantissa)
    "float64": (np.uint64, 52),
    "float32": (np.uint32, 23),
    "float16": (np.uint16, 10),
    "bfloat16": (np.uint16, 7),
}

_NAMES = {
    "BFLOAT16": "bfloat16",
    "FLOAT16": "float16",
    "FLOAT": "float32",
    "DOUBLE": "float64",
}


def roundoff(dtype: str) -> float:
    """The largest relative error of one rounding; that of float32 for what is not floating."""
    _, bits = _FORMATS.get(dtype, _FORMATS["float32"])
    return float(2.0 ** -(bits + 1))


def structure(graph: onnx.GraphProto) -> set[str]:
    """Names of tensors that say what shape a result has."""
    return {
        node.input[index]
        for node in graph.node
        for index in _EXACT_INPUTS.get(node.op_type, ())
        if index < len(node.input)
    }


def move(value: NDArray[Any], name: str, draw: int, amount: float) -> NDArray[Any]:
    """Every rounded number of a floating constant, times 1 + amount or 1 - amount, in float64.

    Args:
        value: The constant in its own type.
        name: Its name, the seed of the signs.
        draw: Which of several choices of signs.
        amount: How far.
    """
    known = _FORMATS.get(value.dtype.name)
    if known is None:
        return value
    unsigned, bits = known
    tail = (1 << (bits // 2 + 1)) - 1
    rounded = (np.ascontiguousarray(value).view(unsigned) & unsigned(tail)) != 0
    rng = np.random.default_rng((zlib.crc32(name.encode()), draw))
    signs = rng.integers(0, 2, value.shape, dtype=np.int8) * 2 - 1
    factors = 1 + amount * rounded.reshape(value.shape) * signs
    moved: NDArray[Any] = value.astype(np.float64) * factors
    return moved


def coarsest_type(model: onnx.ModelProto) -> str:
    """The narrowest floating type among a model's weights, inputs and outputs; else float32."""
    used = {tensor.data_type for tensor in tensors(model)}
    used |= {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
    kinds = ("BFLOAT16", "FLOAT16", "FLOAT", "DOUBLE")
    found = (kind for kind in kinds if onnx.TensorProto.DataType.Value(kind) in used)
    return _NAMES[next(found, "FLOAT")]
