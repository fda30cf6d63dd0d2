"""What an activation saves, in nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxfuse.graph import Graph
from onnxfuse.messages import operator
from onnxfuse.rewrites.activations import NOTHING, Line, Recipe

_FACTORS = frozenset({"Div", "Mul", "Neg"})
SCALING = _FACTORS | {"Add", "Sub"}
"""Elementwise operators that scale and shift, where one of their inputs is constant."""
_LAYERS = frozenset({"Conv", "ConvTranspose"})
_WITHOUT_SHIFT = frozenset({"BatchNormalization", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Prices:
    """Counts nodes, those left out that an affine neighbour takes in.

    Attributes:
        graph: The graph.
        data: What each of its nodes computes on.
        skip: Operators that take nothing in.
    """

    graph: Graph
    data: Sequence[tuple[str, ...]]
    skip: frozenset[str]

    def gone(self, last: int, between: Sequence[int]) -> tuple[int, ...]:
        """Of the nodes between a tensor and the last of them, those that nobody else needs."""
        gone = {last}
        for index in reversed(between[:-1]):
            name = self.graph.nodes[index].output[0]
            readers = self.graph.consumers[name]
            few = len(readers) <= len(between) and gone.issuperset(readers)
            if few and not self.graph.is_pinned(name):
                gone.add(index)
        return tuple(sorted(gone))

    def saved(self, base: str, target: str, gone: Sequence[int], recipe: Recipe) -> int:
        """How many nodes fewer there are with a recipe in the place of those that go."""
        lead, trail = _count(recipe.lead), _count(recipe.trail)
        before, after = set(gone), len(recipe.steps) + lead + trail
        if self._is_taken_in_front(base, gone):
            before, after = before - self._front(base, gone), after - lead
        if self._is_taken_in_behind(target):
            scaled = recipe.trail[0] != NOTHING[0]
            before, after = before - self._behind(target, gone), after - scaled
        return len(before) - after

    def _front(self, base: str, gone: Sequence[int]) -> set[int]:
        """The nodes that scale and shift the base, before anything else does."""
        found: set[int] = set()
        name = base
        while len(readers := self.graph.consumers.get(name, [])) == 1 and readers[0] in gone:
            node = self.graph.nodes[readers[0]]
            if node.op_type not in SCALING or len(self.data[readers[0]]) != 1:
                break
            found.add(readers[0])
            name = node.output[0]
        return found

    def _behind(self, target: str, gone: Sequence[int]) -> set[int]:
        """The nodes that scale what becomes the target."""
        found: set[int] = set()
        name = target
        while (index := self.graph.producers.get(name)) is not None and index in gone:
            data = self.data[index]
            if self.graph.nodes[index].op_type not in _FACTORS or len(data) != 1:
                break
            found.add(index)
            (name,) = data
        return found

    def _is_taken_in_front(self, base: str, gone: Sequence[int]) -> bool:
        """True where a layer makes the base, for these nodes alone."""
        if self.graph.is_pinned(base) or any(
            reader not in gone for reader in self.graph.consumers[base]
        ):
            return False
        index = self.graph.producers.get(base)
        node = None if index is None else self.graph.nodes[index]
        return node is not None and operator(node) in _LAYERS - self.skip

    def _is_taken_in_behind(self, target: str) -> bool:
        """True where layers alone read the target; a shift may be lost on their borders."""
        readers = self.graph.consumers.get(target, ())
        return not self.graph.is_pinned(target) and all(
            operator(self.graph.nodes[index]) in (_LAYERS | _WITHOUT_SHIFT) - self.skip
            and self.data[index] == (target,)
            for index in readers
        )


def _count(line: Line) -> int:
    return (line[0] != NOTHING[0]) + (line[1] != NOTHING[1])
