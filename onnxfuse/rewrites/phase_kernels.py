"""The kernels of a convolution over an upsampled map, one for each phase of its output.

With U[i] = x[i // 2], a kernel of k taps and a padding of p in front, for a = 0, 1:

    y[2 i + a] = sum over u of w[u] U[2 i + a + u - p] = sum over u of w[u] x[i + (a + u - p) // 2]

Taps that read the same x are added up. Where U is padded with zeros, so is x: the offsets reach
from (a - p) // 2 to (a + q) // 2, q the padding behind. With p + q = k - 1 the first is never above
zero and the last never below, so no padding is negative.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Phase(NamedTuple):
    """One phase.

    Attributes:
        weight: Of shape (C_out, C_in, *kernel).
        begins: Padding of x in front of each axis.
        ends: Padding of x behind each axis.
    """

    weight: NDArray[np.float64]
    begins: tuple[int, ...]
    ends: tuple[int, ...]


def extents(kernel: Sequence[int], begins: Sequence[int]) -> list[tuple[int, int]]:
    """How many taps phase 0 has, and phase 1, on each axis."""
    return [
        ((k - 1 - p) // 2 - -p // 2 + 1, (k - p) // 2 - (1 - p) // 2 + 1)
        for k, p in zip(kernel, begins, strict=True)
    ]


def phases(weight: NDArray[np.float64], begins: Sequence[int]) -> Iterator[Phase]:
    """The phases, the last axis changing fastest.

    Args:
        weight: Of shape (C_out, C_in, *kernel).
        begins: Padding in front of each axis; behind it as much as keeps the size.
    """
    for chosen in itertools.product(range(2), repeat=len(begins)):
        part, pads = weight, []
        for axis, (a, p) in enumerate(zip(chosen, begins, strict=True), 2):
            offsets = (a - p + np.arange(weight.shape[axis])) // 2
            first = np.flatnonzero(np.diff(offsets, prepend=offsets[0] - 1))
            part = np.add.reduceat(part, first, axis)
            pads.append((-int(offsets[0]), int(offsets[-1])))
        yield Phase(part, tuple(b for b, _ in pads), tuple(e for _, e in pads))
