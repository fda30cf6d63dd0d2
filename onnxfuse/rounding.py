"""Rounding a fold's constants to the model's own type, once, or refusing to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.affine import Refusal, Term
from onnxfuse.graph import Array
from onnxfuse.lower import Lowered

SLOW = 2.0**-126
"""The smallest normal number of float32 and bfloat16. Below it processors take a hundred times as
long; what is subnormal in float16 is normal in the float32 that they compute in."""


@dataclass(frozen=True)
class Rounded:
    """The constants of a fold in the model's own type.

    Attributes:
        constants: By name.
        flushed: How many subnormal numbers among them were set to zero.
    """

    constants: Mapping[str, Array]
    flushed: int = 0


def round_constants(lowered: Lowered, elem_type: int) -> Rounded | Refusal:
    """The constants of a fold in the tensor's type.

    1. They are finite, before and after.
    2. No output channel loses its digits to underflow: its largest entry, or its bias, is a normal
       number. What is subnormal beside that is off by less than its rounding.
    3. Subnormal numbers become zero where they are less than the rounding of every output channel's
       largest entry, and of the constant's: processors are slow with them.

    Args:
        lowered: The fold, its constants in float64.
        elem_type: TensorProto.DataType of source and target.
    """
    dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    rounded: dict[str, Array] = {}
    for name, value in lowered.constants.items():
        with np.errstate(over="ignore", invalid="ignore"):
            rounded[name] = value.astype(dtype)
        if not np.all(np.isfinite(rounded[name])):
            if not np.all(np.isfinite(value)):
                return Refusal("its weights are not finite")
            return Refusal(f"the folded weight, up to {np.abs(value).max():.4g}, overflows {dtype}")
    if not rounded:
        return Rounded(rounded)
    roundoff, smallest = precision(dtype)
    largest = _largest(lowered.term)
    if np.any((largest > 0) & (largest < smallest)):
        return Refusal(f"the folded weight underflows {dtype}")
    if smallest > SLOW:
        return Rounded(rounded)
    weakest = float(np.min(largest, where=largest > 0, initial=np.inf))
    return flushed(rounded, smallest, roundoff * weakest, roundoff)


def flushed(
    constants: Mapping[str, Array], smallest: float, limit: float, roundoff: float
) -> Rounded:
    """Constants with zero in the place of subnormal numbers.

    Args:
        constants: By name.
        smallest: The smallest normal number.
        limit: What is not below this stays, whatever it is.
        roundoff: What is not below this, times the largest of its constant, stays too.
    """
    changed, count = dict(constants), 0
    for name, value in constants.items():
        sizes = np.abs(value)
        tiny = (sizes > 0) & (sizes < smallest)
        if not tiny.any():
            continue
        least = min(limit, roundoff * float(sizes.max()))
        tiny[tiny] = sizes[tiny].astype(np.float64) < least
        count += int(tiny.sum())
        changed[name] = np.where(tiny, value.dtype.type(0), value)
    return Rounded(changed, count)


def precision(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    """The largest relative error of a rounding to a type, and the smallest normal number."""
    one = np.ones(1, dtype)
    digits = float(np.nextafter(one, one + one)[0]) - 1.0
    return digits / 2, float(np.nextafter(np.zeros(1, dtype), one)[0]) / digits


def keeps_digits(value: NDArray[np.float64], like: Array) -> bool:
    """True where new numbers can be written in the type of old ones.

    Args:
        value: The new numbers; they are finite in that type.
        like: The old ones, of the same shape: a normal number does not become a subnormal one.
    """
    _, smallest = precision(like.dtype)
    with np.errstate(over="ignore"):
        is_finite = bool(np.all(np.isfinite(value.astype(like.dtype))))
    size = np.abs(value)
    return is_finite and not np.any((size > 0) & (size < smallest) & (np.abs(like) >= smallest))


def _largest(term: Term) -> NDArray[np.float64]:
    """Of every output channel the largest entry of its weight and bias, of shape (C_out,)."""
    rows = term.weight.reshape(term.out_channels, -1)
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    return np.asarray(np.maximum(largest, np.abs(term.bias)), np.float64)
