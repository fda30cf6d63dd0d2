"""Sums, concatenations and selections of maps that read one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxfuse.affine import taps
from onnxfuse.affine.compose import Term, same_outside
from onnxfuse.affine.conv import AffineConv, Size, settled
from onnxfuse.affine.deferred import Array, Deferred
from onnxfuse.affine.refusal import Refusal
from onnxfuse.affine.window import total_of_windows


def add(f: Term, g: Term, size: Size | None = None) -> Term | Refusal:
    """f(x) + g(x), the taps of both on their common grid; `size` as in `compose`."""
    return total([f, g], size)


def total(terms: Sequence[Term], size: Size | None = None) -> Term | Refusal:
    """The sum of several maps of one x; `size` as in `compose`."""
    if len(terms) == 1:
        return terms[0]
    maps = [f for f in terms if isinstance(f, AffineConv)]
    if len(maps) < len(terms):
        return total_of_windows(terms)
    channels = {f.out_channels for f in maps}
    if len(channels) > 1:
        return Refusal(f"a sum of {' and '.join(map(str, sorted(channels)))} channels")
    aligned = align(maps, size)
    if isinstance(aligned, Refusal):
        return aligned
    frame, groups = aligned.frame, math.gcd(*(f.groups for f in maps))
    shape = (frame.out_channels, frame.in_channels // groups, *frame.kernel)

    def weight() -> Array:
        joined = np.zeros(shape)
        for part in aligned.maps:
            first, step = _position(part, frame)
            taps.add_into(joined, groups, part.weight, part.groups, first, step)
        return joined

    biased = [f for f in maps if f.bias_of is not None]
    return settled(
        replace(
            frame,
            groups=groups,
            weight_of=Deferred(weight),
            bias_of=Deferred(lambda: np.sum([f.bias for f in biased], axis=0)) if biased else None,
            border_error_of=_errors(aligned.maps, lambda each: np.sum(each, axis=0)),
            is_selective=any(f.is_selective for f in maps),
            is_sum=True,
            is_movement=False,
            depth=1 + max(f.depth for f in maps),
        )
    )


def concat(maps: Sequence[AffineConv], size: Size | None = None) -> AffineConv | Refusal:
    """The outputs of maps of one x, joined along the channels; `size` as in `compose`."""
    if len(maps) == 1:
        return maps[0]
    aligned = align(maps, size)
    if isinstance(aligned, Refusal):
        return aligned
    frame = aligned.frame

    def weight() -> Array:
        parts = []
        for part in aligned.maps:
            first, step = _position(part, frame)
            dense = taps.coarsen(part.weight, part.groups, 1)
            parts.append(taps.spread(dense, frame.kernel, first, step))
        return np.concatenate(parts)

    def bias() -> Array:
        return np.concatenate([h.bias for h in maps])

    joined = replace(
        frame,
        out_channels=sum(h.out_channels for h in maps),
        groups=1,
        weight_of=Deferred(weight),
        bias_of=Deferred(bias) if any(h.bias_of is not None for h in maps) else None,
        border_error_of=_errors(aligned.maps, np.concatenate),
        is_selective=True,
        is_movement=all(h.is_movement for h in maps),
        depth=1 + max(h.depth for h in maps),
    )
    return settled(joined)


def select(f: AffineConv, channels: Sequence[int]) -> AffineConv:
    """The outputs `channels` of f, in that order (a permutation, a part, or repeats)."""
    index = np.asarray(channels, dtype=np.intp)
    if np.array_equal(index, np.arange(f.out_channels)):
        return f

    def weight() -> Array:
        return taps.coarsen(f.weight, f.groups, 1)[index]

    chosen = replace(
        f,
        out_channels=len(index),
        groups=1,
        weight_of=Deferred(weight),
        bias_of=None if f.bias_of is None else Deferred(lambda: f.bias[index]),
        border_error_of=_errors([f], lambda each: each[0][index]),
        is_identity=False,
        is_selective=True,
        depth=1 + f.depth,
    )
    return settled(chosen)


@dataclass(frozen=True)
class Aligned:
    """Maps of one x that share strides, sizes and outside value.

    Attributes:
        maps: The maps, at one size where they agree there alone.
        frame: The first of them with the kernel, dilations and pads that hold the taps of all; its
            weight is not theirs.
    """

    maps: Sequence[AffineConv]
    frame: AffineConv


def align(maps: Sequence[AffineConv], size: Size | None) -> Aligned | Refusal:
    """Finds the smallest common grid of maps of one x, or why there is none."""
    first = maps[0]
    if any(h.strides != first.strides for h in maps):
        return Refusal("strides " + " and ".join(str(list(h.strides)) for h in maps))
    if any(h.in_channels != first.in_channels for h in maps):
        return Refusal("different input channels")
    readers = [h for h in maps if h.reads_outside]
    reader = min(readers, key=lambda h: h.outside_within_of is not None, default=None)
    if reader is not None:
        value = None if reader.outside_of is None else reader.outside
        if not all(same_outside(value, h) for h in readers):
            return Refusal("the branches pad with different values")
        maps = [_moved_outside(h, reader.outside) for h in maps]
    at_size = next((h.at_size for h in maps if h.at_size is not None), None)
    if len({_overhang(h) for h in maps}) > 1:
        if size is None or len({h.output_size(size) for h in maps}) > 1:
            return Refusal("the branches' sizes differ, or are equal at some input sizes only")
        maps, at_size = [h.tightened(size) for h in maps], size
    kernel, grid, pads = _common_grid(maps)
    frame = replace(
        first,
        kernel=kernel,
        dilations=grid,
        pads=pads,
        outside_of=None if reader is None else reader.outside_of,
        outside_within_of=None if reader is None else reader.outside_within_of,
        at_size=at_size,
        is_identity=False,
    )
    return Aligned(maps, frame)


def _moved_outside(f: AffineConv, value: Array) -> AffineConv:
    """f, to be used with another value outside that is the same but for rounding."""
    if not f.reads_outside or f.outside_within_of is None:
        return f

    def border_error() -> Array:
        gap = np.abs(f.outside - value)
        return taps.apply_to_constant(np.abs(f.weight), f.groups, gap) + f.border_error

    return replace(f, border_error_of=Deferred(border_error))


def _errors(maps: Sequence[AffineConv], join: Callable[[list[Array]], Array]) -> Deferred | None:
    """The border errors of several maps joined; None where there are none."""
    if all(f.border_error_of is None for f in maps):
        return None
    return Deferred(lambda: np.asarray(join([f.border_error for f in maps])))


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


def _position(f: AffineConv, frame: AffineConv) -> tuple[Size, Size]:
    """Where f's first tap goes on the grid of the frame, and how far apart its taps are."""
    grid = frame.dilations
    first = tuple((p - b) // d for p, b, d in zip(frame.begins, f.begins, grid, strict=True))
    return first, tuple(max(d // g, 1) for d, g in zip(f.dilations, grid, strict=True))
