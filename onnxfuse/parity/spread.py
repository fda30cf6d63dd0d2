"""How far two arrays are apart, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.float64]

_FLIPPED = 0.25
"""Elements that no draw moved, over those that some draw moved: near a threshold a draw misses an
element that flips in one case of four."""

_MANY = 100
"""From so many elements computed from rounded numbers on, one may flip where no draw shows it."""

_SUMMED = 4
"""By how many floors a channel may be off besides: a bias that was summed up in float32 over a
thousand inputs, which cancel, was off by eleven roundoffs of what the channel holds."""


@dataclass(frozen=True)
class Spread:
    """Root mean squares of an array.

    Attributes:
        whole: Over all elements.
        slices: By axis of channels (1, and the last), for each channel.
    """

    whole: float
    slices: dict[int, Wide] = field(default_factory=dict)

    @staticmethod
    def of(array: Wide) -> Spread:
        """Of one array."""
        if not array.size:
            return Spread(0.0)
        with np.errstate(all="ignore"):
            largest = float(np.abs(array).max())
            if not 0.0 < largest < np.inf:
                largest = 1.0
            squares = (array / largest) ** 2
            slices = {
                axis: largest * np.sqrt(squares.mean(_others(array.ndim, axis)))
                for axis in ({1, array.ndim - 1} if array.ndim > 1 else ())
            }
            return Spread(largest * float(np.sqrt(squares.mean())), slices)

    @staticmethod
    def joint(spreads: Sequence[Spread]) -> Spread:
        """Of several arrays of one shape taken together."""
        whole = Spread.of(np.array([spread.whole for spread in spreads])).whole
        with np.errstate(all="ignore"):
            slices = {
                axis: np.sqrt(np.mean([s.slices[axis] ** 2 for s in spreads], axis=0))
                for axis in spreads[0].slices
            }
        return Spread(whole, slices)

    @staticmethod
    def largest(spreads: Sequence[Spread]) -> Spread:
        """The largest of several, in the whole and in each channel."""
        return Spread(
            max(spread.whole for spread in spreads),
            {
                axis: np.max([spread.slices[axis] for spread in spreads], axis=0)
                for axis in spreads[0].slices
            },
        )


@dataclass(frozen=True)
class Excess:
    """An error over what is explained.

    Attributes:
        ratio: The largest, in any channel and in the whole; above 1 it is an error.
        channel: Where it is largest along axis 1, or the last; None where that is the whole.
    """

    ratio: float
    channel: int | None = None


def typical(spread: Spread, axis: int) -> float:
    """What is usual in a channel: no more than the whole, and not what a few huge channels have."""
    values = spread.slices[axis]
    usual = 4 * float(np.quantile(values, 0.75)) if values.size else 0.0
    return min(spread.whole, usual) if usual > 0 else spread.whole


def excess(error: Spread, explained: Spread, size: Spread, floor: float) -> Excess:
    """An error over what is explained, in each channel and in the whole.

    A channel is allowed what is explained there, and besides what is usual in others: a few numbers
    may cancel by chance in the explanation of one channel, not in all of them. It is also allowed
    `_SUMMED` times the floor, for a bias that a tool summed up in the model's own type; such errors
    are of either sign, and small in the whole.

    Args:
        error: The error.
        explained: What roundings explain.
        size: Of the tensor.
        floor: Allowed besides, relative to the size.
    """
    found = [Excess(_over(error.whole, 2 * explained.whole + floor * size.whole))]
    for axis, values in error.slices.items():
        allowed = explained.slices[axis] + typical(explained, axis)
        usual = np.maximum(size.slices[axis], typical(size, axis))
        allowed = allowed + _SUMMED * floor * usual
        with np.errstate(all="ignore"):
            ratios = np.where(values > 0, values / allowed, 0.0)
        ratios = np.where(np.isnan(ratios), np.where(np.isinf(allowed), 0.0, np.inf), ratios)
        worst = int(np.argmax(ratios)) if ratios.size else 0
        if ratios.size:
            found.append(Excess(float(ratios[worst]), worst))
    return max(found, key=lambda one: one.ratio)


def gap(value: Any, other: Any) -> Wide:
    """The difference of two floating arrays of one shape; 0 where both are NaN, or infinite alike.

    Infinite where one is not finite and the other is something else.
    """
    with np.errstate(all="ignore"):
        wide, truth = np.asarray(value, np.float64), np.asarray(other, np.float64)
        difference = wide - truth
        odd = ~np.isfinite(difference)
        if odd.any():
            alike = (wide == truth) | (np.isnan(wide) & np.isnan(truth))
            difference = np.where(odd, np.where(alike, 0.0, np.inf), difference)
    return difference


def flips(different: NDArray[np.bool_], moved: NDArray[np.bool_], computed: bool) -> Excess:
    """Elements of an integer, boolean or string tensor that differ, over what is explained.

    Args:
        different: Elements that differ.
        moved: Elements that differ in some draw.
        computed: Whether they are computed from rounded numbers.
    """
    missed = int((different & ~moved).sum())
    return Excess(_over(float(missed), allowed_flips(moved, computed)))


def allowed_flips(moved: NDArray[np.bool_], computed: bool) -> float:
    """How many elements may differ beside those that some draw moved; see `flips`."""
    return _FLIPPED * int(moved.sum()) + (computed and moved.size >= _MANY)


def unequal(value: Any, other: Any) -> NDArray[np.bool_]:
    """Elements that differ; NaN equals NaN."""
    different: NDArray[np.bool_] = np.asarray(value != other, bool)
    if value.dtype.kind in "fc":
        different &= ~(np.isnan(value) & np.isnan(other))
    return different


def _over(error: float, allowed: float) -> float:
    if not error > 0:
        return 0.0 if error == 0 else np.inf
    return error / allowed if allowed > 0 else np.inf


def _others(rank: int, axis: int) -> tuple[int, ...]:
    return tuple(a for a in range(rank) if a != axis)
