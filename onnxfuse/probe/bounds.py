"""How far sizes have to go for what a stretch computes from them to have shown all it does.

A few sizes stand for all only where nothing changes beyond them. What may change it are constants:
a bound of a Slice, a number that a size is compared with, added to or divided by. So one of the
sizes is taken beyond them all. What would change at one size alone cannot be seen that way, nor
what is looked up in a table by size; both are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.graph import Graph
from onnxfuse.messages import attributes
from onnxfuse.probe.stretch import Stretch

_TO_THE_END = 1 << 20
_INDEXED = frozenset({"Gather", "GatherElements", "GatherND", "Scatter"}) | frozenset(
    {"ScatterElements", "ScatterND"}
)
_LOOKED_UP = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
_COMPARED = frozenset(
    {"Add", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Range", "Sub"}
)
_DIVIDED = frozenset({"Div", "Mod", "Mul"})


@dataclass(frozen=True)
class Reach:
    """How far the constants of a stretch reach.

    Attributes:
        bound: The largest index, bound, or number that something is added to or compared with.
        far: The same, times the largest divisor: a size that still matters after a division.
    """

    bound: int
    far: int


def reach(graph: Graph, stretch: Stretch) -> Reach | Refusal:
    """Bounds beyond which a stretch behaves as it does up to there, or why there are none."""
    bound, divisor = 0.0, 1.0
    for node in stretch.nodes:
        for value in _bounds(graph, node):
            bound = max(bound, value)
    for node in stretch.arithmetic:
        op = node.op_type
        constant = [graph.is_constant(name) for name in node.input]
        if op in _LOOKED_UP and constant[0] and not all(constant):
            return Refusal("it looks up a table by a size")
        numbers = [v for name in node.input for v in _numbers(graph, name)]
        if op == "Equal" and any(v >= 0 for v in numbers):
            return Refusal("it depends on whether a size is a certain number")
        if op in _COMPARED:
            bound = max([bound, *map(abs, numbers)])
        elif op in _DIVIDED:
            for number in filter(None, map(abs, numbers)):
                whole = number if op != "Mul" else 1.0
                divisor = max(divisor, whole if number >= 1.0 else 1.0 / number)
    return Reach(int(np.ceil(bound)), int(np.ceil((bound + 1) * divisor)))


def _bounds(graph: Graph, node: onnx.NodeProto) -> Iterator[float]:
    """Constant bounds and indices of a node, by their distance from zero."""
    names = node.input[1:3] if node.op_type == "Slice" else node.input[1:2]
    if node.op_type in _INDEXED or node.op_type == "Slice":
        for name in names:
            yield from map(abs, _numbers(graph, name))
    if node.op_type == "Slice":
        for name in ("starts", "ends"):
            if name in (given := attributes(node)):
                yield from (abs(v) for v in given[name].ints if abs(v) < _TO_THE_END)


def _numbers(graph: Graph, name: str) -> list[float]:
    """The smallest and largest numbers in a constant, those left out that mean "to the end"."""
    value = graph.constant(name) if name else None
    if value is None or value.dtype.kind not in "iuf" or not value.size:
        return []
    near = np.ravel(value).astype(np.float64)
    near = near[np.abs(near) < _TO_THE_END]
    return [float(near.min()), float(near.max())] if near.size else []
