"""Layered drawings of directed acyclic graphs, top to bottom.

Sugiyama's four steps, each in its simplest form: layers by longest path; a bend for every layer
that an edge passes; an order within each layer by barycentres; and coordinates as near to the
neighbours' as the room allows (least squares, exactly, by pooling adjacent violators).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

GAP, RISE, BEND = 16.0, 26.0, 6.0
_SWEEPS = 8

Point = tuple[float, float]


@dataclass(frozen=True)
class Placement:
    """Where everything goes.

    Attributes:
        corners: Left upper corner of each box.
        routes: For each edge the points it passes; between two points with one x it is straight.
        width: Width of the drawing.
        height: Height of the drawing.
    """

    corners: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]
    width: float
    height: float


@dataclass
class _Slot:
    """A box, or a bend of an edge, in a layer."""

    width: float
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)
    weight: float = 1.0
    x: float = 0.0
    """Of its middle."""


def place(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Placement:
    """Lays a graph out.

    Args:
        sizes: Width and height of each box.
        edges: Pairs of boxes, the first of each before the second in `sizes`.
    """
    layer = [0] * len(sizes)
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        layer[end] = max(layer[end], layer[start] + 1)
    slots = [_Slot(width) for width, _ in sizes]
    layers: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for box, depth in enumerate(layer):
        layers[depth].append(box)
    paths = [_path(edge, layer, slots, layers) for edge in edges]
    _order(slots, layers)
    _align(slots, layers)
    left = min((slot.x - slot.width / 2 for slot in slots), default=0.0)
    for slot in slots:
        slot.x -= left
    tops, bottoms = _heights(sizes, layer, len(layers))
    corners = [
        (
            slots[box].x - width / 2,
            tops[layer[box]] + (bottoms[layer[box]] - tops[layer[box]] - h) / 2,
        )
        for box, (width, h) in enumerate(sizes)
    ]
    routes = []
    for (start, end), path in zip(edges, paths, strict=True):
        first, last = corners[start][1] + sizes[start][1], corners[end][1]
        points = [(slots[start].x, first), (slots[start].x, bottoms[layer[start]])]
        for depth, bend in enumerate(path[1:-1], layer[start] + 1):
            points += [(slots[bend].x, tops[depth]), (slots[bend].x, bottoms[depth])]
        routes.append((*points, (slots[end].x, tops[layer[end]]), (slots[end].x, last)))
    return Placement(
        corners=tuple(corners),
        routes=tuple(routes),
        width=max((slot.x + slot.width / 2 for slot in slots), default=0.0),
        height=bottoms[-1] if bottoms else 0.0,
    )


def _path(
    edge: tuple[int, int], layer: list[int], slots: list[_Slot], layers: list[list[int]]
) -> list[int]:
    """The slots that an edge passes, new ones for its bends; links them."""
    start, end = edge
    bends = range(len(slots), len(slots) + layer[end] - layer[start] - 1)
    for bend, depth in zip(bends, range(layer[start] + 1, layer[end]), strict=True):
        slots.append(_Slot(BEND, weight=4.0))
        layers[depth].append(bend)
    path = [start, *bends, end]
    for upper, lower in pairwise(path):
        slots[upper].below.append(lower)
        slots[lower].above.append(upper)
    return path


def _order(slots: list[_Slot], layers: list[list[int]]) -> None:
    """Sorts each layer by the mean place of its neighbours, downwards and upwards in turn."""
    spots = {slot: float(index) for members in layers for index, slot in enumerate(members)}
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for members in layers if down else reversed(layers):
            means = {}
            for slot in members:
                near = slots[slot].above if down else slots[slot].below
                means[slot] = (
                    sum(spots[other] for other in near) / len(near) if near else spots[slot]
                )
            members.sort(key=means.__getitem__)
            for index, slot in enumerate(members):
                spots[slot] = index - (len(members) - 1) / 2


def _align(slots: list[_Slot], layers: list[list[int]]) -> None:
    """Gives every slot its x: as near to its neighbours' as no overlap allows."""
    for members in layers:
        _spread(slots, members, [0.0] * len(members))
    for sweep in range(_SWEEPS):
        for members in layers if sweep % 2 == 0 else reversed(layers):
            _spread(slots, members, [_wanted(slots, slots[member], sweep) for member in members])


def _wanted(slots: list[_Slot], slot: _Slot, sweep: int) -> float:
    """The mean x of the neighbours above, below, and in the end on both sides.

    Edges that pass several layers pull harder, so that they are straight.
    """
    near = [*slot.above, *slot.below]
    if sweep < _SWEEPS - 2:
        near = (slot.below if sweep % 2 else slot.above) or near
    pulls = [slot.weight * slots[other].weight for other in near]
    total = sum(pull * slots[other].x for pull, other in zip(pulls, near, strict=True))
    return total / sum(pulls) if pulls else slot.x


def _spread(slots: list[_Slot], members: list[int], wanted: list[float]) -> None:
    """The positions nearest to those wanted, in order and without overlap (isotonic regression)."""
    blocks: list[tuple[float, float, int]] = []  # weight, weighted sum, slots in it
    offset, offsets = 0.0, []
    for index, member in enumerate(members):
        if index:
            offset += (slots[members[index - 1]].width + slots[member].width) / 2 + GAP
        offsets.append(offset)
        weight, total, count = (
            slots[member].weight,
            slots[member].weight * (wanted[index] - offset),
            1,
        )
        while blocks and blocks[-1][1] / blocks[-1][0] >= total / weight:
            before = blocks.pop()
            weight, total, count = weight + before[0], total + before[1], count + before[2]
        blocks.append((weight, total, count))
    starts = [total / weight for weight, total, count in blocks for _ in range(count)]
    for member, start, offset in zip(members, starts, offsets, strict=True):
        slots[member].x = start + offset


def _heights(
    sizes: Sequence[tuple[float, float]], layer: list[int], count: int
) -> tuple[list[float], list[float]]:
    """Upper and lower edge of each layer."""
    heights = [0.0] * count
    for (_, height), depth in zip(sizes, layer, strict=True):
        heights[depth] = max(heights[depth], height)
    tops, bottoms, y = [], [], 0.0
    for height in heights:
        tops.append(y)
        bottoms.append(y + height)
        y += height + RISE
    return tops, bottoms
