"""Activations, each by its definition."""

import math
from collections.abc import Callable

import numpy as np

from onnxfuse.reference.call import Call, Tensor

_erf = np.vectorize(math.erf, otypes=[np.float64])


def clip(call: Call) -> Tensor:
    """Clip: min(max(x, low), high); bounds are attributes before opset 11."""
    x = call.inputs[0]
    low = call.attributes.get("min") if call.opset < 11 else call.optional(1)
    high = call.attributes.get("max") if call.opset < 11 else call.optional(2)
    if low is not None:
        x = np.maximum(x, low)
    if high is not None:
        x = np.minimum(x, high)
    clipped: Tensor = x
    return clipped


def of_one(function: Callable[[Tensor], Tensor]) -> Callable[[Call], Tensor]:
    """The operator of one input and no attributes."""
    return lambda call: function(call.inputs[0])


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(x))
    y: Tensor = np.where(x >= 0, 1.0, small) / (1.0 + small)
    return y


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), without overflow."""
    y: Tensor = np.logaddexp(0.0, x)
    return y


def erf(x: Tensor) -> Tensor:
    """The error function."""
    y: Tensor = _erf(x)
    return y


def mish(x: Tensor) -> Tensor:
    """x * tanh(softplus(x))."""
    y: Tensor = x * np.tanh(softplus(x))
    return y


def prelu(call: Call) -> Tensor:
    """PRelu: x where it is positive, the slope times x elsewhere."""
    x, slope = call.inputs
    y: Tensor = np.where(x < 0, slope * x, x)
    return y


def gelu(call: Call) -> Tensor:
    """Gelu: x times the normal distribution function at x, or its approximation by tanh."""
    x = call.inputs[0]
    if call.attributes.get("approximate", "none") == "tanh":
        inner = np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = erf(x / math.sqrt(2.0))
    y: Tensor = 0.5 * x * (1.0 + inner)
    return y


def hard_sigmoid(call: Call) -> Tensor:
    """HardSigmoid: alpha * x + beta, between 0 and 1."""
    alpha = call.attributes.get("alpha", float(np.float32(0.2)))
    y: Tensor = np.clip(alpha * call.inputs[0] + call.attributes.get("beta", 0.5), 0.0, 1.0)
    return y


def hard_swish(call: Call) -> Tensor:
    """HardSwish: x times x / 6 + 1/2 between 0 and 1."""
    x = call.inputs[0]
    y: Tensor = x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)
    return y


def leaky_relu(call: Call) -> Tensor:
    """LeakyRelu: x, or alpha * x below zero."""
    x = call.inputs[0]
    y: Tensor = np.where(x < 0, call.attributes.get("alpha", float(np.float32(0.01))) * x, x)
    return y


def power(call: Call) -> Tensor:
    """Pow: x to the power y, in the type of x."""
    x, y = call.inputs
    if x.dtype.kind in "iu":
        y = y.astype(np.float64)
    result: Tensor = np.power(x, y).astype(x.dtype)
    return result


def softmax(call: Call) -> Tensor:
    """Softmax: exp(x) over its sum along an axis; before opset 13, along all from that one on."""
    y: Tensor = np.exp(log_softmax(call))
    return y


def log_softmax(call: Call) -> Tensor:
    """LogSoftmax: x less the logarithm of the sum of exp(x), along the axes of Softmax."""
    x = call.inputs[0]
    axis = call.attributes.get("axis", -1 if call.opset >= 13 else 1)
    first = axis % x.ndim
    axes = tuple(range(first, x.ndim)) if call.opset < 13 else (first,)
    shifted = x - np.max(x, axis=axes, keepdims=True)
    y: Tensor = shifted - np.log(np.sum(np.exp(shifted), axis=axes, keepdims=True))
    return y
