"""Identity, Dropout, Pad, Slice, Split, Concat and Gather."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxfuse.affine import (
    AffineConv,
    Array,
    Deferred,
    Refusal,
    Size,
    Term,
    affine_conv,
    concat,
    padded_with,
    select,
    window,
)
from onnxfuse.lift.convolution import unary
from onnxfuse.lift.site import Site, Step

MOST_OUTPUTS = 1 << 10
"""Of a node that is followed: each of its outputs is looked at by itself."""

LARGEST_PADDING = 1000.0
"""Padding with a value v is x - v padded with zeros, plus v: x loses the digits that v has."""


def passes(site: Site) -> Step | Refusal:
    """Identity, and Dropout in inference: y = x."""
    if site.node.op_type == "Dropout":
        if site.output != site.node.output[0]:
            return Refusal("the mask of a Dropout")
        if site.input(1) and not site.graph.is_constant(site.input(1)):
            return Refusal("its ratio is not constant")
        if site.input(2):
            mode = site.graph.constant(site.input(2))
            if mode is None or mode.size != 1 or mode.item():
                return Refusal("Dropout in training mode: export the model with model.eval()")
    return Step((site.input(0),), lambda maps, size: maps[0])


def choose(name: str, channels: Sequence[int]) -> Step | Refusal:
    """A step that takes output channels in the given order."""
    if not channels:
        return Refusal("it keeps nothing")

    def combine(maps: Sequence[Term], size: Size | None) -> Term | Refusal:
        term = maps[0]
        if isinstance(term, AffineConv):
            return select(term, channels)
        return Refusal(f"it takes channels of a {term.op_type}")

    return Step((name,), combine)


def pad(site: Site) -> Step | Refusal:
    """Pad in constant mode, over spatial axes with any value, or over the channels."""
    if site.text("mode", "constant") != "constant":
        return Refusal(f"{site.text('mode', '')} padding is not a convolution")
    name, rank, channels = site.input(0), site.view.rank, site.channels(site.input(0))
    if site.graph.opset < 11:
        widths = site.integer_list("pads") or site.integer_list("paddings")
        value = site.real("value", 0.0)
    else:
        widths = site.integers(site.input(1))
        constant = site.graph.constant(site.input(2)) if site.input(2) else np.zeros(1)
        if constant is None:
            return Refusal("its value is not constant")
        if constant.size != 1:
            return Refusal(f"its value has shape {list(constant.shape)}")
        value = float(constant.item())
    given = site.integers(site.input(3)) if site.input(3) else range(rank)
    axes = None if given is None else site.axes(given)
    if widths is None or axes is None or len(widths) != 2 * len(axes):
        return Refusal("its widths are not constant, or not two for each axis")
    if channels is None:
        return Refusal("the number of its channels is not known")
    before, after = [0] * rank, [0] * rank
    for axis, begin, end in zip(axes, widths, widths[len(axes) :], strict=False):
        before[axis], after[axis] = begin, end
    moved = {axis for axis in range(rank) if before[axis] or after[axis]}
    if moved == {site.view.axis}:
        added = (before[site.view.axis], after[site.view.axis])
        if channels + sum(added) < 1:
            return Refusal("it keeps nothing")
        return unary(name, _widened(channels, added, value, len(site.view.spatial)))
    if not moved <= set(site.view.spatial):
        return Refusal("it pads the batch, or channels and space at once")
    if abs(value) > LARGEST_PADDING:
        return Refusal(f"a padding value of {value:.4g} would take digits from its input")
    pads = [*(before[a] for a in site.view.spatial), *(after[a] for a in site.view.spatial)]
    spatial = len(site.view.spatial)
    shifted = window(channels, spatial, tuple(pads), (1,) * spatial)
    return unary(name, padded_with(shifted, np.full(channels, value)))


def _widened(channels: int, added: tuple[int, int], value: float, rank: int) -> AffineConv:
    """`value` in front of and behind the channels: rows of zeros around the unit matrix."""
    first, total = max(added[0], 0), channels + sum(added)

    def weight() -> Array:
        full = np.eye(channels + max(added[1], 0) + first, channels, -first)
        skipped = max(-added[0], 0)
        return full[skipped : skipped + total].reshape(total, channels, *(1,) * rank)

    def bias() -> Array:
        return np.where(weight().reshape(total, -1).any(axis=1), 0.0, value)

    shape = (total, channels, *(1,) * rank)
    return affine_conv(Deferred(weight), Deferred(bias) if value else None, shape=shape)


def slicing(site: Site) -> Step | Refusal:
    """Slice: chosen channels, or a crop with a stride over spatial axes."""
    name, cuts = site.input(0), _cuts(site)
    if isinstance(cuts, Refusal):
        return cuts
    if set(cuts) == {site.view.axis}:
        chosen = _channels_of_slice(site, cuts)
        return chosen if isinstance(chosen, Refusal) else choose(name, chosen)
    if not set(cuts) <= set(site.view.spatial):
        return Refusal("it slices the batch, or channels and space at once")
    return _crop(site, name, cuts)


def chosen_channels(site: Site) -> Sequence[int] | Refusal:
    """The channels that an output of a Split or a Slice takes, in order; there may be none."""
    if site.node.op_type == "Split":
        return _channels_of_split(site)
    cuts = _cuts(site)
    if isinstance(cuts, Refusal):
        return cuts
    if set(cuts) != {site.view.axis}:
        return Refusal("it slices more than the channels")
    return _channels_of_slice(site, cuts)


def _cuts(site: Site) -> dict[int, list[int]] | Refusal:
    """Start, end and step of a Slice, by axis."""
    if site.graph.opset < 10:
        starts, ends, axes = (
            site.integer_list("starts"),
            site.integer_list("ends"),
            site.integer_list("axes"),
        )
        steps: tuple[int, ...] | None = None
    else:
        starts, ends = site.integers(site.input(1)), site.integers(site.input(2))
        axes = site.integers(site.input(3)) if site.input(3) else None
        steps = site.integers(site.input(4)) if site.input(4) else None
        if (site.input(3) and axes is None) or (site.input(4) and steps is None):
            return Refusal("its axes or steps are not constant")
    if starts is None or ends is None:
        return Refusal("its bounds are not constant")
    steps = steps or (1,) * len(starts)
    places = site.axes(axes or range(len(starts)))
    if places is None or {len(starts), len(ends), len(steps)} != {len(places)} or 0 in steps:
        return Refusal("its bounds, axes and steps do not fit each other")
    return {axis: cut for axis, *cut in zip(places, starts, ends, steps, strict=True)}


def _channels_of_slice(site: Site, cuts: dict[int, list[int]]) -> list[int] | Refusal:
    channels = site.channels(site.input(0))
    if channels is None:
        return Refusal("the number of its channels is not known")
    start, end, step = cuts[site.view.axis]
    return _sliced(channels, start, end, step)


def _sliced(count: int, start: int, end: int, step: int) -> list[int]:
    """The positions that an ONNX Slice keeps, clamped as Python clamps them."""
    low = -count - 1
    stop = None if end <= low else end
    return list(range(count))[slice(start, stop, step)]


def _crop(site: Site, name: str, cuts: dict[int, list[int]]) -> Step | Refusal:
    spatial, dims = site.view.spatial, site.dims(name)
    begins, ends, strides = [], [], []
    bound = False
    for axis in spatial:
        start, end, step = cuts.get(axis, [0, np.iinfo(np.int64).max, 1])
        size = dims[axis]
        if step < 1:
            return Refusal("it runs backwards, which is not a convolution")
        if isinstance(size, int):
            kept = range(size)[start:end]
            if not kept:
                return Refusal("it keeps nothing")
            bound |= start < 0 or 0 <= end < np.iinfo(np.int32).max
            start, end = kept.start, kept.stop - size
        elif start < 0 or 0 <= end < np.iinfo(np.int32).max:
            return Refusal("its bounds depend on a size that is not known")
        begins.append(-start)
        ends.append(end if end < 0 else 0)
        strides.append(step)
    channels = site.channels(name)
    if channels is None:
        return Refusal("the number of its channels is not known")
    if bound and site.size(name) is None:
        return Refusal("its bounds hold at one size only, and a size is not known")
    cropped = window(channels, len(spatial), (*begins, *ends), tuple(strides))
    if bound:
        cropped = replace(cropped, at_size=site.size(name), is_identity=False)
    return unary(name, cropped)


def split(site: Site) -> Step | Refusal:
    """Split along the channels."""
    chosen = _channels_of_split(site)
    return chosen if isinstance(chosen, Refusal) else choose(site.input(0), chosen)


def _channels_of_split(site: Site) -> list[int] | Refusal:
    channels = site.channels(site.input(0))
    if site.axes([site.integer("axis", 0)]) != (site.view.axis,) or channels is None:
        return Refusal("it does not split the channels, or their number is not known")
    outputs = list(site.node.output)
    if len(outputs) > MOST_OUTPUTS:
        return Refusal(f"it has more than {MOST_OUTPUTS:,} outputs")
    sizes = site.integer_list("split")
    if site.input(1):
        sizes = site.integers(site.input(1))
        if sizes is None:
            return Refusal("its sizes are not constant")
    if sizes is None:
        if channels % len(outputs) and site.graph.opset < 18:
            return Refusal(f"{len(outputs)} equal parts of {channels} channels do not exist")
        part = math.ceil(channels / len(outputs))
        sizes = tuple(min(part, channels - i * part) for i in range(len(outputs)))
    if len(sizes) != len(outputs) or min(sizes) < 0 or sum(sizes) != channels:
        return Refusal(f"its sizes {list(sizes)} do not add up to {channels} channels")
    position = outputs.index(site.output)
    start = sum(sizes[:position])
    return list(range(start, start + sizes[position]))


def gather(site: Site) -> Step | Refusal:
    """Gather along the channels, by a constant list of them."""
    name = site.input(0)
    channels, indices = site.channels(name), site.integers(site.input(1))
    if site.axes([site.integer("axis", 0)]) != (site.view.axis,) or channels is None:
        return Refusal("it does not gather channels, or their number is not known")
    if indices is None:
        return Refusal("its indices are not constant")
    if not all(-channels <= i < channels for i in indices):
        return Refusal(f"it reads channels that are not there, of {channels}")
    return choose(name, [i % channels for i in indices])


def concatenation(site: Site) -> Step | Refusal:
    """Concat along the channels."""
    names = tuple(site.node.input)
    if site.axes([site.integer("axis", 1)]) != (site.view.axis,):
        return Refusal("it does not join channels")
    if any(site.graph.is_constant(n) for n in names):
        return Refusal("it joins constants")

    def combine(maps: Sequence[Term], size: Size | None) -> Term | Refusal:
        terms = [m for m in maps if isinstance(m, AffineConv)]
        if len(terms) < len(names):
            return Refusal("it joins a branch whose window is not interpreted")
        return concat(terms, size)

    return Step(names, combine)
