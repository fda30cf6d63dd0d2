"""Large graphs made small enough to look at: what is in a row, or side by side, becomes one box.

Rows and sides are merged in turn (a series-parallel reduction) until few enough boxes are left.
Where that does not do, one box counts the operators.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

from onnxfuse.report.html.diagram import Box, Diagram

LARGEST = 40
_LINES, _PER_LINE = 3, 22

Parts = list[tuple[str, ...]]


def condensed(diagram: Diagram, largest: int = LARGEST) -> Diagram:
    """The diagram with at most `largest` nodes; boxes of the kind "tensor" stay."""
    parts: Parts = [(box.title,) for box in diagram.boxes]
    while _nodes(diagram) > largest:
        before = len(diagram.boxes)
        for merge in (_rows, _sides):
            diagram, parts = merge(diagram, parts)
            if _nodes(diagram) <= largest:
                break
        if len(diagram.boxes) == before:
            return _counted(diagram, parts)
    return diagram


def _nodes(diagram: Diagram) -> int:
    return sum(box.kind != "tensor" for box in diagram.boxes)


def _rows(diagram: Diagram, parts: Parts) -> tuple[Diagram, Parts]:
    """Merges nodes into the one before them where neither has another neighbour there."""
    above, below = _neighbours(diagram)
    group = list(range(len(diagram.boxes)))
    for box in range(len(diagram.boxes)):
        if diagram.boxes[box].kind == "tensor" or len(above[box]) != 1:
            continue
        (one,) = above[box]
        if len(below[one]) == 1 and diagram.boxes[one].kind != "tensor":
            group[box] = group[one]
    merged = defaultdict(list)
    for box, head in enumerate(group):
        merged[head].append(box)
    words = {head: tuple(p for box in boxes for p in parts[box]) for head, boxes in merged.items()}
    return _merged(diagram, group, words)


def _sides(diagram: Diagram, parts: Parts) -> tuple[Diagram, Parts]:
    """Merges nodes that are alike and have the same neighbours."""
    above, below = _neighbours(diagram)
    first: dict[object, int] = {}
    group, count = list(range(len(diagram.boxes))), Counter[int]()
    for box, drawn in enumerate(diagram.boxes):
        key = (parts[box], frozenset(above[box]), frozenset(below[box]))
        if drawn.kind != "tensor":
            group[box] = first.setdefault(key, box)
        count[group[box]] += 1
    words = {
        head: parts[head] if number == 1 else (f"{number} × ({' > '.join(_runs(parts[head]))})",)
        for head, number in count.items()
    }
    return _merged(diagram, group, words)


def _neighbours(diagram: Diagram) -> tuple[list[list[int]], list[list[int]]]:
    above: list[list[int]] = [[] for _ in diagram.boxes]
    below: list[list[int]] = [[] for _ in diagram.boxes]
    for start, end in diagram.edges:
        above[end].append(start)
        below[start].append(end)
    return above, below


def _merged(
    diagram: Diagram, group: list[int], words: dict[int, tuple[str, ...]]
) -> tuple[Diagram, Parts]:
    """The diagram of groups, each in the place of its first box."""
    heads = sorted(words)
    at = {head: index for index, head in enumerate(heads)}
    members = Counter(group)
    boxes = [
        diagram.boxes[head] if members[head] == 1 else _box(diagram.boxes[head], words[head])
        for head in heads
    ]
    edges = dict.fromkeys((at[group[start]], at[group[end]]) for start, end in diagram.edges)
    inner = tuple(edge for edge in edges if edge[0] != edge[1])
    return Diagram(tuple(boxes), inner), [words[head] for head in heads]


def _box(like: Box, words: tuple[str, ...]) -> Box:
    """One box for what the words name."""
    runs = _runs(words)
    if len(runs) == 1:
        return replace(like, title=runs[0], lines=(), tip=runs[0])
    return replace(like, title=runs[0], lines=_wrapped(runs[1:]), tip=" > ".join(runs))


def _runs(words: tuple[str, ...]) -> list[str]:
    """Words in a row that are the same, once: Pad, Pad, Add as Pad ×2, Add."""
    runs: list[tuple[str, int]] = []
    for word in words:
        if runs and runs[-1][0] == word:
            runs[-1] = (word, runs[-1][1] + 1)
        else:
            runs.append((word, 1))
    return [word if count == 1 else f"{word} ×{count}" for word, count in runs]


def _wrapped(words: list[str]) -> tuple[str, ...]:
    lines = [""]
    for word in words:
        joined = f"{lines[-1]} > {word}"
        if len(joined) <= _PER_LINE or not lines[-1]:
            lines[-1] = joined if lines[-1] else f"> {word}"
        elif len(lines) == _LINES:
            lines[-1] += " …"
            break
        else:
            lines.append(f"> {word}")
    return tuple(lines)


def _counted(diagram: Diagram, parts: Parts) -> Diagram:
    """All nodes as one box, between what is no node."""
    counts = Counter(
        part
        for box, words in zip(diagram.boxes, parts, strict=True)
        if box.kind != "tensor"
        for part in words
    )
    words = [f"{word} ×{count}" for word, count in counts.most_common()]
    like = next(box for box in diagram.boxes if box.kind != "tensor")
    one = replace(
        like, title=f"{_nodes(diagram)} groups", lines=_wrapped(words), tip=", ".join(words)
    )
    tensors = [box for box in diagram.boxes if box.kind == "tensor"]
    boxes = (*tensors[:1], one, *tensors[1:])
    return Diagram(boxes, tuple((i, i + 1) for i in range(len(boxes) - 1)))
