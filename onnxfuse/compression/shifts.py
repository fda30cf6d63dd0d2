"""Blocks of numbers as integers, a scale and, if wanted, a zero point: numpy only, knows no ONNX.

    w  ->  s * (q - z),   q and z integers of b bits, one s and one z for each block

Gennari do Nascimento, Fawcett, Prisacariu: "DSConv: Efficient Convolution Operator", ICCV 2019, has
the rule that is the starting point: the value of largest magnitude becomes q = -2^(b - 1), so that
s may be negative, and then s = <w, q> / <q, q> minimizes ||w - s q||. Here steps that clip the
largest values, and both signs of s, compete with that rule in each block by the error that is left;
with a zero point, so do steps across the range of the block. The scale is rounded to the type that
it is stored in, and the integers are rounded once more for the scale as stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int8]

CLIPPED = {
    2: (1.0, 0.92, 0.85, 0.78, 0.71, 0.65, 0.59, 0.53, 0.48, 0.43, 0.38),
    3: (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55),
    4: (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7),
    8: (1.0, 0.99),
}
"""By bits: the shares of the largest magnitude that become the outermost integer, in turn."""

_ROUNDS = 3  # of scale and integers, each for the other
_AT_ONCE = 1 << 16  # values: what fits into a core's cache a few times over


@dataclass(frozen=True)
class Shifts:
    """Rows of numbers in blocks.

    Attributes:
        integers: int8 of shape (rows, values), from -2^(bits - 1) to 2^(bits - 1) - 1.
        scales: float16 or float32 of shape (rows, ceil(values / size)).
        zeros: int8 of the scales' shape, in the integers' range; None for zero points of 0.
        size: Values in a block; the last one of a row may be shorter.
    """

    integers: Integers
    scales: NDArray[Any]
    zeros: Integers | None
    size: int

    def values(self) -> Floats:
        """float32(q - z) * float32(s), of shape (rows, values)."""
        count = self.integers.shape[1]
        values = self.integers.astype(np.float32)
        if self.zeros is not None:
            values -= np.repeat(self.zeros, self.size, axis=1)[:, :count]
        values *= np.repeat(self.scales.astype(np.float32), self.size, axis=1)[:, :count]
        return values


def least_scale(bits: int, dtype: Any) -> float:
    """The smallest scale that is stored well in a type.

    float16 holds scales below 2^-14 to within 2^-25. Rounding integers leaves s^2 / 12 for each
    value, rounding the scale at most 2^-50 * 4^(bits - 1): less than a twentieth of it from
    2^(bits - 22) on. float32 holds what is normal.
    """
    return 2.0 ** (bits - 22) if np.dtype(dtype) == np.float16 else 2.0**-126


def is_stored_well(values: Floats, shifts: Shifts, bits: int) -> bool:
    """Whether the scales of all blocks that are not zero are in their type's range."""
    scales = np.abs(shifts.scales.astype(np.float64))
    starts = range(0, values.shape[1], shifts.size)
    largest = np.stack(
        [np.abs(values[:, i : i + shifts.size]).max(axis=1, initial=0.0) for i in starts], axis=1
    )
    is_fine = np.isfinite(scales) & (scales >= least_scale(bits, shifts.scales.dtype))
    return bool(np.all(is_fine | (largest == 0)))


def shifted(
    values: Floats, size: int, bits: int, *, zero_point: bool = False, dtype: Any = np.float16
) -> Shifts:
    """Integers, scales and zero points for rows of numbers.

    In each block the squared error is at most that of the paper's rule, and with a zero point at
    most that without one, but for what rounding scales to `dtype` adds. Blocks of zeros are exact.

    Args:
        values: float32 of shape (rows, values), finite.
        size: Values in a block.
        bits: 2, 3, 4 or 8.
        zero_point: Whether blocks get a zero point.
        dtype: The type in which scales are stored: float16 or float32. Scales may leave its range:
            `is_stored_well` tells.
    """
    rows, count = values.shape
    blocks = -(-count // size)
    integers = np.empty((rows, count), np.int8)
    scales = np.empty((rows, blocks), dtype)
    zeros = np.zeros((rows, blocks), np.int8)
    whole = count // size * size
    for start, stop in ((0, whole), (whole, count)):
        if start == stop or not rows:
            continue
        width = min(size, stop - start)
        part = values[:, start:stop].reshape(-1, width)
        made = _blocks(part, bits, zero_point, dtype)
        among = slice(start // size, start // size + (stop - start) // width)
        integers[:, start:stop] = made[0].reshape(rows, stop - start)
        scales[:, among] = made[1].reshape(rows, -1)
        zeros[:, among] = made[2].reshape(rows, -1)
    return Shifts(integers, scales, zeros if zero_point else None, size)


def _blocks(
    blocks: Floats, bits: int, zero_point: bool, dtype: Any
) -> tuple[Integers, NDArray[Any], Integers]:
    """Integers (n, width), scales (n,) and zero points (n,) of blocks (n, width)."""
    total, width = blocks.shape
    integers = np.empty((total, width), np.int8)
    scales, zeros = np.empty(total, dtype), np.empty(total, np.int8)
    step = max(1, _AT_ONCE // width)
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        for start in range(0, total, step):
            some = slice(start, start + step)
            columns = np.ascontiguousarray(blocks[some].T)
            found = _Columns(columns, bits, dtype)
            found.search(zero_point)
            found.settle(zero_point)
            integers[some] = (found.levels + found.zero).T
            scales[some], zeros[some] = found.scale, found.zero
    return integers, scales, zeros


class _Columns:
    """Blocks as the columns of an array (width, blocks), each divided by its largest value.

    `step` and `zero` are the best so far; `levels` are the integers without their zero point, and
    `scale` is as stored.
    """

    def __init__(self, columns: Floats, bits: int, dtype: Any) -> None:
        self.low, self.high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        self.shares, self.dtype = CLIPPED[bits], dtype
        most, least = columns.max(axis=0), columns.min(axis=0)
        peak: Floats = np.where(most > -least, most, least)
        self.is_zero = peak == 0
        self.peak: Floats = np.where(self.is_zero, np.float32(1), peak)
        self.columns: Floats = columns / self.peak
        self.buffer = np.empty_like(columns)
        self.step = np.full(peak.shape, 1 / self.low, np.float32)
        self.zero = np.zeros(peak.shape, np.float32)

    def search(self, zero_point: bool) -> None:
        """Takes the step and the zero point that leave least, at the best scale for each."""
        best = np.full(self.step.shape, -1, np.float32)
        for step, zero in self._candidates(zero_point):
            levels = self._rounded(step, zero)
            gain, square = _products(self.columns, levels)
            gain *= gain / np.maximum(square, np.float32(1))  # ||w||^2 - ||w - s q||^2
            better = gain > best
            np.copyto(best, gain, where=better)
            np.copyto(self.step, np.float32(step), where=better)
            np.copyto(self.zero, np.float32(zero), where=better)

    def settle(self, zero_point: bool) -> None:
        """Fits scales, rounds them as they are stored, and rounds integers for them, in turn."""
        levels = self._rounded(self.step, self.zero).copy()
        zero = self.zero
        self.levels = np.zeros_like(levels)
        self.scale = np.zeros(self.step.shape, self.dtype)
        best = np.full(self.step.shape, np.inf, np.float32)
        for number in range(_ROUNDS):
            if number and zero_point:
                zero = self._line(levels + zero, zero)
                levels = self._rounded(self.step, zero).copy()
            gain, square = _products(self.columns, levels)
            stored = (gain / np.maximum(square, 1) * self.peak).astype(self.dtype)
            step = stored.astype(np.float32) / self.peak
            step = np.where(step == 0, np.float32(1), step)
            levels = self._rounded(step, zero).copy()
            rest = self.columns - levels * step
            error = np.einsum("ij,ij->j", rest, rest)
            better = error < best
            np.copyto(best, error, where=better)
            np.copyto(self.levels, levels, where=better)
            np.copyto(self.scale, stored, where=better)
            np.copyto(self.step, step, where=better)
            self.zero = np.where(better, zero, self.zero)
        self.scale[self.is_zero] = 1
        self.levels[:, self.is_zero] = 0
        self.zero[self.is_zero] = 0

    def _candidates(self, zero_point: bool) -> Iterator[tuple[Any, Any]]:
        """Steps and zero points, the paper's rule first."""
        for share in self.shares:
            yield share / self.low, 0.0
            yield share / self.high, 0.0
        if not zero_point:
            return
        most, least = self.columns.max(axis=0), self.columns.min(axis=0)
        middle, span = (most + least) / 2, most - least
        span = np.where(span == 0, np.float32(1), span)
        for share in self.shares:
            step = share * span / np.float32(self.high - self.low)
            zero = np.rint((self.low + self.high) / 2 - middle / step)
            yield step, np.clip(zero, self.low, self.high)

    def _rounded(self, step: Any, zero: Any) -> Floats:
        """The nearest q - z for a step, of shape (width, blocks); overwritten by the next call."""
        levels = np.multiply(self.columns, np.float32(1) / np.float32(step), out=self.buffer)
        np.rint(levels, out=levels)
        np.maximum(levels, self.low - np.float32(zero), out=levels)
        return np.minimum(levels, self.high - np.float32(zero), out=levels)

    def _line(self, integers: Floats, zero: Floats) -> Floats:
        """The zero points of the lines w = a q + c of least squares, rounded."""
        count = np.float32(len(integers))
        mean, target = integers.sum(axis=0) / count, self.columns.sum(axis=0) / count
        slope = _products(self.columns - target, integers - mean)
        found = np.rint(mean - target * slope[1] / slope[0])
        return np.clip(np.where(np.isfinite(found), found, zero), self.low, self.high)


def _products(values: Floats, levels: Floats) -> tuple[Floats, Floats]:
    """<w, q> and <q, q> of each column."""
    return np.einsum("ij,ij->j", values, levels), np.einsum("ij,ij->j", levels, levels)
