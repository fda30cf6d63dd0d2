"""The geometry of a convolution that is being read: strides, taps, and room for impulses."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxfuse.affine import Array, Size

Indices = NDArray[np.intp]
_FEW_PIXELS = 64


@dataclass(frozen=True)
class Frame:
    """Which input positions the outputs read: output q reads s * q + tap for every tap.

    Attributes:
        strides: s, per spatial axis.
        taps: Offsets, sorted.
        size: Spatial size of the input.
        out_size: Spatial size of the output.
    """

    strides: Size
    taps: tuple[Size, ...]
    size: Size
    out_size: Size

    @cached_property
    def begins(self) -> Size:
        """Padding in front that puts the first tap at 0."""
        return tuple(-min(axis) for axis in zip(*self.taps, strict=True))

    @cached_property
    def dilations(self) -> Size:
        """The largest steps on which all taps lie."""
        return tuple(
            math.gcd(*(t - min(axis) for t in axis)) or 1 for axis in zip(*self.taps, strict=True)
        )

    @cached_property
    def kernel(self) -> Size:
        """Taps per axis of the smallest kernel with all of them."""
        return tuple(
            (max(axis) - min(axis)) // d + 1
            for axis, d in zip(zip(*self.taps, strict=True), self.dilations, strict=True)
        )

    @cached_property
    def cells(self) -> tuple[Size, ...]:
        """Where in the kernel each tap is."""
        return tuple(
            tuple((t + b) // d for t, b, d in zip(tap, self.begins, self.dilations, strict=True))
            for tap in self.taps
        )

    def readers(self, position: Size) -> tuple[Indices, Indices]:
        """The taps through which some output reads a position, and the flat index of that output.

        Each of shape (R,).
        """
        rank = len(position)
        distance = np.array(position, int) - np.array(self.taps, int).reshape(len(self.taps), rank)
        outputs, phase = np.divmod(distance, np.array(self.strides, int))
        inside = np.all((phase == 0) & (outputs >= 0) & (outputs < np.array(self.out_size)), axis=1)
        taps = np.flatnonzero(inside)
        if not rank:
            return taps, np.zeros_like(taps)
        flat: Indices = np.ravel_multi_index(tuple(outputs[taps].T), self.out_size)
        return taps, flat

    def places(self) -> tuple[list[Size], list[Size]] | None:
        """Where to put impulses: (slots, positions); each position is tried in some one slot.

        Slots are far enough apart for the answers to keep clear of each other, and each of them
        shows the whole kernel; positions within a slot are the phases of the strides. Where an
        image has no room for one slot, every pixel is a position. None where those are too many.
        """
        origins = []
        for axis, (stride, n, m) in enumerate(
            zip(self.strides, self.size, self.out_size, strict=True)
        ):
            offsets = [tap[axis] for tap in self.taps]
            low, high = min(offsets), max(offsets)
            last = min(stride * (m - 1) + low, n - stride)
            step = stride * ((high - low) // stride + 2)
            origins.append(range(max(high, 0), last + 1, step))
        if all(origins):
            phases = itertools.product(*map(range, self.strides))
            return list(itertools.product(*origins)), list(phases)
        if math.prod(self.size) > _FEW_PIXELS:
            return None
        return [(0,) * len(self.size)], list(itertools.product(*map(range, self.size)))

    def border_patterns(self) -> tuple[Array, Array]:
        """Outputs that miss different taps, one of each kind.

        Returns:
            Flat indices of the outputs (P,), and which taps fall outside the input for each:
            (taps, P), bool.
        """
        offsets = np.array(self.taps)
        masks, chosen = [], []
        for axis, (s, n, m) in enumerate(zip(self.strides, self.size, self.out_size, strict=True)):
            position = s * np.arange(m) + offsets[:, axis, None]
            outside = (position < 0) | (position >= n)
            _, first = np.unique(outside, axis=1, return_index=True)
            masks.append(outside)
            chosen.append(first.tolist())
        outputs = list(itertools.product(*chosen))
        missed = np.zeros((len(self.taps), len(outputs)), dtype=bool)
        for number, q in enumerate(outputs):
            for mask, i in zip(masks, q, strict=True):
                missed[:, number] |= mask[:, i]
        flat = [int(np.ravel_multi_index(q, self.out_size)) if q else 0 for q in outputs]
        return np.array(flat), missed
