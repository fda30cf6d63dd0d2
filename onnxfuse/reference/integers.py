"""Operators that arithmetic on sizes and indices is written in."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from onnxfuse.reference.call import Call, Tensor


def size(call: Call) -> Tensor:
    """Size: the number of elements, as int64."""
    return np.array(call.inputs[0].size, np.int64)


def of_all(function: Callable[[Any, Any], Any]) -> Callable[[Call], Tensor]:
    """Max and Min: the function over any number of inputs, which broadcast."""
    return lambda call: np.asarray(reduce(function, call.inputs))


def mod(call: Call) -> Tensor:
    """Mod: with the sign of the divisor, or with fmod=1 that of the dividend.

    Raises:
        ValueError: An integer is divided by zero.
    """
    left, right = call.inputs
    if right.dtype.kind in "iu" and not np.all(right):
        raise ValueError("a remainder of a division by zero")
    return np.asarray(np.fmod(left, right) if call.attributes.get("fmod", 0) else left % right)


def reduce_prod(call: Call) -> Tensor:
    """ReduceProd: over axes (attribute before opset 18, then input), by default over all."""
    x: Tensor = call.inputs[0]
    axes = call.integers("axes", 1)
    if not axes and call.attributes.get("noop_with_empty_axes", 0):
        return x
    keepdims = bool(call.attributes.get("keepdims", 1))
    return np.asarray(np.prod(x, tuple(axes) if axes else None, keepdims=keepdims))


def non_zero(call: Call) -> Tensor:
    """NonZero: the indices of the elements that are not zero, (rank, count), in row-major order."""
    return np.array(np.nonzero(call.inputs[0]), np.int64)
