"""How far rounding carries a model's outputs when every operator rounds: the runtime's own error.

A sum of n products in floating point is off by about sqrt(n) roundoffs (Higham and Mary, "A new
approach to probabilistic rounding error analysis", 2019). So the model is evaluated in float64 with
every tensor off by that much at random, and every weight too, which tells where sums cancel.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.messages import bodies
from onnxfuse.parity.evaluator import Evaluator, Read, Value
from onnxfuse.parity.normalizations import Wide, mean_error
from onnxfuse.parity.rounding import move

DRAWS = 2
"""One for each way to draw signs; see `_drawn`."""

_PRODUCTS = frozenset({"Conv", "ConvTranspose"})
_LAST_AXIS = frozenset(
    {
        *("Gemm", "MatMul", "Softmax", "LogSoftmax", "LayerNormalization", "LSTM", "GRU", "RNN"),
        *("RMSNormalization", "Attention", "Einsum"),
    }
)
_BOUNDED = frozenset({"Erf", "HardSigmoid", "Sigmoid", "Softmax", "Tanh"})
"""Functions with values in [-1, 1]; runtimes approximate them to some roundoffs of 1, not of the
value, which may be 1e-10."""

_APPROXIMATION = 4
"""Roundoffs of 1 by which they are off."""


_COHERENT = 16
"""A mean over a nearly constant map adds the same number again and again, which rounds to the same
side: a sixteenth of n roundoffs, where that is more than sqrt(n)."""

_IN_BODY = 256
"""Terms that a node with a body is taken for: a chain of sixteen operators."""


def rounded_outputs(
    model: Evaluator,
    feeds: Mapping[str, Any],
    unit: float,
    keep: Callable[[str, Value], None] | None = None,
) -> list[Value]:
    """The outputs in float64, and what becomes of them when all operators round; `DRAWS` times.

    Args:
        model: The model.
        feeds: Its inputs.
        unit: Roundoff of the floating type that it computes in.
        keep: Is shown every tensor too.

    Raises:
        Unevaluated: It cannot be evaluated.
    """

    def weights(value: Any, name: str, draw: int) -> Any:
        return move(value, name, draw, unit * math.sqrt(_fan_in(value.shape)))

    def begin(name: str, value: Any) -> Value:
        return _drawn((value,), name, unit, 0.0) if _is_floating(value) else (value,)

    def watch(node: onnx.NodeProto, read: Read, name: str, value: Value) -> Value:
        base = value[0]
        if _is_floating(base) and node.op_type != "Constant":
            amount = unit * math.sqrt(_terms(node, read, base))
            shift = _APPROXIMATION * unit if node.op_type in _BOUNDED else 0.0
            value = _drawn(value, name, amount, shift + mean_error(node, read, unit))
        if keep is not None:
            keep(name, value)
        return value

    return model.run(feeds, draws=DRAWS, move=weights, watch=watch, begin=begin)


def _is_floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _drawn(value: Value, name: str, amount: float, shift: Wide | float) -> Value:
    """A tensor and its draws, each times 1 + amount or 1 - amount, plus or minus a shift.

    In the first draw equal numbers are rounded alike, on a map of one colour everywhere to the same
    side, as the runtime does it: the sign is a hash of the number. In the second each is rounded on
    its own. Integers are not rounded; sizes are computed in floats too.
    """
    base = value[0]
    bits = np.ascontiguousarray(base, np.float32).view(np.uint32)
    places = np.arange(base.size, dtype=np.uint32).reshape(base.shape)
    rounded = amount * (base != np.rint(base))
    found = [base]
    for seeds, draw in zip((bits, places), value[1:] or (base,) * DRAWS, strict=True):
        signs = _signs(seeds, zlib.crc32(name.encode())).reshape(base.shape)
        fits = draw.shape == base.shape
        found.append(draw * (1 + rounded * signs) + shift * signs if fits else base)
    return tuple(found)


def _signs(seeds: NDArray[np.uint32], salt: int) -> NDArray[np.float64]:
    """1 or -1 for each number, the same for the same."""
    hashed = (seeds ^ np.uint32(salt)) * np.uint32(2654435761)
    hashed = (hashed ^ (hashed >> np.uint32(15))) * np.uint32(2246822519)
    return np.where(hashed >> np.uint32(31), 1.0, -1.0)


def _fan_in(shape: tuple[int, ...]) -> int:
    """Products in one sum over a weight of this shape, about."""
    if len(shape) > 2:
        return math.prod(shape[1:])
    return max(shape) if len(shape) == 2 else 1


def _terms(node: onnx.NodeProto, read: Read, made: Any) -> float:
    """Terms in the sum behind one element of a node's output, about."""
    operands = [read[name][0] for name in node.input if name]
    shapes: list[tuple[int, ...]] = [v.shape for v in operands if isinstance(v, np.ndarray)]
    if node.op_type in _PRODUCTS and len(shapes) > 1:
        return max(1, math.prod(shapes[1][1:]))
    if node.op_type in _LAST_AXIS and shapes and shapes[0]:
        return max(1, shapes[0][-1])
    largest = max((math.prod(shape) for shape in shapes), default=1)
    terms = max(1, largest // max(int(made.size), 1))
    if any(bodies(node)):
        terms = max(terms, _IN_BODY)
    return max(terms, (terms / _COHERENT) ** 2)
