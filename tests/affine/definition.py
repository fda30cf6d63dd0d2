"""The definition of an AffineConv, as a loop over taps; and a hypothesis strategy for them."""

import itertools

import numpy as np
from hypothesis import strategies as st

from onnxfuse.affine import affine_conv, padded_with


def apply(f, x):
    """y[o, p] = b[o] + sum over i, k of W[o, i, k] x~[i, p * stride - pad + k * dilation].

    x has shape (C_in, *size); x~ is x inside its domain and f.outside outside it.
    """
    rank, size = f.rank, x.shape[1:]
    out_size = f.output_size(size)
    assert all(n >= 1 for n in out_size), (size, out_size)
    dense = np.zeros((f.out_channels, f.in_channels, *f.kernel))
    per_in, per_out = f.in_channels // f.groups, f.out_channels // f.groups
    for o in range(f.out_channels):
        first = o // per_out * per_in
        dense[o, first : first + per_in] = f.weight[o]
    y = np.zeros((f.out_channels, *out_size)) + f.bias.reshape(-1, *(1,) * rank)
    for tap in itertools.product(*(range(k) for k in f.kernel)):
        positions = [
            np.arange(m) * s - p + t * d
            for m, s, p, t, d in zip(out_size, f.strides, f.begins, tap, f.dilations, strict=True)
        ]
        inside = [(at >= 0) & (at < n) for at, n in zip(positions, size, strict=True)]
        clipped = [np.clip(at, 0, n - 1) for at, n in zip(positions, size, strict=True)]
        read = x[np.ix_(range(f.in_channels), *clipped)] if rank else x
        known = np.ones(out_size, dtype=bool)
        for axis, mask in enumerate(inside):
            known &= mask.reshape(-1, *(1,) * (rank - axis - 1))
        read = np.where(known, read, f.outside.reshape(-1, *(1,) * rank))
        y += np.einsum("oi,i...->o...", dense[(slice(None), slice(None), *tap)], read)
    return y


@st.composite
def affine_convs(draw, rank=None, in_channels=None, strides=None, pointwise=None, crops=False):
    """A random AffineConv: kernel 1-3, stride 1-3, dilation 1-3, pads 0-3, groups, bias or none."""
    rank = draw(st.integers(0, 2)) if rank is None else rank
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    if in_channels is None:
        in_channels = groups * draw(st.integers(1, 2))
    groups = groups if in_channels % groups == 0 else 1
    out_channels = groups * draw(st.integers(1, 3))
    pointwise = draw(st.booleans()) if pointwise is None else pointwise
    kernel = (1,) * rank if pointwise else tuple(draw(st.integers(1, 3)) for _ in range(rank))
    strides = strides or tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(rank))
    dilations = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    least = -1 if crops else 0
    most = 0 if pointwise and draw(st.booleans()) else 3
    pads = tuple(draw(st.integers(least, most)) for _ in range(2 * rank))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.standard_normal((out_channels, in_channels // groups, *kernel))
    bias = rng.standard_normal(out_channels) if draw(st.booleans()) else None
    f = affine_conv(weight, bias, strides=strides, dilations=dilations, pads=pads, groups=groups)
    if draw(st.integers(0, 4)) == 0:
        f = padded_with(f, rng.standard_normal(in_channels))
    return f


def image(f, *others, seed=0, extra=0):
    """A random x, large enough for every map and all of them in a row."""
    reach, spacing = 2, 1
    for h in (f, *others):
        reach += spacing * (max((*h.extents, 1)) + 2)
        spacing *= max((*h.strides, 1))
    size = tuple(reach + extra + axis for axis in range(f.rank))
    return np.random.default_rng(seed).standard_normal((f.in_channels, *size))
