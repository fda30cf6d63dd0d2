"""Element-wise arithmetic, products of matrices, reductions."""

from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from onnxfuse.reference.call import Call, Tensor

# Absent float attributes have the float32 value nearest to the documented default.
_DEFAULT_EPSILON = float(np.float32(1e-5))


def elementwise(function: Callable[..., Any]) -> Callable[[Call], Tensor]:
    """The operator that hands its inputs to a numpy function with the same broadcasting."""

    def operator(call: Call) -> Tensor:
        result: Tensor = function(*call.inputs)
        return result

    return operator


def div(call: Call) -> Tensor:
    """Div: c = a / b, rounded towards zero for integers."""
    a, b = call.inputs
    quotient: Tensor = _truncating_divide(a, b) if a.dtype.kind in "iu" else np.divide(a, b)
    return quotient


def _truncating_divide(a: Tensor, b: Tensor) -> Tensor:
    quotient = np.floor_divide(a, b)
    rounded: Tensor = np.add(quotient, (quotient < 0) & (quotient * b != a), dtype=a.dtype)
    return rounded


def sum_(call: Call) -> Tensor:
    """Sum: the sum of all inputs."""
    total: Tensor = reduce(np.add, call.inputs)
    return total


def mean(call: Call) -> Tensor:
    """Mean: the mean of all inputs."""
    average: Tensor = np.divide(sum_(call), len(call.inputs))
    return average


def gemm(call: Call) -> Tensor:
    """Gemm: y = alpha * A' B' + beta * C."""
    a, b = call.inputs[:2]
    c = call.optional(2)
    a = a.T if call.attributes.get("transA", 0) else a
    b = b.T if call.attributes.get("transB", 0) else b
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    if a.dtype.kind in "iu" and not (alpha == beta == 1.0):
        raise call.unsupported(f"integers with alpha (={alpha}) and beta (={beta})")
    y: Tensor = a @ b
    if alpha != 1.0:
        y = alpha * y
    if c is not None:
        y = y + (c if beta == 1.0 else beta * c)
    return y


def einsum(call: Call) -> Tensor:
    """Einsum: numpy's einsum."""
    result: Tensor = np.einsum(call.attributes["equation"], *call.inputs, optimize="greedy")
    return result


def batch_normalization(call: Call) -> Tensor:
    """BatchNormalization at inference: y = (x - mean) / sqrt(var + epsilon) * scale + b."""
    statistics_wanted = call.opset < 14 and any(call.node.output[1:])
    if call.attributes.get("training_mode", 0) or statistics_wanted:
        raise call.unsupported("BatchNormalization in training mode")
    x, *parameters = call.inputs
    if call.attributes.get("spatial", 1):  # one value per channel, else (opset < 9) per element
        parameters = [p.reshape(-1, *[1] * (x.ndim - 2)) for p in parameters]
    scale, b, mean, var = parameters
    epsilon = call.attributes.get("epsilon", _DEFAULT_EPSILON)
    y: Tensor = (x - mean) / np.sqrt(var + epsilon) * scale + b
    return y


def reduce_sum(call: Call) -> Tensor:
    """ReduceSum: the sum over axes."""
    x = call.inputs[0]
    axes = _reduced_axes(call, x.ndim)
    total: Tensor = x.sum(axes, x.dtype, keepdims=bool(call.attributes.get("keepdims", 1)))
    return total


def reduce_mean(call: Call) -> Tensor:
    """ReduceMean: the mean over axes, rounded towards zero for integers."""
    x = call.inputs[0]
    count = np.asarray(prod(x.shape[axis] for axis in _reduced_axes(call, x.ndim)), x.dtype)
    total = reduce_sum(call)
    if x.dtype.kind in "iu":
        return _truncating_divide(total, count)
    average: Tensor = np.divide(total, count)
    return average


def reduce_max(call: Call) -> Tensor:
    """ReduceMax: the largest over axes; of none, the smallest number there is."""
    x = call.inputs[0]
    lowest = -np.inf if x.dtype.kind == "f" else _lowest(x.dtype)
    axes, keepdims = _reduced_axes(call, x.ndim), bool(call.attributes.get("keepdims", 1))
    largest: Tensor = np.max(x, axes, keepdims=keepdims, initial=lowest)
    return largest


def _lowest(dtype: np.dtype[Any]) -> int:
    return 0 if dtype.kind == "b" else int(np.iinfo(dtype).min)


def _reduced_axes(call: Call, rank: int) -> tuple[int, ...]:
    axes = call.integers("axes", 1)
    if axes or call.attributes.get("noop_with_empty_axes", 0):
        return tuple(axes or ())
    return tuple(range(rank))
