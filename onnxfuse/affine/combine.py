"""Sums, concatenations and selections of maps that read one tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxfuse.affine import taps
from onnxfuse.affine.compose import Term, same_outside
from onnxfuse.affine.conv import AffineConv, Size
from onnxfuse.affine.deferred import Array, Deferred
from onnxfuse.affine.refusal import Refusal
from onnxfuse.affine.window import FixedWindow, add_windows


def add(f: Term, g: Term, size: Size | None = None) -> Term | Refusal:
    """f(x) + g(x), the taps of both on their common grid; `size` as in `compose`."""
    if isinstance(f, FixedWindow) or isinstance(g, FixedWindow):
        return add_windows(f, g)
    aligned = align((f, g), size)
    if isinstance(aligned, Refusal):
        return aligned
    if f.out_channels != g.out_channels:
        return Refusal(f"a sum of {f.out_channels} and {g.out_channels} channels")
    a, b = aligned
    groups = math.gcd(a.groups, b.groups)

    def weight() -> Array:
        total = taps.coarsen(a.weight, a.groups, groups)
        return total + taps.coarsen(b.weight, b.groups, groups)

    biases = [h.bias_of for h in (a, b) if h.bias_of is not None]
    bias_of = Deferred(lambda: a.bias + b.bias) if len(biases) == 2 else None
    return replace(
        a,
        groups=groups,
        weight_of=Deferred(weight),
        bias_of=bias_of or (biases[0] if biases else None),
        is_selective=f.is_selective or g.is_selective,
        is_sum=True,
    )


def concat(maps: Sequence[AffineConv], size: Size | None = None) -> AffineConv | Refusal:
    """The outputs of maps of one x, joined along the channels; `size` as in `compose`."""
    if len(maps) == 1:
        return maps[0]
    aligned = align(maps, size)
    if isinstance(aligned, Refusal):
        return aligned
    first = aligned[0]

    def weight() -> Array:
        return np.concatenate([taps.coarsen(h.weight, h.groups, 1) for h in aligned])

    def bias() -> Array:
        return np.concatenate([h.bias for h in aligned])

    return replace(
        first,
        out_channels=sum(h.out_channels for h in aligned),
        groups=1,
        weight_of=Deferred(weight),
        bias_of=Deferred(bias) if any(h.bias_of is not None for h in aligned) else None,
        is_selective=True,
    )


def select(f: AffineConv, channels: Sequence[int]) -> AffineConv:
    """The outputs `channels` of f, in that order (a permutation, a part, or repeats)."""
    index = np.asarray(channels, dtype=np.intp)
    if np.array_equal(index, np.arange(f.out_channels)):
        return f

    def weight() -> Array:
        return taps.coarsen(f.weight, f.groups, 1)[index]

    return replace(
        f,
        out_channels=len(index),
        groups=1,
        weight_of=Deferred(weight),
        bias_of=None if f.bias_of is None else Deferred(lambda: f.bias[index]),
        is_identity=False,
        is_selective=True,
    )


def align(maps: Sequence[AffineConv], size: Size | None) -> list[AffineConv] | Refusal:
    """The maps of one x with equal kernel, strides, dilations, pads and outside value."""
    first = maps[0]
    if any(h.strides != first.strides for h in maps):
        return Refusal("strides " + " and ".join(str(list(h.strides)) for h in maps))
    if any(h.in_channels != first.in_channels for h in maps):
        return Refusal("different input channels")
    outside_of = None
    readers = [h for h in maps if h.reads_outside]
    for h in readers:
        outside_of = readers[0].outside_of
        if not same_outside(None if outside_of is None else outside_of(), h.outside_of):
            return Refusal("the branches pad with different values")
    at_size = next((h.at_size for h in maps if h.at_size is not None), None)
    if len({_overhang(h) for h in maps}) > 1:
        if size is None or len({h.output_size(size) for h in maps}) > 1:
            return Refusal("the branches' sizes differ, or are equal at some input sizes only")
        maps, at_size = [h.tightened(size) for h in maps], size
    kernel, grid, pads = _common_grid(maps)
    return [
        replace(
            h,
            kernel=kernel,
            dilations=grid,
            pads=pads,
            weight_of=_respaced(h, kernel, grid, pads),
            outside_of=outside_of,
            at_size=at_size,
            is_identity=False,
        )
        for h in maps
    ]


def _overhang(f: AffineConv) -> tuple[int, ...]:
    """Per axis begin + end - extent: together with the stride it gives the size of the output."""
    return tuple(p + q - e for p, q, e in zip(f.begins, f.ends, f.extents, strict=True))


def _common_grid(maps: Sequence[AffineConv]) -> tuple[Size, Size, tuple[int, ...]]:
    """Kernel, dilations and pads of the smallest grid with every tap; overhangs are equal."""
    first = maps[0]
    if all(
        (h.kernel, h.dilations, h.pads) == (first.kernel, first.dilations, first.pads) for h in maps
    ):
        return first.kernel, first.dilations, first.pads
    begins, ends, grids, kernel = [], [], [], []
    for axis, overhang in enumerate(_overhang(first)):
        begin = max(h.begins[axis] for h in maps)
        reach = max(h.extents[axis] - h.begins[axis] for h in maps) + begin - 1
        distances = [begin - h.begins[axis] for h in maps]
        steps = [h.dilations[axis] for h in maps if h.kernel[axis] > 1]
        grid = math.gcd(*distances, *steps) or 1
        begins.append(begin)
        ends.append(overhang - begin + reach + 1)
        kernel.append(reach // grid + 1)
        grids.append(grid)
    return tuple(kernel), tuple(grids), (*begins, *ends)


def _respaced(f: AffineConv, kernel: Size, grid: Size, pads: tuple[int, ...]) -> Deferred:
    """F's weight with zero taps put around and between."""
    if kernel == f.kernel:
        return f.weight_of
    first = tuple((p - b) // d for p, b, d in zip(pads, f.begins, grid, strict=False))
    step = tuple(max(d // g, 1) for d, g in zip(f.dilations, grid, strict=True))
    return Deferred(lambda: taps.spread(f.weight, kernel, first, step))
