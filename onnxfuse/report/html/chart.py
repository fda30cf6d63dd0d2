"""Charts that are as wide as the room they get: positions are percentages, text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxfuse.report.html.element import Markup, joined, tag
from onnxfuse.report.html.lettering import fitted
from onnxfuse.report.html.numbers import value

_LABEL, _TRACK, _AXIS, _EDGE = 18, 28, 24, 3.0
_LABEL_SIZE, _LABEL_ROOM = 12.0, 330.0
_TICKS = 5


@dataclass(frozen=True)
class Dot:
    """A number in a row of a dot chart.

    Attributes:
        at: The number.
        kind: "first" or "second"; decides its look.
        tip: What it is, in words.
        low: Lower end of its interval, or None.
        high: Upper end of its interval, or None.
    """

    at: float
    kind: str
    tip: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of a dot chart.

    Attributes:
        label: What it is about.
        dots: Its numbers.
        limit: Where a mark stands, or None.
    """

    label: str
    dots: tuple[Dot, ...]
    limit: float | None = None


class Scale:
    """Where numbers stand between the left edge, 0, and the right edge, 1."""

    def __init__(self, numbers: Sequence[float], *, log: bool) -> None:
        good = [n for n in numbers if math.isfinite(n)]
        self.log = log
        if log:
            positive = [n for n in good if n > 0] or [1.0]
            self.low = float(math.floor(math.log10(min(positive))))
            self.high = float(math.ceil(math.log10(max(positive))))
            self.high = max(self.high, self.low + 1)
            self.low -= any(n <= 0 for n in good)  # a place for zero
        else:
            self.low, self.high = min((0.0, *good)), max((*good, 0.0)) or 1.0
            step = _step(self.high - self.low)
            self.high = math.ceil(self.high / step - 1e-9) * step
        self.zero = log and any(n <= 0 for n in good)

    def at(self, number: float) -> float:
        """The place of a number, from 0 to 1; what is off the scale stands at its edge."""
        if math.isnan(number):
            return 1.0
        if self.log:
            number = (
                math.log10(number)
                if 0 < number < math.inf
                else math.copysign(math.inf, number or -1)
            )
        return min(max((number - self.low) / (self.high - self.low), 0.0), 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels of the marks on the axis."""
        if not self.log:
            step = _step(self.high - self.low)
            first = math.ceil(self.low / step)
            last = math.floor(self.high / step + 1e-9)
            return [(self.at(n * step), value(n * step)) for n in range(first, last + 1)]
        every = max(1, math.ceil((self.high - self.low) / _TICKS))
        powers = range(int(self.low) + self.zero, int(self.high) + 1, every)
        zero = [(0.0, "0")] if self.zero else []
        return zero + [(self.at(10.0**power), f"1e{power}") for power in powers]


def dots(rows: Sequence[Row], title: str, description: str, *, log: bool, unit: str = "") -> Markup:
    """A chart with a line for each row and dots on it.

    Args:
        rows: The rows.
        title: What a screen reader says first.
        description: And then.
        log: A logarithmic axis; zero has a place of its own then.
        unit: Of the numbers.
    """
    scale = Scale([n for row in rows for n in _numbers(row)], log=log)
    height = len(rows) * (_LABEL + _TRACK)
    parts: list[Markup] = []
    for at, label in scale.ticks():
        anchor = "start" if at < 0.02 else "end" if at > 0.98 else "middle"
        x = _percent(at)
        parts.append(tag("line", x1=x, x2=x, y1=_LABEL - 4, y2=height, class_="grid"))
        text = f"{label} {unit}".rstrip()
        parts.append(tag("text", text, x=x, y=height + 15, text_anchor=anchor, class_="tick"))
    for number, row in enumerate(rows):
        parts.append(_row(row, number * (_LABEL + _TRACK), scale))
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *parts,
        role="img",
        class_="chart",
        width="100%",
        height=height + _AXIS,
    )


def _row(row: Row, y: int, scale: Scale) -> Markup:
    middle = y + _LABEL + _TRACK // 2
    parts = [
        tag("text", fitted(row.label, _LABEL_SIZE, _LABEL_ROOM), x=0, y=y + 13, class_="label"),
        tag("line", x1=_percent(0), x2=_percent(1), y1=middle, y2=middle, class_="track"),
    ]
    if row.limit is not None:
        x = _percent(scale.at(row.limit))
        parts.append(tag("line", x1=x, x2=x, y1=middle - 8, y2=middle + 8, class_="limit"))
    for dot in row.dots:
        if dot.low is not None and dot.high is not None:
            ends = _percent(scale.at(dot.low)), _percent(scale.at(dot.high))
            parts.append(
                tag(
                    "line",
                    x1=ends[0],
                    x2=ends[1],
                    y1=middle,
                    y2=middle,
                    class_=f"whisker {dot.kind}",
                )
            )
        parts.append(
            tag(
                "circle",
                tag("title", dot.tip),
                cx=_percent(scale.at(dot.at)),
                cy=middle,
                r=5 if dot.kind == "second" else 4.5,
                class_=f"dot {dot.kind}",
            )
        )
    return tag("g", tag("title", row.label), *parts)


def strip(numbers: Sequence[float], limit: float, title: str, description: str) -> Markup:
    """Many numbers as ticks on one logarithmic line, and a mark at the limit."""
    scale = Scale([*numbers, limit], log=True)
    places = dict.fromkeys(_percent(scale.at(number)) for number in numbers)
    marks = [tag("line", x1=x, x2=x, y1=6, y2=26, class_="tally") for x in places]
    at = _percent(scale.at(limit))
    axis = [
        tag(
            "text",
            label,
            x=_percent(place),
            y=48,
            text_anchor="start" if place < 0.02 else "end" if place > 0.98 else "middle",
            class_="tick",
        )
        for place, label in scale.ticks()
    ]
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        tag("line", x1=_percent(0), x2=_percent(1), y1=32, y2=32, class_="track"),
        *marks,
        tag("line", x1=at, x2=at, y1=2, y2=32, class_="limit"),
        *axis,
        role="img",
        class_="chart",
        width="100%",
        height=54,
    )


def histogram(counts: Sequence[int], ends: tuple[str, str, str], title: str, desc: str) -> Markup:
    """Bars side by side, with labels for left, middle and right; heights are square roots."""
    tallest = math.sqrt(max(counts, default=0)) or 1.0
    bars = "".join(
        f"M{index} 100v-{max(100 * math.sqrt(count) / tallest, 2):.0f}h.9V100z"
        for index, count in enumerate(counts)
        if count
    )
    anchors = zip(ends, ("start", "middle", "end"), (0.0, 0.5, 1.0), strict=True)
    return tag(
        "svg",
        tag("title", title),
        tag("desc", desc),
        tag(
            "svg",
            tag("path", d=bars, class_="bars"),
            viewBox=f"0 0 {len(counts)} 100",
            preserveAspectRatio="none",
            width="100%",
            height=72,
        ),
        tag("line", x1="0%", x2="100%", y1=72.5, y2=72.5, class_="track"),
        joined(
            *(
                tag("text", label, x=f"{100 * at:g}%", y=88, text_anchor=anchor, class_="tick")
                for label, anchor, at in anchors
            )
        ),
        role="img",
        class_="chart",
        width="100%",
        height=92,
    )


def bar(*parts: tuple[float, str]) -> Markup:
    """Bars one below the other, each a share of the width and a class; to be seen if above 0."""
    rects = [
        tag("rect", x=0, y=index * 8, width=_whole(share), height=6, rx=1.5, class_=kind)
        for index, (share, kind) in enumerate(parts)
    ]
    height = 8 * len(parts) - 2
    return tag("svg", *rects, class_="bar", width="100%", height=height, aria_hidden="true")


def _numbers(row: Row) -> list[float]:
    ends = [end for dot in row.dots for end in (dot.low, dot.high)]
    return [n for n in (*(dot.at for dot in row.dots), *ends, row.limit) if n is not None]


def _percent(at: float) -> str:
    """A place with room for half a dot at both edges."""
    return f"{_EDGE + (100 - 2 * _EDGE) * at:.2f}%"


def _whole(share: float) -> str:
    return f"{100 * min(max(share, 0.006 if share else 0.0), 1.0):.1f}%"


def _step(extent: float) -> float:
    """A round step that gives about five marks."""
    rough = extent / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= rough * 0.999)
