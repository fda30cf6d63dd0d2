"""Sums put in an order in which branches of one source stand together.

    (z + conv3x3(x)) + conv1x1(x)  ->  (conv3x3(x) + conv1x1(x)) + z

Written in the first order no two terms of a sum have a source in common, and nothing folds.

1. The inner sums of the tree have one reader each, and nobody needs them by name.
2. Some, not all, of the terms are affine in one source, and one node for them is cheaper.
3. They do not stand together already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from onnxfuse import cost
from onnxfuse.affine import Refusal, total
from onnxfuse.graph import Graph
from onnxfuse.messages import operator
from onnxfuse.regions import Candidate, Regions

_SUMS = frozenset({"Add", "Sum"})
_DEEPEST = 64  # a sum below so many sums is one term to them


@dataclass(frozen=True)
class _Tree:
    """A sum of sums: its result, its terms, and the terms of each inner sum."""

    root: str
    terms: tuple[str, ...]
    inner: frozenset[frozenset[str]]


def group_branches(graph: Graph, regions: Regions) -> dict[str, str]:
    """Reorders sums so that branches of one source can fold; edits the graph, without committing.

    Returns:
        The new tensors, each with one whose type it has.
    """
    made: dict[str, str] = {}
    for index, node in enumerate(graph.nodes):
        if operator(node) in _SUMS and node.output[0] in regions.component:
            if _is_inner(graph, node.output[0]):
                continue
            tree = _tree(graph, index)
            group = _best_group(regions, tree)
            if group is not None:
                made |= _rewrite(graph, tree, group)
    return made


def _is_inner(graph: Graph, name: str) -> bool:
    """True when the only reader of a sum is another sum."""
    if name in graph.outputs or name in graph.captured or name in graph.keep:
        return False
    readers = graph.consumers.get(name, [])
    if len(readers) != 1:
        return False
    reader = graph.nodes[readers[0]]
    return operator(reader) in _SUMS and list(reader.input).count(name) == 1


def _tree(graph: Graph, index: int) -> _Tree:
    inner: set[frozenset[str]] = set()

    def terms(position: int, depth: int) -> Iterator[str]:
        for name in graph.nodes[position].input:
            maker = graph.producers.get(name)
            is_sum = maker is not None and operator(graph.nodes[maker]) in _SUMS
            if maker is not None and is_sum and depth < _DEEPEST and _is_inner(graph, name):
                below = tuple(terms(maker, depth + 1))
                inner.add(frozenset(below))
                yield from below
            else:
                yield name

    found = tuple(terms(index, 1))
    return _Tree(graph.nodes[index].output[0], found, frozenset(inner))


def _best_group(regions: Regions, tree: _Tree) -> tuple[str, ...] | None:
    """The terms that gain most by standing together, or None."""
    if len(tree.terms) < 3 or len(set(tree.terms)) < len(tree.terms):
        return None
    maps: dict[str, dict[str, Candidate | None]] = {}
    for term in tree.terms:
        maps.setdefault(term, {})[term] = None
        for candidate in regions.candidates.get(term, ()):
            if candidate.turned is not None:
                continue
            maps.setdefault(candidate.source, {})[term] = candidate
    best: tuple[int, tuple[str, ...] | None] = (0, None)
    for source, branches in maps.items():
        if not 2 <= len(branches) < len(tree.terms):
            continue
        group = tuple(name for name in tree.terms if name in branches)
        gain = _gain(regions, source, [branches[name] for name in group])
        best = max(best, (gain, group), key=lambda pair: pair[0])
    chosen = best[1]
    return None if chosen is None or frozenset(chosen) in tree.inner else chosen


def _gain(regions: Regions, source: str, branches: Sequence[Candidate | None]) -> int:
    """Nanoseconds that one node saves over the branches and the Adds that join them."""
    known = [branch for branch in branches if branch is not None]
    if not known or len({branch.view for branch in known}) > 1:
        return 0
    view, size = known[0].view, known[0].size
    own = regions.identity(source, view)
    maps = [own if branch is None else branch.term for branch in branches]
    joined = total([term for term in maps if term is not None], size)
    if isinstance(joined, Refusal) or None in maps:
        return 0
    apart = sum(branch.work.nanoseconds for branch in known)
    apart += (len(branches) - 1) * cost.movement(3 * regions.elements(source)).nanoseconds
    return apart - regions.candidate(source, view, joined).work.nanoseconds


def _rewrite(graph: Graph, tree: _Tree, group: tuple[str, ...]) -> dict[str, str]:
    nodes: list[onnx.NodeProto] = []
    made: dict[str, str] = {}
    rest = [name for name in tree.terms if name not in group]
    joined = group[0]
    for position, name in enumerate([*group[1:], *rest]):
        last = position == len(tree.terms) - 2
        output = tree.root if last else graph.unique_name(f"{tree.root}.sum")
        label = graph.unique_name(f"{output}/Add")
        nodes.append(helper.make_node("Add", [joined, name], [output], name=label))
        if not last:
            made[output] = group[0] if position < len(group) - 1 else tree.root
        joined = output
    graph.replace(tree.root, nodes)
    return made
