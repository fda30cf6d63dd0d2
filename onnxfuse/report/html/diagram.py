"""Boxes and edges, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from onnxfuse.report.html.element import Markup, joined, shown, tag
from onnxfuse.report.html.layout import Placement, Point, place
from onnxfuse.report.html.lettering import fitted, width

TITLE, LINE = 12.0, 11.0
_FITS, _WIDE = 520, 1500
_WIDEST, _NARROWEST, _PADDING, _LEADING, _MARGIN = 164.0, 44.0, 9.0, 15.0, 3.0


@dataclass(frozen=True)
class Box:
    """One box.

    Attributes:
        kind: "tensor", "node" or "made"; decides its look.
        title: Its first line.
        lines: The others.
        tip: All there is to say of it.
    """

    kind: str
    title: str
    lines: tuple[str, ...] = ()
    tip: str = ""


@dataclass(frozen=True)
class Diagram:
    """A directed acyclic graph of boxes, in topological order.

    Attributes:
        boxes: The boxes.
        edges: Pairs of indices, the first of each less than the second.
    """

    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]


def draw(diagram: Diagram, title: str, description: str) -> Markup:
    """A diagram as an SVG image; title and description are what a screen reader says."""
    sizes = [_size(box) for box in diagram.boxes]
    placement = place(sizes, diagram.edges)
    wide, high = (round(n + 2 * _MARGIN) for n in (placement.width, placement.height))
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        tag("path", d="".join(map(_route, placement.routes)), class_="edge"),
        *_boxes(diagram.boxes, sizes, placement),
        role="img",
        class_=_look(wide),
        viewBox=f"{-_MARGIN:g} {-_MARGIN:g} {wide} {high}",
        width=wide,
        height=high,
    )


def _look(wide: int) -> str:
    """Narrow ones shrink to fit a phone, wide ones to fit a desk, others scroll."""
    return "graph" if wide <= _FITS else "graph wide" if wide <= _WIDE else "graph wide huge"


def _size(box: Box) -> tuple[float, float]:
    texts = [width(shown(box.title), TITLE, bold=True)]
    texts += [width(shown(line), LINE) for line in box.lines]
    extent = max(_NARROWEST, min(max(texts), _WIDEST)) + 2 * _PADDING
    return float(ceil(extent)), _LEADING * len(texts) + _PADDING


def _boxes(
    boxes: Sequence[Box], sizes: Sequence[tuple[float, float]], placement: Placement
) -> list[Markup]:
    return [
        _box(box, round(x), round(y), *size)
        for box, (x, y), size in zip(boxes, placement.corners, sizes, strict=True)
    ]


def _box(box: Box, x: int, y: int, wide: float, high: float) -> Markup:
    room = wide - 2 * _PADDING
    middle, first = x + wide / 2, y + _LEADING
    lines = [
        tag("text", fitted(shown(line), LINE, room), x=middle, y=first + _LEADING * number)
        for number, line in enumerate(box.lines, 1)
    ]
    return tag(
        "g",
        tag("title", box.tip) if box.tip else None,
        tag("rect", x=x, y=y, width=wide, height=high, rx=7 if box.kind != "tensor" else high / 2),
        tag(
            "text",
            fitted(shown(box.title), TITLE, room, bold=True, end=box.kind == "tensor"),
            x=middle,
            y=first,
            class_="name",
        ),
        joined(*lines),
        class_=box.kind,
    )


def _route(points: tuple[Point, ...]) -> str:
    """A line through the points: straight down where it can be, else an S; an arrow at its end."""
    rounded = [(round(x), round(y)) for x, y in points]
    words = ["M{} {}".format(*rounded[0])]
    for (x0, y0), (x1, y1) in pairwise(rounded):
        if x0 == x1:
            words.append(f"V{y1}")
        else:
            middle = (y0 + y1) // 2
            words.append(f"C{x0} {middle} {x1} {middle} {x1} {y1}")
    x, y = rounded[-1]
    return "".join(words) + f"M{x - 4} {y - 6}L{x} {y}L{x + 4} {y - 6}"
