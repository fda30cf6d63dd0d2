"""Where activations are in a graph, and whether it pays to write them otherwise."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from onnxfuse.affine import Refusal
from onnxfuse.fold import Outcome
from onnxfuse.graph import Graph
from onnxfuse.lift import RULES as AFFINE
from onnxfuse.rewrites.activations import NOTHING, Line, Recipe, recipes
from onnxfuse.rewrites.making import Match, replaced
from onnxfuse.rewrites.pointwise import Functions, is_pointwise
from onnxfuse.rounding import precision

_MOST_NODES = 16
_FEWEST_NODES = 2
_ROUNDINGS = 1.1  # a number that was rounded; the next to it is twice as far
_FACTORS = frozenset({"Div", "Mul", "Neg"})
_SCALING = _FACTORS | {"Add", "Sub"}
_STRAIGHT = _SCALING | {"Clip", "HardSigmoid", "LeakyRelu", "Max", "Min", "Relu"}
_MOST_CURVES = 3  # as many as the known activations are written with
_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
"""The types in which ONNX Runtime has every activation."""


def recognise_activations(graph: Graph, skip: frozenset[str]) -> Outcome:
    """Writes activations as the operators that they are, where that takes fewer nodes.

    A scale and a shift count for nothing where an affine neighbour takes them in. What would be
    less exact is left alone.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.
    """
    outcome = Outcome()
    if not graph.takes_initializers:
        return outcome
    search = _Search(graph, skip)
    for index in reversed(range(len(graph.nodes))):
        match = search.best(index)
        if match is None:
            continue
        made = replaced(graph, match)
        if isinstance(made, Refusal):
            node = graph.nodes[index]
            outcome.refusals.append((node.name or match.target, node.op_type, made.reason))
        else:
            search.taken.update(match.gone)
            outcome.folds.append(made)
    outcome.folds.reverse()
    folds = outcome.folds
    types = {name: graph.type(f.target) for f in folds for w in f.after for name in w.outputs}
    graph.types = {**graph.types, **types}
    graph.commit(prune=bool(outcome.folds))
    return outcome


class _Search:
    """Looks for the activation that ends with a node.

    Attributes:
        taken: Nodes that are no longer there.
    """

    def __init__(self, graph: Graph, skip: frozenset[str]) -> None:
        self.graph = graph
        self.taken: set[int] = set()
        self._pointwise = [
            node.op_type not in skip and is_pointwise(graph, index)
            for index, node in enumerate(graph.nodes)
        ]
        self._functions: dict[str, Functions] = {}

    def best(self, last: int) -> Match | None:
        """The recipe for a node's output that saves most, from the farthest tensor with any."""
        graph = self.graph
        if last in self.taken or not self._pointwise[last]:
            return None
        target = graph.nodes[last].output[0]
        kind = graph.type(target).elem_type
        if kind not in _TYPES:
            return None
        roundoff, _ = precision(onnx.helper.tensor_dtype_to_np_dtype(kind))
        inside = self._above(last)
        for base in self._bases(inside):
            between = self._between(base, last, inside)
            gone = _gone(graph, last, between)
            if len(gone) < _FEWEST_NODES:
                continue
            function = self._functions.setdefault(base, Functions(graph, base)).of(target)
            if function is None:
                continue
            found = [
                Match(base, target, function, recipe, between, gone, saved)
                for recipe in recipes(function, graph.opset, _ROUNDINGS * roundoff)
                if (saved := _saved(graph, base, target, gone, recipe)) > 0
            ]
            if found:
                return max(found, key=lambda match: match.saved)
        return None

    def _above(self, last: int) -> frozenset[int]:
        """The elementwise nodes that lead to a node, itself included; no more than some."""
        inside: set[int] = set()
        pending = [last]
        while pending and len(inside) < _MOST_NODES:
            index = pending.pop(0)
            if index not in inside and index not in self.taken and self._pointwise[index]:
                inside.add(index)
                names = self.graph.data(index)
                pending.extend(p for n in names if (p := self.graph.producers.get(n)) is not None)
        return frozenset(inside)

    def _bases(self, inside: frozenset[int]) -> list[str]:
        """What the last of some nodes may be a function of; nothing where none of them bends."""
        bends = any(self.graph.nodes[index].op_type not in _SCALING for index in inside)
        names = (name for index in sorted(inside) for name in self.graph.data(index))
        return list(dict.fromkeys(names)) if bends else []

    def _between(self, base: str, last: int, inside: frozenset[int]) -> tuple[int, ...]:
        """The nodes between a tensor and a node, in order; none where others lead there too."""
        between: set[int] = set()
        curves = 0
        pending = [last]
        while pending:
            index = pending.pop()
            if index in between:
                continue
            between.add(index)
            curves += self.graph.nodes[index].op_type not in _STRAIGHT
            if curves > _MOST_CURVES:
                return ()
            for name in self.graph.data(index):
                maker = self.graph.producers.get(name)
                if name != base and maker not in inside:
                    return ()
                if name != base and maker is not None:
                    pending.append(maker)
        return tuple(sorted(between))


def _gone(graph: Graph, last: int, between: tuple[int, ...]) -> tuple[int, ...]:
    """Those of them that nobody else needs."""
    gone = {last}
    for index in reversed(between[:-1]):
        name = graph.nodes[index].output[0]
        readers = graph.consumers[name]
        if len(readers) <= len(between) and not _is_seen(graph, name) and gone.issuperset(readers):
            gone.add(index)
    return tuple(sorted(gone))


def _is_seen(graph: Graph, name: str) -> bool:
    """True for a tensor that stays whatever reads it."""
    return name in graph.outputs or name in graph.captured or name in graph.keep


# Prices ----------------------------------------------------------------------------------------


def _saved(graph: Graph, base: str, target: str, gone: tuple[int, ...], recipe: Recipe) -> int:
    """How many nodes fewer there are, those left out that an affine neighbour takes in."""
    lead, trail = _count(recipe.lead), _count(recipe.trail)
    before, after = set(gone), len(recipe.steps) + lead + trail
    if _is_taken_in_front(graph, base, gone):
        before, after = before - _front(graph, base, gone), after - lead
    if _is_taken_in_behind(graph, target):
        before, after = before - _behind(graph, target, gone), after - (recipe.trail[0] != 1.0)
    return len(before) - after


def _count(line: Line) -> int:
    return (line[0] != NOTHING[0]) + (line[1] != NOTHING[1])


def _front(graph: Graph, base: str, gone: tuple[int, ...]) -> set[int]:
    """The nodes that scale and shift the base, before anything else does."""
    found: set[int] = set()
    name = base
    while len(readers := graph.consumers.get(name, [])) == 1 and readers[0] in gone:
        node = graph.nodes[readers[0]]
        if node.op_type not in _SCALING or len(graph.data(readers[0])) != 1:
            break
        found.add(readers[0])
        name = node.output[0]
    return found


def _behind(graph: Graph, target: str, gone: tuple[int, ...]) -> set[int]:
    """The nodes that scale what becomes the target."""
    found: set[int] = set()
    name = target
    while (index := graph.producers.get(name)) is not None and index in gone:
        data = graph.data(index)
        if graph.nodes[index].op_type not in _FACTORS or len(data) != 1:
            break
        found.add(index)
        (name,) = data
    return found


def _is_taken_in_front(graph: Graph, base: str, gone: tuple[int, ...]) -> bool:
    """True where an affine node makes the base, for these nodes alone."""
    index, readers = graph.producers.get(base), graph.consumers[base]
    if index is None or _is_seen(graph, base) or len(readers) > len(gone):
        return False
    if not set(readers) <= set(gone):
        return False
    return graph.nodes[index].op_type in AFFINE


def _is_taken_in_behind(graph: Graph, target: str) -> bool:
    """True where affine nodes alone read the target; a shift may be lost on their borders."""
    if _is_seen(graph, target):
        return False
    return all(
        graph.nodes[index].op_type in AFFINE and graph.data(index) == (target,)
        for index in graph.consumers.get(target, ())
    )
