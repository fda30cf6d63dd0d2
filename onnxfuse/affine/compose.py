"""Composition: one map after another, exact or refused.

What decides is the border: a layer that pads with zero wants its input to be zero outside, and
after a biased layer it is not.
"""

from __future__ import annotations

import math

import numpy as np

from onnxfuse.affine import taps
from onnxfuse.affine.conv import AffineConv, Size, padded_with, rounded_outside, settled
from onnxfuse.affine.deferred import Array, Deferred
from onnxfuse.affine.refusal import Refusal
from onnxfuse.affine.window import FixedWindow, after_window, before_window

Term = AffineConv | FixedWindow
_EQUAL = 1e-12


def natural_outside(f: AffineConv) -> Array | None:
    """What y is where all taps read outside the domain of x, of shape (C_out,); None: zero."""
    if f.outside_of is None:
        return None if f.bias_of is None else f.bias_of()
    return taps.apply_to_constant(f.weight, f.groups, f.outside) + f.bias


def compose(g: Term, f: Term, size: Size | None = None) -> Term | Refusal:
    """g after f.

    Exact when f's value outside the output's domain is what g pads with, wherever g pads. When
    `size`, the spatial size of f's input, is known, padding that no window reaches is not counted,
    and the result may be valid for that size alone (`at_size`).

    Args:
        g: The outer map.
        f: The inner map, applied first.
        size: Spatial size of f's input, or None.
    """
    if g.in_channels != f.out_channels:
        return Refusal(f"{g.in_channels} input channels after {f.out_channels} output channels")
    if isinstance(g, AffineConv) and g.is_identity:
        return f
    if isinstance(f, AffineConv) and f.is_identity:
        return g
    if isinstance(f, FixedWindow):
        return after_window(g, f)
    if isinstance(g, FixedWindow):
        return before_window(g, f)
    bound = f.at_size is not None or g.at_size is not None
    if bound and size is None:
        return Refusal("valid at one size only, and the size of the input is not known")
    inner = _bordered(g, f, None)
    if size is not None and inner is not f:
        tight = g.tightened(f.output_size(size))
        at_size = _bordered(tight, f, size)
        if at_size is f or (isinstance(inner, Refusal) and not isinstance(at_size, Refusal)):
            return _composed(tight, at_size, size)
    return inner if isinstance(inner, Refusal) else _composed(g, inner, size if bound else None)


def _bordered(g: AffineConv, f: AffineConv, size: Size | None) -> AffineConv | Refusal:
    """F with an outside value that makes its output, around the border, what g pads with."""
    if not _constant_around(f, g.pads, size):
        return Refusal("the inner map reaches across the border that the outer one pads")
    if g.reads_outside and not same_outside(natural_outside(f), g):
        return _outside_for(f, g)
    return f


def _composed(g: AffineConv, f: AffineConv, at_size: Size | None) -> AffineConv:
    inner_step, outer_step, dilations, kernel = [], [], [], []
    for axis in range(f.rank):
        spacing = f.strides[axis] * g.dilations[axis]
        steps = [f.dilations[axis]] * (f.kernel[axis] > 1) + [spacing] * (g.kernel[axis] > 1)
        grid = math.gcd(*steps) or 1
        reach = f.extents[axis] - 1 + (g.kernel[axis] - 1) * spacing
        dilations.append(grid)
        kernel.append(reach // grid + 1)
        inner_step.append(f.dilations[axis] // grid or 1)
        outer_step.append(spacing // grid or 1)
    layout = (tuple(outer_step), tuple(inner_step), tuple(kernel))

    def weight() -> Array:
        return taps.chain(g.weight, g.groups, layout[0], f.weight, f.groups, layout[1], layout[2])

    def bias() -> Array:
        return taps.apply_to_constant(g.weight, g.groups, f.bias) + g.bias

    def border_error() -> Array:
        gap = f.border_error
        if g.reads_outside and g.outside_within_of is not None:
            natural = natural_outside(f)
            gap = gap + np.abs(g.outside - (0.0 if natural is None else natural))
        return taps.apply_to_constant(np.abs(g.weight), g.groups, gap) + g.border_error

    rounds = (f.border_error_of, g.border_error_of, g.outside_within_of)
    bias_of = g.bias_of if f.bias_of is None else Deferred(bias)
    stretch = (*f.strides, *f.strides)
    composed = AffineConv(
        out_channels=g.out_channels,
        in_channels=f.in_channels,
        kernel=tuple(kernel),
        strides=tuple(a * b for a, b in zip(f.strides, g.strides, strict=True)),
        dilations=tuple(dilations),
        pads=tuple(p + s * q for p, s, q in zip(f.pads, stretch, g.pads, strict=True)),
        groups=math.gcd(f.groups, g.groups),
        weight_of=Deferred(weight),
        bias_of=bias_of,
        outside_of=f.outside_of,
        outside_within_of=f.outside_within_of,
        border_error_of=None if rounds == (None,) * 3 else Deferred(border_error),
        at_size=at_size,
        is_selective=f.is_selective or g.is_selective,
        is_sum=f.is_sum or g.is_sum,
        is_movement=f.is_movement and g.is_movement,
        depth=1 + max(f.depth, g.depth),
    )
    return settled(composed)


def _constant_around(f: AffineConv, pads: tuple[int, ...], size: Size | None) -> bool:
    """True when f's taps all read outside, wherever `pads` reaches around f's output."""
    sizes = size or (None,) * f.rank
    output = (None,) * f.rank if size is None else f.output_size(size)
    for axis, (n, m) in enumerate(zip(sizes, output, strict=True)):
        span, stride = f.extents[axis] - 1, f.strides[axis]
        if pads[axis] > 0 and f.begins[axis] < span - stride + 1:
            return False
        if pads[f.rank + axis] > 0:
            if n is None or m is None:
                if f.ends[axis] < span:
                    return False
            elif m * stride - f.begins[axis] < n:
                return False
    return True


def same_outside(value: Array | None, g: AffineConv) -> bool:
    """True when a value (None: zero) is what g takes to be outside, up to rounding."""
    if value is None and g.outside_of is None:
        return True
    given = np.zeros(g.in_channels) if value is None else value
    allowed = np.maximum(_EQUAL * np.abs(g.outside), g.outside_within)
    return bool(np.all(np.abs(given - g.outside) <= allowed))


def _outside_for(f: AffineConv, g: AffineConv) -> AffineConv | Refusal:
    """f with x's outside value chosen so that y is there what g pads with.

    scale * outside + shift = pad  ->  outside = (pad - shift) / scale
    """
    value = natural_outside(f)
    pad = np.zeros(1) if value is None else value
    reason = (
        f"outside its border the inner map is up to {np.abs(pad).max():.6g}, "
        f"where the outer one pads with up to {np.abs(g.outside).max():.6g}"
    )
    if not f.is_channelwise:
        return Refusal(reason)
    scale = f.weight.reshape(-1)
    if not np.all(scale):
        return Refusal(reason + ", and a channel's scale is zero")
    with np.errstate(over="ignore"):
        outside = (g.outside - f.bias) / scale
    if not np.all(np.isfinite(outside)):
        return Refusal(reason)
    moved = padded_with(f, outside)
    if g.outside_within_of is None:
        return moved
    return rounded_outside(moved, g.outside_within / np.abs(scale))
