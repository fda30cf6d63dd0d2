"""How a layer's weight is cut into blocks of values that share a scale.

A layer with as many input channels as a block has values, or more, is cut along them, each tap by
itself. The others (stems, depthwise and narrow layers) are stored flat, (M, C / groups * taps), and
cut along the rows. Blocks are of equal size, as far as they can be: 40 values in blocks of at most
32 are two blocks of 20.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Layout:
    """How a weight is stored.

    Attributes:
        shape: Shape of the weight.
        stored: Shape of its integers: `shape`, or that of the flat form.
        axis: The axis of `stored` that is cut into blocks.
        size: Values in a block; the last one along the axis may be shorter.
        channels: The axis of `stored` with the layer's output channels; None where no axis has
            them, as in a ConvTranspose with groups.
    """

    shape: tuple[int, ...]
    stored: tuple[int, ...]
    axis: int
    size: int
    channels: int | None

    @property
    def is_flat(self) -> bool:
        """Whether the integers have another shape than the weight."""
        return self.stored != self.shape

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Shape of the scales: one for each block, at the place of its values."""
        blocks = -(-self.stored[self.axis] // self.size)
        return (*self.stored[: self.axis], blocks, *self.stored[self.axis + 1 :])

    @property
    def channel_shape(self) -> tuple[int, ...]:
        """Shape of one number per output channel, to be broadcast against `stored`."""
        return tuple(n if i == self.channels else 1 for i, n in enumerate(self.stored))

    def rows(self, weight: NDArray[Any]) -> NDArray[Any]:
        """The weight as (rows, values), values along `axis`; contiguous."""
        moved = np.moveaxis(weight.reshape(self.stored), self.axis, -1)
        return np.ascontiguousarray(moved.reshape(-1, self.stored[self.axis]))

    def rows_of_blocks(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """What is stored as one number for each block, as (rows, blocks)."""
        moved = np.moveaxis(numbers, self.axis, -1)
        return np.ascontiguousarray(moved.reshape(-1, moved.shape[-1]))

    def placed(self, rows: NDArray[Any]) -> NDArray[Any]:
        """What is one number for each value of the rows, or for each block, as it is stored."""
        kept = (*self.stored[: self.axis], *self.stored[self.axis + 1 :])
        return np.ascontiguousarray(np.moveaxis(rows.reshape(*kept, -1), -1, self.axis))


def conv_layout(shape: tuple[int, ...], block: int) -> Layout:
    """Of a Conv, weight (M, C / groups, *kernel): blocks along the input channels, or flat."""
    outputs, inputs, *taps = shape
    if inputs >= block or math.prod(taps) == 1:
        return Layout(shape, shape, 1, even(inputs, block), 0)
    values = inputs * math.prod(taps)
    return Layout(shape, (outputs, values), 1, even(values, block), 0)


def transposed_layout(shape: tuple[int, ...], block: int, groups: int) -> Layout:
    """Of a ConvTranspose, weight (C, M / groups, *kernel).

    Blocks lie along the input channels where they do not reach from one group into the next, or
    else in what one input channel gives, flat.
    """
    inputs, outputs, *taps = shape
    size = even(inputs // groups, block)
    if inputs // groups >= block and (groups == 1 or inputs // groups % size == 0):
        return Layout(shape, shape, 0, size, 1 if groups == 1 else None)
    values = outputs * math.prod(taps)
    stored = shape if math.prod(taps) == 1 else (inputs, values)
    channels = 1 if groups == 1 and stored == shape else None
    return Layout(shape, stored, 1, even(values, block), channels)


def matrix_layout(shape: tuple[int, ...], block: int, axis: int) -> Layout:
    """Of a Gemm or a MatMul, weight (.., K, N) or (.., N, K): blocks along K, at `axis`."""
    channels = 2 * len(shape) - 3 - axis
    return Layout(shape, shape, axis, even(shape[axis], block), channels)


def even(values: int, block: int) -> int:
    """The size of equal blocks of at most `block` values, as few as there can be."""
    return -(-values // max(1, -(-values // block)))
