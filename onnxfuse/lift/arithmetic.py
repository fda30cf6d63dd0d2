"""Add, Sub, Mul, Div, Neg, Sum and Mean, with constants and with each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxfuse.affine import (
    AffineConv,
    Deferred,
    Refusal,
    Size,
    Term,
    channel_affine,
    compose,
    select,
    total,
)
from onnxfuse.lift.site import Site, Step


def addition(site: Site) -> Step | Refusal:
    """Add, Sub, Sum and Mean: a weighted sum of the data inputs, plus the constants."""
    names = [n for n in site.node.input if n]
    op = site.node.op_type
    weights = [1.0] * len(names)
    if op == "Sub":
        weights = [1.0, -1.0]
    elif op == "Mean":
        weights = [1.0 / len(names)] * len(names)
    data = [(n, w) for n, w in zip(names, weights, strict=True) if not site.graph.is_constant(n)]
    if any(site.type(n).rank != site.view.rank for n, _ in data):
        return Refusal("its inputs differ in rank, or their rank is not known")
    shifts = []
    for name, weight in zip(names, weights, strict=True):
        if site.graph.is_constant(name):
            shift = site.per_channel(name, site.output)
            if isinstance(shift, Refusal):
                return shift
            shifts.append((shift, weight))
    scales = tuple(w for _, w in data)

    channels = site.channels(site.output)

    def combine(maps: Sequence[Term], size: Size | None) -> Term | Refusal:
        wide = max(m.out_channels for m in maps) if channels is None else channels
        found = _weighted_sum(maps, scales, wide, size)
        for shift, weight in shifts:
            if isinstance(found, Refusal):
                return found
            found = compose(_shift(shift, weight, wide, site), found, size)
        return found

    return Step(tuple(n for n, _ in data), combine)


def _shift(shift: Deferred, weight: float, channels: int, site: Site) -> AffineConv:
    ones = Deferred(lambda: np.ones(channels))
    value = Deferred(lambda: weight * np.broadcast_to(shift(), (channels,)))
    return channel_affine(ones, value, channels, len(site.view.spatial))


def _weighted_sum(
    maps: Sequence[Term], scales: Sequence[float], channels: int, size: Size | None
) -> Term | Refusal:
    parts = []
    for term, scale in zip(maps, scales, strict=True):
        part = _widened(term, channels)
        if scale != 1.0 and not isinstance(part, Refusal):
            part = _scaled(part, scale, size)
        if isinstance(part, Refusal):
            return part
        parts.append(part)
    return total(parts, size)


def _widened(term: Term, channels: int) -> Term | Refusal:
    """A map of one channel read as `channels` equal ones, as broadcasting does."""
    if term.out_channels == channels:
        return term
    if term.out_channels != 1 or not isinstance(term, AffineConv):
        return Refusal(f"a sum of {term.out_channels} and {channels} channels")
    return select(term, [0] * channels)


def _scaled(term: Term, scale: float, size: Size | None) -> Term | Refusal:
    factor = Deferred(lambda: np.full(term.out_channels, scale))
    return compose(channel_affine(factor, None, term.out_channels, len(term.kernel)), term, size)


def multiplication(site: Site) -> Step | Refusal:
    """Mul, Div and Neg by a constant: a scale per channel."""
    op = site.node.op_type
    names = list(site.node.input)
    constant = [site.graph.is_constant(n) for n in names]
    if op == "Neg":
        return _scale_by(site, names[0], Deferred(lambda: np.full(1, -1.0)))
    if not any(constant):
        word = "product" if op == "Mul" else "quotient"
        return Refusal(f"a {word} of two tensors that are both computed")
    if op == "Div" and constant[0]:
        return Refusal("a constant divided by a tensor")
    data = names[constant.index(False)]
    factor = site.per_channel(names[constant.index(True)], site.output)
    if isinstance(factor, Refusal):
        return factor
    if site.type(data).rank != site.view.rank:
        return Refusal("its constant adds dimensions, or a rank is not known")
    if op == "Div":
        divisor = factor
        if not np.all(divisor()):
            return Refusal("a division by zero")
        factor = Deferred(lambda: 1.0 / divisor())
    return _scale_by(site, data, factor)


def _scale_by(site: Site, data: str, factor: Deferred) -> Step | Refusal:
    channels = site.channels(site.output)
    if channels is None or site.channels(data) not in (1, channels):
        return Refusal("the number of its channels is not known")
    scale = Deferred(lambda: np.broadcast_to(factor(), (channels,)))
    scaling = channel_affine(scale, None, channels, len(site.view.spatial))

    def combine(maps: Sequence[Term], size: Size | None) -> Term | Refusal:
        wide = _widened(maps[0], channels)
        return wide if isinstance(wide, Refusal) else compose(scaling, wide, size)

    return Step((data,), combine)
