"""Where activations are in a graph, and whether it pays to write them otherwise."""

from __future__ import annotations

from onnxfuse.fold import Fold
from onnxfuse.graph import Graph
from onnxfuse.lift import RULES as AFFINE
from onnxfuse.rewrites.activations import NOTHING, Line, Recipe, recipes
from onnxfuse.rewrites.making import SPACINGS, Match, replaced
from onnxfuse.rewrites.pointwise import Functions, is_pointwise

_MOST_NODES = 16
_ROUNDINGS = 1.5  # spacings: three numbers that were rounded, multiplied
_FACTORS = frozenset({"Div", "Mul", "Neg"})
_SCALING = _FACTORS | {"Add", "Sub"}
_STRAIGHT = _SCALING | {"Clip", "HardSigmoid", "LeakyRelu", "Max", "Min", "Relu"}
_MOST_CURVES = 3  # as many as the known activations are written with


def recognise_activations(graph: Graph, skip: frozenset[str]) -> list[Fold]:
    """Writes activations as the operators that they are, where that takes fewer nodes.

    A scale and a shift count for nothing where an affine neighbour takes them in.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.

    Raises:
        CertificateError: If an activation does not agree with the nodes it replaces.
    """
    folds: list[Fold] = []
    taken: set[int] = set()
    for index in reversed(range(len(graph.nodes))):
        match = None if index in taken else _best(graph, index, taken, skip)
        fold = None if match is None else replaced(graph, match)
        if match is not None and fold is not None:
            taken.update(match.gone)
            folds.append(fold)
    made = {name: graph.type(f.target) for f in folds for w in f.after for name in w.outputs}
    graph.types = {**graph.types, **made}
    graph.commit(prune=bool(folds))
    return folds[::-1]


def _best(graph: Graph, last: int, taken: set[int], skip: frozenset[str]) -> Match | None:
    """The recipe for a node's output that saves most, from the farthest tensor with any."""
    inside = _above(graph, last, taken, skip)
    target = graph.nodes[last].output[0]
    spacing = SPACINGS.get(graph.type(target).elem_type)
    if spacing is None:
        return None
    for base in _bases(graph, inside):
        between = _between(graph, base, last, inside)
        if sum(graph.nodes[index].op_type not in _STRAIGHT for index in between) > _MOST_CURVES:
            continue
        function = Functions(graph, base, inside).of(target)
        if function is None:
            continue
        gone = _gone(graph, last, between)
        found = [
            Match(base, target, function, recipe, between, gone, saved)
            for recipe in recipes(function, graph.opset, _ROUNDINGS * spacing)
            if (saved := _saved(graph, base, target, gone, recipe)) > 0
        ]
        if found:
            return max(found, key=lambda match: match.saved)
    return None


def _above(graph: Graph, last: int, taken: set[int], skip: frozenset[str]) -> frozenset[int]:
    """The elementwise nodes that lead to a node, itself included; no more than some."""
    inside: set[int] = set()
    pending = [last]
    while pending and len(inside) < _MOST_NODES:
        index = pending.pop(0)
        node = graph.nodes[index]
        if index in taken or index in inside or node.op_type in skip:
            continue
        if is_pointwise(graph, node):
            inside.add(index)
            pending.extend(graph.producers[n] for n in graph.data(index) if n in graph.producers)
    return frozenset(inside)


def _bases(graph: Graph, inside: frozenset[int]) -> list[str]:
    """What the last of some nodes may be a function of; nothing where none of them bends."""
    bends = any(graph.nodes[index].op_type not in _SCALING for index in inside)
    names = (name for index in sorted(inside) for name in graph.data(index))
    return list(dict.fromkeys(names)) if bends else []


def _between(graph: Graph, base: str, last: int, inside: frozenset[int]) -> tuple[int, ...]:
    """The nodes between a tensor and a node, in order."""
    between: set[int] = set()
    pending = [last]
    while pending:
        index = pending.pop()
        if index in inside and index not in between:
            between.add(index)
            data = (name for name in graph.data(index) if name != base)
            pending.extend(graph.producers[name] for name in data if name in graph.producers)
    return tuple(sorted(between))


def _gone(graph: Graph, last: int, between: tuple[int, ...]) -> tuple[int, ...]:
    """Those of them that nobody else needs."""
    gone = {last}
    for index in reversed(between[:-1]):
        name = graph.nodes[index].output[0]
        if not _is_seen(graph, name) and gone.issuperset(graph.consumers[name]):
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
    index = graph.producers.get(base)
    if index is None or _is_seen(graph, base) or not set(graph.consumers[base]) <= set(gone):
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
