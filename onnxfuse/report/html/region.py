"""The two graphs of a fold: what was there, and what is there now."""

from __future__ import annotations

from collections.abc import Iterable

from onnxfuse.fold import Fold
from onnxfuse.graph import Dim
from onnxfuse.report.html.condense import condensed
from onnxfuse.report.html.diagram import Box, Diagram
from onnxfuse.report.html.numbers import shape
from onnxfuse.wiring import Wiring

_LINE, _SYMBOL = 20, 6


def before(fold: Fold) -> Diagram:
    """The replaced nodes between source and target."""
    labels = [(operator, name) for name, operator in fold.replaced]
    return condensed(_diagram(fold, labels, fold.before, "node"))


def after(fold: Fold) -> Diagram:
    """What stands in their place."""
    labels = [(operator, "") for operator in fold.nodes]
    return _diagram(fold, labels, fold.after, "made")


def _diagram(
    fold: Fold, labels: Iterable[tuple[str, str]], wirings: tuple[Wiring, ...], kind: str
) -> Diagram:
    boxes = [_tensor(fold.source, _source_shape(fold))]
    made = {fold.source: 0}
    edges: dict[tuple[int, int], None] = {}
    for (operator, name), wired in zip(labels, wirings, strict=True):
        edges.update(dict.fromkeys((made[i], len(boxes)) for i in wired.inputs if i in made))
        made.update(dict.fromkeys(wired.outputs, len(boxes)))
        boxes.append(_node(operator, name, wired, kind))
    edges[made.get(fold.target, 0), len(boxes)] = None
    boxes.append(_tensor(fold.target, fold.before[-1].shape if fold.before else None))
    return Diagram(tuple(boxes), tuple(edges))


def _tensor(name: str, extents: tuple[Dim, ...] | None) -> Box:
    return Box("tensor", name, _extents(extents), f"{name} {shape(extents)}".rstrip())


def _source_shape(fold: Fold) -> tuple[Dim, ...] | None:
    read = (
        extents
        for wired in fold.before
        for name, extents in zip(wired.inputs, wired.input_shapes, strict=True)
        if name == fold.source
    )
    return next(read, None)


def _node(operator: str, name: str, wired: Wiring, kind: str) -> Box:
    """A box for a node; its shape is shown where it is not that of what it reads."""
    lines = _wrapped(wired.settings.replace("->", "→"))
    if wired.shape is not None and wired.shape not in wired.input_shapes:
        lines += _extents(wired.shape)
    facts = (name, operator, wired.settings, shape(wired.shape))
    return Box(kind, operator, tuple(lines), "\n".join(filter(None, facts)))


def _wrapped(settings: str) -> list[str]:
    """Settings in lines, broken at commas."""
    lines: list[str] = []
    for word in settings.split(", ") if settings else ():
        if lines and len(lines[-1]) + len(word) <= _LINE:
            lines[-1] += f", {word}"
        else:
            lines.append(word)
    return lines


def _extents(extents: tuple[Dim, ...] | None) -> tuple[str, ...]:
    """A shape as a line, long symbols left out; no line where it is not known or a scalar's."""
    if not extents:
        return ()
    return (shape(d if isinstance(d, int) or len(d or "") <= _SYMBOL else None for d in extents),)
