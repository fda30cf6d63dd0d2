"""Numpy kernels of the algebra, on grouped weights of shape (C_out, C_in / groups, *kernel)."""

from __future__ import annotations

import math

import numpy as np

from onnxfuse.affine.deferred import Array


def coarsen(weight: Array, groups: int, target: int) -> Array:
    """The same map with fewer groups: blocks of W on the diagonal of larger blocks.

    Args:
        weight: (C_out, C_in / groups, *kernel).
        groups: Groups of `weight`.
        target: A divisor of `groups`.

    Returns:
        (C_out, C_in / target, *kernel).
    """
    if groups == target:
        return weight
    out_channels, per_group = weight.shape[:2]
    merged = groups // target
    blocks = weight.reshape(target, merged, out_channels // groups, per_group, *weight.shape[2:])
    wide = np.zeros((*blocks.shape[:3], merged, *blocks.shape[3:]))
    index = np.arange(merged)
    wide[:, index, :, index] = np.moveaxis(blocks, 1, 0)
    return wide.reshape(out_channels, merged * per_group, *weight.shape[2:])


def channel_groups(weight: Array, groups: int) -> int:
    """The largest number of groups into which W splits without losing a non-zero block."""
    out_channels, per_group = weight.shape[:2]
    in_channels = per_group * groups
    if per_group == 1 or weight[0, -1].any():  # the corner is off the diagonal of any finer split
        return groups
    support = np.any(weight != 0, axis=tuple(range(2, weight.ndim)))
    for finer in range(math.gcd(out_channels, in_channels), groups, -1):
        if out_channels % finer or in_channels % finer or finer % groups:
            continue
        split = finer // groups
        blocks = support.reshape(groups, split, out_channels // finer, split, in_channels // finer)
        present = blocks.any(axis=(2, 4))
        if not present[:, ~np.eye(split, dtype=bool)].any():
            return finer
    return groups


def refine(weight: Array, groups: int, target: int) -> Array:
    """Inverse of `coarsen`: keeps the diagonal blocks of a weight that is block-diagonal."""
    if groups == target:
        return weight
    out_channels, per_group = weight.shape[:2]
    split = target // groups
    blocks = weight.reshape(
        groups, split, out_channels // target, split, per_group // split, *weight.shape[2:]
    )
    index = np.arange(split)
    diagonal = np.moveaxis(blocks[:, index, :, index], 0, 1)
    return np.ascontiguousarray(diagonal).reshape(
        out_channels, per_group // split, *weight.shape[2:]
    )


def spread(
    weight: Array, kernel: tuple[int, ...], first: tuple[int, ...], step: tuple[int, ...]
) -> Array:
    """W's taps on a larger grid: tap k goes to first + k * step, every other tap is zero."""
    if weight.shape[2:] == kernel:
        return weight
    wide = np.zeros((*weight.shape[:2], *kernel))
    wide[_taps(weight.shape[2:], first, step)] = weight
    return wide


def add_into(
    total: Array,
    target: int,
    weight: Array,
    groups: int,
    first: tuple[int, ...],
    step: tuple[int, ...],
) -> None:
    """Adds W, its taps on a larger grid and its groups joined, to a weight that has both.

    Args:
        total: (C_out, C_in / target, *kernel), changed.
        target: Groups of `total`, a divisor of `groups`.
        weight: (C_out, C_in / groups, *taps).
        groups: Groups of `weight`.
        first: Where tap 0 goes, per axis.
        step: Distance of the taps, per axis.
    """
    place = total[_taps(weight.shape[2:], first, step)]
    if groups == target:
        place += weight
        return
    merged, per_group = groups // target, weight.shape[1]
    rows, spatial = weight.shape[0] // groups, weight.shape[2:]
    blocks = place.reshape(target, merged, rows, merged, per_group, *spatial)  # split: a view
    index = np.arange(merged)
    own = weight.reshape(target, merged, rows, per_group, *spatial)
    blocks[:, index, :, index] += np.moveaxis(own, 1, 0)


def _taps(
    count: tuple[int, ...], first: tuple[int, ...], step: tuple[int, ...]
) -> tuple[slice, ...]:
    spatial = [slice(b, b + (n - 1) * s + 1, s) for n, b, s in zip(count, first, step, strict=True)]
    return (slice(None), slice(None), *spatial)


def chain(
    outer: Array,
    outer_groups: int,
    outer_step: tuple[int, ...],
    inner: Array,
    inner_groups: int,
    inner_step: tuple[int, ...],
    kernel: tuple[int, ...],
) -> Array:
    """The kernel of `outer` applied after `inner`: a convolution of kernels, a product of channels.

    Args:
        outer: (C_out, C_mid / outer_groups, *K_outer), its taps `outer_step` apart on the grid.
        outer_groups: Groups of `outer`.
        outer_step: Grid distance of the outer taps per axis.
        inner: (C_mid, C_in / inner_groups, *K_inner), its taps `inner_step` apart on the grid.
        inner_groups: Groups of `inner`.
        inner_step: Grid distance of the inner taps per axis.
        kernel: Taps of the result per axis.

    Returns:
        (C_out, C_in / gcd(groups), *kernel).
    """
    groups = math.gcd(outer_groups, inner_groups)
    in_channels = inner.shape[1] * inner_groups
    scales_output = outer_groups == outer.shape[0] == inner.shape[0]
    scales_input = inner_groups == in_channels == inner.shape[0]
    single = (1,) * (outer.ndim - 2)
    if scales_output and outer.shape[2:] == single and inner.shape[2:] == kernel:
        return inner * outer
    if scales_input and inner.shape[2:] == single and outer.shape[2:] == kernel:
        by_group = outer.reshape(groups, -1, *outer.shape[1:])
        return (by_group * inner.reshape(groups, 1, -1, *single)).reshape(outer.shape)
    result = np.zeros((outer.shape[0], in_channels // groups, *kernel))
    if not scales_output:
        outer = outer if scales_input else coarsen(outer, outer_groups, groups)
        inner = inner if scales_input else coarsen(inner, inner_groups, groups)
    for tap in np.ndindex(*outer.shape[2:]):
        mix = outer[(slice(None), slice(None), *tap)]
        if scales_output:
            product = inner * mix.reshape(-1, *(1,) * (inner.ndim - 1))
        elif scales_input:
            by_group = inner.reshape(groups, 1, -1, *inner.shape[2:])
            mixed = mix.reshape(groups, -1, mix.shape[1], *(1,) * (inner.ndim - 2))
            product = (mixed * by_group).reshape(outer.shape[0], -1, *inner.shape[2:])
        else:
            middle = inner.shape[0] // groups
            product = np.matmul(
                mix.reshape(groups, -1, middle), inner.reshape(groups, middle, -1)
            ).reshape(outer.shape[0], -1, *inner.shape[2:])
        first = tuple(t * s for t, s in zip(tap, outer_step, strict=True))
        result[_taps(inner.shape[2:], first, inner_step)] += product
    return result


def apply_to_constant(weight: Array, groups: int, value: Array) -> Array:
    """W applied to a signal that is `value[c]` in channel c everywhere: shape (C_out,)."""
    total = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    by_group = total.reshape(groups, -1, total.shape[1])
    blocks = value.reshape(groups, -1, 1)
    return np.asarray(np.matmul(by_group, blocks).reshape(-1))


def used_taps(weight: Array, axis: int) -> tuple[int, int]:
    """First and last tap along a spatial axis that are not all zero; (0, 0) when every tap is."""
    by_tap = np.moveaxis(weight, axis + 2, 0)
    used = (tap for tap in range(len(by_tap)) if by_tap[tap].any())
    first = next(used, None)
    if first is None:
        return 0, 0
    last = next(tap for tap in reversed(range(len(by_tap))) if by_tap[tap].any())
    return first, last
