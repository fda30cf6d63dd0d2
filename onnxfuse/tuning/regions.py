"""Where models that compute the same differ: regions between tensors that all of them have.

Folds and rewrites keep the name of the tensor that they make, and give every other one a new name.
So a name that two optimizations of one model share stands for one tensor, and whatever lies between
such tensors can be taken from either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxfuse.graph import Graph
from onnxfuse.messages import attributes, bodies, has_effects

_SETTINGS = 64  # integers up to this many are sizes, repeats and the like: time depends on them


@dataclass(frozen=True)
class Part:
    """How one model makes the tensors of a region.

    Attributes:
        nodes: Its nodes, by index, in order.
        inputs: What they read and do not make, constants left out.
        digest: The same for parts that are the same, whatever the tensors inside are called.
        shape: The same for parts of the same nodes and types, whatever their weights and names.
    """

    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    digest: str
    shape: str


@dataclass(frozen=True)
class Region:
    """Tensors that all models have, and that each makes in its own way.

    Attributes:
        outputs: The tensors.
        parts: How they are made, model by model.
        is_flat: Whether no node has a body.
    """

    outputs: tuple[str, ...]
    parts: tuple[Part, ...]
    is_flat: bool

    def ways(self) -> list[int]:
        """The models that make it each in another way: the first, and others unlike those before.

        Nodes with bodies stay as the first has them: what those read keeps its name.
        """
        if not self.is_flat:
            return [0]
        first: dict[str, int] = {}
        for index, part in enumerate(self.parts):
            first.setdefault(part.digest, index)
        return sorted(first.values())


def shared_tensors(graphs: Sequence[Graph]) -> frozenset[str]:
    """Names of tensors that the nodes of every graph make."""
    made = [graph.producers.keys() for graph in graphs]
    return frozenset(made[0]).intersection(*made[1:])


def regions(graphs: Sequence[Graph], shared: frozenset[str]) -> list[Region]:
    """The regions, in the order of the first graph.

    Tensors that some graph makes together, sharing nodes, are in one region.

    Args:
        graphs: The models' main graphs.
        shared: The tensors that all of them have.
    """
    made = [{name: _nodes_behind(graph, name, shared) for name in shared} for graph in graphs]
    together = _Sets(shared)
    for behind in made:
        first: dict[int, str] = {}
        for name, nodes in behind.items():
            for node in nodes:
                together.join(first.setdefault(node, name), name)
    found = []
    for names in together.all():
        outputs = tuple(sorted(names, key=lambda name: (graphs[0].producers[name], name)))
        nodes_of = [sorted(set().union(*(behind[name] for name in names))) for behind in made]
        parts = tuple(
            _part(graph, nodes, shared) for graph, nodes in zip(graphs, nodes_of, strict=True)
        )
        is_flat = not any(
            any(True for _ in bodies(graph.nodes[index]))
            for graph, nodes in zip(graphs, nodes_of, strict=True)
            for index in nodes
        )
        found.append(Region(outputs, parts, is_flat))
    return sorted(found, key=lambda region: graphs[0].producers[region.outputs[0]])


def is_given(graph: Graph, name: str) -> bool:
    """True for a tensor that nodes of the graph make, or that comes in; not for those of bodies."""
    return not graph.is_constant(name) and (name in graph.producers or name in graph.inputs)


def outline(graph: Graph, node: onnx.NodeProto) -> str:
    """The same for nodes that take as long: whatever their weights and names, at one size."""
    digest = hashlib.sha256()
    for text in _described(graph, node, {}, named=False):
        digest.update(text)
        digest.update(b"\0")
    return digest.hexdigest()


def is_divisible(graph: Graph) -> bool:
    """False where nodes are there for what they do, and not for what they make."""
    return not any(map(has_effects, graph.nodes))


def _nodes_behind(graph: Graph, name: str, shared: frozenset[str]) -> set[int]:
    """The nodes that make a tensor from shared ones."""
    found: set[int] = set()
    pending = [graph.producers[name]]
    while pending:
        index = pending.pop()
        if index in found:
            continue
        found.add(index)
        pending.extend(
            graph.producers[read]
            for read in graph.reads[index]
            if read in graph.producers and read not in shared
        )
    return found


def _part(graph: Graph, nodes: Sequence[int], shared: frozenset[str]) -> Part:
    read = dict.fromkeys(name for index in nodes for name in graph.reads[index])
    made = {name for index in nodes for name in graph.nodes[index].output}
    inputs = tuple(name for name in read if name not in made and is_given(graph, name))
    inside: dict[str, str] = {}
    whole, shape = hashlib.sha256(), hashlib.sha256()
    for index in nodes:
        node = graph.nodes[index]
        inside.update((name, f"{len(inside)}") for name in node.output if name not in shared)
        for digest, named in ((whole, True), (shape, False)):
            for text in _described(graph, node, inside, named):
                digest.update(text)
                digest.update(b"\0")
    return Part(tuple(nodes), inputs, whole.hexdigest(), shape.hexdigest())


def _described(
    graph: Graph, node: onnx.NodeProto, inside: Mapping[str, str], named: bool
) -> Iterator[bytes]:
    """A node in bytes: with names of shared tensors and constants' values, or without."""
    yield f"{node.domain}:{node.op_type}".encode()
    for _, attribute in sorted(attributes(node).items()):
        yield attribute.SerializeToString(deterministic=True)
    for name in (*node.input, "=>", *node.output):
        if name in inside:
            yield f"inside {inside[name]}".encode()
        elif graph.is_constant(name):
            yield f"constant {graph.constant_type(name)} {graph.constant_shape(name)}".encode()
            value = graph.constant(name)
            assert value is not None
            if named or (value.dtype.kind not in "fc" and value.size <= _SETTINGS):
                yield hashlib.sha256(value.tobytes()).digest()
        else:
            yield name.encode() if named or name in ("", "=>") else b"shared"


class _Sets:
    """Disjoint sets of names."""

    def __init__(self, names: frozenset[str]) -> None:
        self._parent = {name: name for name in names}

    def join(self, one: str, other: str) -> None:
        self._parent[self._root(one)] = self._root(other)

    def all(self) -> list[list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._parent:
            found.setdefault(self._root(name), []).append(name)
        return list(found.values())

    def _root(self, name: str) -> str:
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name
