"""Putting nodes in order: each after those whose results it reads.

ONNX asks for that order, runtimes do not. The first node of the file whose inputs are all there
comes first, so nodes move no further than they have to.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import onnx

from onnxfuse.errors import ModelError
from onnxfuse.io.checks import called
from onnxfuse.messages import bodies


def sort_nodes(graph: onnx.GraphProto, where: str, scopes: tuple[set[str], ...] = ()) -> None:
    """Sorts the nodes of a graph, and of the bodies in it, where they are not in order.

    Args:
        graph: The graph; its nodes are moved.
        where: What the messages begin with.
        scopes: Names that are there before the graph's nodes run.

    Raises:
        ModelError: One line that names a tensor on a cycle, and a node that reads it.
    """
    known = _given(graph)
    scopes = (*scopes, known)
    early: set[str] = set()  # read before anything made them
    for node in graph.node:
        for body in bodies(node):
            sort_nodes(body, where, scopes)
            early.update(name for name in captured(body) if name not in known)
        if not known.issuperset(node.input):
            early.update(name for name in node.input if name not in known)
        known.update(node.output)
    if not early.isdisjoint(known):
        known.clear()
        known |= _given(graph)
        order = _order(graph, where, scopes)
        ranks = dict(zip(order, range(len(order)), strict=True))
        keys = iter([ranks[index] for index in range(len(order))])
        graph.node.sort(key=lambda _: next(keys))


def _given(graph: onnx.GraphProto) -> set[str]:
    """Names that a graph's first node may read; "" is an input left out."""
    names = {value.name for value in (*graph.input, *graph.initializer)}
    return names.union((tensor.values.name for tensor in graph.sparse_initializer), ("",))


def captured(body: onnx.GraphProto) -> Iterator[str]:
    """The names that a body (of If, Loop, Scan) reads from around it."""
    own = _given(body)
    own.update(name for node in body.node for name in node.output)
    for node in body.node:
        yield from (name for name in node.input if name not in own)
        for inner in bodies(node):
            yield from (name for name in captured(inner) if name not in own)
    yield from (value.name for value in body.output if value.name not in own)


def _order(graph: onnx.GraphProto, where: str, scopes: tuple[set[str], ...]) -> list[int]:
    """Indices of the nodes, sorted (Kahn's algorithm, the first in the file first)."""
    makers: dict[str, int] = {}
    reads: list[list[str]] = []
    for index, node in enumerate(graph.node):
        reads.append([*node.input, *(name for body in bodies(node) for name in captured(body))])
        for name in node.output:
            if not any(name in scope for scope in scopes):
                makers.setdefault(name, index)
    needs = [{makers[name] for name in names if name in makers} for names in reads]
    readers: list[list[int]] = [[] for _ in needs]
    for index, sources in enumerate(needs):
        for source in sources:
            readers[source].append(index)
    missing = [len(sources) for sources in needs]
    ready = [index for index, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(needs):
        left = set(range(len(needs))).difference(order)
        index, name = _on_cycle(reads, makers, left)
        node = called(graph.node[index])
        raise ModelError(f"{where}: the graph has a cycle through {node} and its input '{name}'")
    return order


def _on_cycle(reads: list[list[str]], makers: dict[str, int], left: set[int]) -> tuple[int, str]:
    """A node on a cycle and its input on it; all nodes that are `left` depend on some cycle."""
    index, seen = min(left), set[int]()
    while True:
        name = next(name for name in reads[index] if makers.get(name) in left)
        if index in seen:
            return index, name
        seen.add(index)
        index = makers[name]
