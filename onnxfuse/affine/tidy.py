"""The smallest form of a map: no zero taps around the kernel, as many groups as W allows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxfuse.affine import taps
from onnxfuse.affine.conv import AffineConv
from onnxfuse.affine.deferred import Deferred

_FEW_CHANNELS = 1024


def trim(f: AffineConv) -> AffineConv:
    """Zero outer taps removed; pads shrink with them and may become negative."""
    pads, cut = list(f.pads), []
    for axis in range(f.rank):
        first, last = taps.used_taps(f.weight, axis)
        pads[axis] -= first * f.dilations[axis]
        pads[f.rank + axis] -= (f.kernel[axis] - 1 - last) * f.dilations[axis]
        cut.append(slice(first, last + 1))
    kernel = tuple(c.stop - c.start for c in cut)
    if kernel == f.kernel:
        return f
    return replace(
        f,
        kernel=kernel,
        dilations=tuple(d if k > 1 else 1 for d, k in zip(f.dilations, kernel, strict=True)),
        pads=tuple(pads),
        weight_of=Deferred(
            lambda: np.ascontiguousarray(f.weight[(slice(None), slice(None), *cut)])
        ),
    )


def regroup(f: AffineConv) -> AffineConv:
    """As many groups as the zero blocks of W allow."""
    groups = taps.channel_groups(f.weight, f.groups)
    if groups == f.groups:
        return f
    weight_of = Deferred(lambda: taps.refine(f.weight, f.groups, groups))
    return replace(f, groups=groups, weight_of=weight_of)


def is_trivial(f: AffineConv) -> bool:
    """True when y = x, by construction or by its numbers; looks only where looking is cheap."""
    if f.is_identity:
        return True
    may_be = f.is_selective and f.is_pointwise and f.in_channels == f.out_channels
    if not f.is_channelwise and not (may_be and f.in_channels <= _FEW_CHANNELS):
        return False
    if f.bias_of is not None and f.bias.any():
        return False
    f = regroup(f)
    return f.is_channelwise and bool((f.weight == 1.0).all())


def without_crops(f: AffineConv) -> AffineConv:
    """The same map with no negative pads: zero taps in their place, or slack behind."""
    pads, added = list(f.pads), []
    for axis, (step, stride) in enumerate(zip(f.dilations, f.strides, strict=True)):
        behind = f.rank + axis
        if f.at_size is not None and pads[behind] < 0:
            unread = (f.at_size[axis] + pads[axis] + pads[behind] - f.extents[axis]) % stride
            pads[behind] = min(0, pads[behind] + stride - 1 - unread)
        front, back = (max(0, math.ceil(-pads[side] / step)) for side in (axis, behind))
        pads[axis] += front * step
        pads[behind] += back * step
        added.append((front, back))
    if not any(sum(pair) for pair in added):
        return replace(f, pads=tuple(pads)) if tuple(pads) != f.pads else f
    return replace(
        f,
        kernel=tuple(k + sum(pair) for k, pair in zip(f.kernel, added, strict=True)),
        pads=tuple(pads),
        weight_of=Deferred(lambda: np.pad(f.weight, [(0, 0), (0, 0), *added])),
    )
