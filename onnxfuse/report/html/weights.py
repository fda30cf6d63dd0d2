"""How the numbers of a weight are distributed, for people who will store it in fewer bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnxfuse.graph import Array

HALF_LARGEST = 65504.0
HALF_SMALLEST_NORMAL = 2.0**-14
HALF_VANISHES = 2.0**-25
INT8_LEVELS = 127
VALUE_BINS = 41
FIRST_POWER, LAST_POWER = -30, 18


@dataclass(frozen=True)
class Channels:
    """Ranges, max|w|, of the output channels; those that are zero throughout are left out.

    Attributes:
        count: Channels in all.
        zero: Channels that are zero throughout.
        smallest: Smallest range.
        largest: Largest range.
    """

    count: int
    zero: int
    smallest: float
    largest: float

    @property
    def ratio(self) -> float:
        """The largest range over the smallest."""
        return self.largest / self.smallest if self.smallest else 1.0


@dataclass(frozen=True)
class Distribution:
    """What the numbers of one weight are like.

    Attributes:
        dtype: Its element type.
        count: Numbers in it.
        minimum: The smallest; of those that are finite, as all below.
        maximum: The largest.
        not_finite: Infinities and NaN.
        zeros: Numbers that are 0.
        denormals: Numbers below the smallest normal one of their own type, and not 0.
        half_overflow: Numbers beyond float16's largest, 65504.
        half_denormals: Numbers that are denormal in float16 and not 0 there.
        half_vanishing: Numbers that are not 0 and become 0 in float16.
        int8_scale: max|w| / 127: the step of a symmetric int8 scale for the tensor.
        int8_vanishing: Numbers that are not 0 and become 0 with that step.
        channels: The same for each output channel; None where it has no channels.
        values: Numbers in 41 bins of equal width from -max|w| to max|w|.
        powers: Numbers by power of two, from below 2^-30 to 2^18 and above; zeros are left out.
    """

    dtype: str
    count: int
    minimum: float
    maximum: float
    not_finite: int
    zeros: int
    denormals: int
    half_overflow: int
    half_denormals: int
    half_vanishing: int
    int8_scale: float
    int8_vanishing: int
    channels: Channels | None
    values: tuple[int, ...]
    powers: tuple[int, ...]


def distribution(weight: Array, channel_axes: Sequence[int] | None = None) -> Distribution:
    """Counts the numbers of a weight.

    Args:
        weight: Floating numbers of any shape.
        channel_axes: The axes along which each place is a channel of its own; None for none.
    """
    numbers = weight.astype(np.float64).ravel()
    finite = numbers[np.isfinite(numbers)]
    size = np.abs(finite)
    largest = float(size.max(initial=0.0))
    filled = size[size > 0]
    scale = largest / INT8_LEVELS
    smallest_normal = _smallest_normal(weight.dtype)
    reach = largest or 1.0
    return Distribution(
        dtype=str(weight.dtype),
        count=numbers.size,
        minimum=float(finite.min(initial=math.inf)) if finite.size else 0.0,
        maximum=float(finite.max(initial=-math.inf)) if finite.size else 0.0,
        not_finite=numbers.size - finite.size,
        zeros=finite.size - filled.size,
        denormals=_count(filled < smallest_normal),
        half_overflow=_count(filled > HALF_LARGEST),
        half_denormals=_count((filled > HALF_VANISHES) & (filled < HALF_SMALLEST_NORMAL)),
        half_vanishing=_count(filled <= HALF_VANISHES),
        int8_scale=scale,
        int8_vanishing=_count(filled <= scale / 2),
        channels=None if channel_axes is None else _channels(weight, channel_axes),
        values=tuple(np.histogram(finite, VALUE_BINS, (-reach, reach))[0].tolist()),
        powers=_powers(filled),
    )


def _smallest_normal(dtype: np.dtype[Any]) -> float:
    info: Any = ml_dtypes.finfo
    return float(info(dtype).smallest_normal)


def _count(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _channels(weight: Array, axes: Sequence[int]) -> Channels:
    others = tuple(axis for axis in range(weight.ndim) if axis not in axes)
    size = np.abs(weight.astype(np.float64))
    ranges = np.max(np.where(np.isfinite(size), size, 0.0), axis=others, initial=0.0).ravel()
    filled = ranges[ranges > 0]
    return Channels(
        count=ranges.size,
        zero=ranges.size - filled.size,
        smallest=float(filled.min()) if filled.size else 0.0,
        largest=float(filled.max(initial=0.0)),
    )


def _powers(filled: NDArray[np.float64]) -> tuple[int, ...]:
    """How many are in [2^n, 2^(n+1)), the ends taking what is beyond them."""
    power = np.clip(np.frexp(filled)[1] - 1, FIRST_POWER, LAST_POWER) - FIRST_POWER
    return tuple(np.bincount(power, minlength=LAST_POWER - FIRST_POWER + 1).tolist())
