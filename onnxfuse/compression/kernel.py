"""A weight in integers: the quantized kernel and its distribution shifts.

    D = float32(q - z) * float32(s)        s and z: one for each block (kernel distribution shift)
    W = D * a + c                          a and c: one for each output channel, if there are any
                                           (channel distribution shift), float32
    weight = W, in the type of the weight

Gennari do Nascimento, Fawcett, Prisacariu: "DSConv: Efficient Convolution Operator", ICCV 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxfuse.affine import Refusal
from onnxfuse.compression.layout import Layout
from onnxfuse.compression.shifts import Floats, Shifts, is_stored_well, shifted


@dataclass(frozen=True)
class ChannelShift:
    """One scale and one shift per output channel, float32 of the layout's `channel_shape`."""

    scale: Floats
    shift: Floats


@dataclass(frozen=True)
class Kernel:
    """A weight in integers.

    Attributes:
        layout: How it is stored.
        bits: Bits of the integers.
        dtype: The weight's type: float32 or float16.
        integers: int8 of the layout's `stored` shape, from -2^(bits - 1) to 2^(bits - 1) - 1.
        scales: float16 or float32 of the layout's `scale_shape`.
        zeros: int8 of the scales' shape; None for zero points of 0.
        channel: The channel distribution shift, if there is one.
    """

    layout: Layout
    bits: int
    dtype: np.dtype[Any]
    integers: NDArray[np.int8]
    scales: NDArray[Any]
    zeros: NDArray[np.int8] | None = None
    channel: ChannelShift | None = None

    def weight(self) -> NDArray[Any]:
        """The weight that the runtime computes, in its shape and type."""
        layout = self.layout
        zeros = None if self.zeros is None else layout.rows_of_blocks(self.zeros)
        scales = layout.rows_of_blocks(self.scales)
        rows = Shifts(layout.rows(self.integers), scales, zeros, layout.size).values()
        values = layout.placed(rows)
        if self.channel is not None:
            values = values * self.channel.scale + self.channel.shift
        return values.astype(self.dtype).reshape(layout.shape)


def quantized(
    weight: NDArray[Any],
    layout: Layout,
    bits: int,
    *,
    zero_point: bool = False,
    channel_shift: bool = False,
    scales: Any = np.float16,
) -> Kernel | Refusal:
    """Puts a weight into integers, by least squares in each block.

    Args:
        weight: float32 or float16, of the layout's shape.
        layout: How it is to be stored.
        bits: 2, 3, 4 or 8.
        zero_point: Whether blocks get a zero point.
        channel_shift: Whether output channels get a scale and a shift, where the layout has an
            axis for them.
        scales: The type in which scales are stored, float16 or float32; float32 where float16
            would lose them.

    Returns:
        The kernel; or why there is none: numbers that are not finite, or too small or too large.
    """
    values = weight.astype(np.float32)
    if not np.all(np.isfinite(values)):
        return Refusal("it holds numbers that are not finite")
    kernel: Kernel | None = None
    for dtype in dict.fromkeys((np.dtype(scales), np.dtype(np.float32))):
        kernel = _in_blocks(values, layout, bits, zero_point, dtype)
        if kernel is not None:
            break
    if kernel is None:
        return Refusal("it holds numbers too small for scales in float32")
    if channel_shift and layout.channels is not None:
        kernel = _with_channels(values, kernel, zero_point)
    kernel = replace(kernel, dtype=weight.dtype)
    with np.errstate(over="ignore"):
        if not np.all(np.isfinite(kernel.weight())):
            return Refusal("it holds numbers too large for integers and scales")
    return kernel


def _in_blocks(
    values: Floats, layout: Layout, bits: int, zero_point: bool, dtype: Any
) -> Kernel | None:
    """The kernel without a shift of channels; None where the type cannot hold its scales."""
    rows = layout.rows(values)
    made = shifted(rows, layout.size, bits, zero_point=zero_point, dtype=dtype)
    if not is_stored_well(rows, made, bits):
        return None
    zeros = None if made.zeros is None else layout.placed(made.zeros)
    return Kernel(
        layout,
        bits,
        np.dtype(np.float32),
        layout.placed(made.integers),
        layout.placed(made.scales),
        zeros,
    )


def _with_channels(values: Floats, kernel: Kernel, zero_point: bool) -> Kernel:
    """With a scale and a shift for each output channel, fitted by least squares.

    Channels are put into integers as they are, or without their mean, whichever leaves less.
    """
    layout, dtype = kernel.layout, kernel.scales.dtype
    stored = values.reshape(layout.stored)
    others = tuple(axis for axis in range(stored.ndim) if axis != layout.channels)
    mean = stored.mean(axis=others, keepdims=True, dtype=np.float64)
    centred = _in_blocks((stored - mean).astype(np.float32), layout, kernel.bits, zero_point, dtype)
    first, first_error = _fitted(stored, kernel, others)
    if centred is None:
        return first
    second, second_error = _fitted(stored, centred, others)
    return _chosen(second_error < first_error, second, first)


def _fitted(
    stored: Floats, kernel: Kernel, others: tuple[int, ...]
) -> tuple[Kernel, NDArray[np.float64]]:
    """The kernel with the best scale and shift for each channel, and the squared error of each."""
    made = kernel.weight().reshape(stored.shape).astype(np.float64)
    target = stored.astype(np.float64)
    means = [x.mean(axis=others, keepdims=True) for x in (made, target)]
    spread = ((made - means[0]) ** 2).sum(axis=others, keepdims=True)
    common = ((made - means[0]) * (target - means[1])).sum(axis=others, keepdims=True)
    scale = np.where(spread > 0, common / np.where(spread > 0, spread, 1), 1).astype(np.float32)
    shift = (means[1] - scale.astype(np.float64) * means[0]).astype(np.float32)
    found = replace(kernel, channel=ChannelShift(scale, shift))
    rest = found.weight().reshape(stored.shape).astype(np.float64) - target
    return found, (rest**2).sum(axis=others, keepdims=True)


def _chosen(takes_first: NDArray[np.bool_], first: Kernel, second: Kernel) -> Kernel:
    """Channel by channel the first or the second of two kernels."""
    assert first.channel is not None
    assert second.channel is not None
    zeros = None
    if first.zeros is not None and second.zeros is not None:
        zeros = np.where(takes_first, first.zeros, second.zeros)
    channel = ChannelShift(
        np.where(takes_first, first.channel.scale, second.channel.scale),
        np.where(takes_first, first.channel.shift, second.channel.shift),
    )
    return Kernel(
        first.layout,
        first.bits,
        first.dtype,
        np.where(takes_first, first.integers, second.integers),
        np.where(takes_first, first.scales, second.scales),
        zeros,
        channel,
    )
