"""What the planner may choose from: for each affine tensor its own node, or a fold."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx

from onnxfuse import cost
from onnxfuse.affine import AffineConv, is_trivial
from onnxfuse.graph import Graph
from onnxfuse.lift import View
from onnxfuse.messages import operator
from onnxfuse.plan import Option
from onnxfuse.regions import Regions

_IMAGE = View.image(4)
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SHAPES = frozenset({"Shape", "Size"})
_POOLS = frozenset({"AveragePool", "GlobalAveragePool"})


@dataclass(frozen=True)
class Component:
    """The covering problem of one connected set of affine tensors.

    Attributes:
        order: Its tensors, in topological order.
        options: The ways to make each, its own node first.
        required: Those that somebody else reads, or that must be kept.
    """

    order: Sequence[str]
    options: dict[str, list[Option]]
    required: frozenset[str]


def components(regions: Regions, impossible: Collection[tuple[str, str]] = ()) -> list[Component]:
    """The covering problems of a graph; `impossible` are (target, source) not to choose."""
    graph = regions.graph
    members: dict[int, list[str]] = {}
    for node in graph.nodes:
        for output in node.output:
            if output in regions.component:
                members.setdefault(regions.component[output], []).append(output)
    outputs = {*graph.outputs, *graph.captured, *graph.keep}
    found = []
    for order in members.values():
        if not any(name in regions.candidates for name in order):
            continue
        inside = frozenset(order)
        required = frozenset(
            name for name in order if name in outputs or _read_elsewhere(graph, name, inside)
        )
        options = {name: _options(regions, name, inside, impossible) for name in order}
        found.append(Component(order, options, required))
    return found


def _read_elsewhere(graph: Graph, name: str, inside: frozenset[str]) -> bool:
    """True when somebody else reads a tensor; shapes read for the component's own use aside."""
    pending, seen = list(graph.consumers.get(name, ())), set[int]()
    while pending:
        index = pending.pop()
        if index in seen or not inside.isdisjoint(graph.nodes[index].output[:1]):
            continue
        seen.add(index)
        if graph.data(index) and operator(graph.nodes[index]) not in _SHAPES:
            return True
        for made in graph.nodes[index].output:
            if made in graph.outputs or made in graph.captured or made in graph.keep:
                return True
            pending.extend(graph.consumers.get(made, ()))
    return False


def _options(
    regions: Regions,
    name: str,
    inside: frozenset[str],
    impossible: Collection[tuple[str, str]],
) -> list[Option]:
    graph = regions.graph
    index = graph.producers[name]
    node = graph.nodes[index]
    data = list(graph.data(index))
    own = Option(
        tuple(n for n in data if n in inside),
        _own_cost(regions, node, name, data),
        nodes=int(name == node.output[0]),
    )
    options = [own]
    for choice, candidate in enumerate(regions.candidates.get(name, ())):
        if (name, candidate.source) in impossible:
            continue
        term = candidate.term if isinstance(candidate.term, AffineConv) else None
        trivial = term is not None and candidate.turned is None and is_trivial(term)
        moves = term is not None and term.is_movement
        if (moves or data == [candidate.source]) and not trivial:
            continue
        if not trivial and _is_part(graph, node, candidate.source):
            continue
        needs = (candidate.source,) if candidate.source in inside else ()
        spent, nodes = candidate.work.nanoseconds, 0 if trivial else candidate.nodes
        if trivial and not graph.can_alias(name, candidate.source):
            if data == [candidate.source]:
                continue
            spent, nodes = cost.NODE, 1
        options.append(Option(needs, spent, choice, nodes))
    return options


def _is_part(graph: Graph, node: onnx.NodeProto, source: str) -> bool:
    """True where a Split hands on all that a Conv makes of a tensor, in parts that fill no blocks.

    Whether such parts of an image are made apart depends on how runtimes block channels, which no
    cost here knows: `rewrites.merges` puts them together where that pays.
    """
    if operator(node) != "Split" or not all(
        graph.consumers.get(name) or graph.is_pinned(name) for name in node.output
    ):
        return False
    maker = graph.producers.get(node.input[0])
    layer = None if maker is None else graph.nodes[maker]
    if layer is None or operator(layer) != "Conv" or layer.input[0] != source:
        return False
    shapes = [graph.type(name).shape or () for name in node.output]
    counts = [shape[1] for shape in shapes if len(shape) == _IMAGE.rank]
    return sum(not isinstance(n, int) or n % cost.LANES != 0 for n in counts) > 1


def _own_cost(regions: Regions, node: onnx.NodeProto, name: str, data: list[str]) -> int:
    """The cost of a tensor's own node; a node's outputs share it."""
    direct = next((c for c in regions.candidates.get(name, ()) if [c.source] == data), None)
    within = regions.product(name, sum(regions.elements(n) for n in data))
    if within is not None:
        return within.nanoseconds
    if direct is not None and node.op_type in _PRODUCTS:
        return direct.work.nanoseconds
    out = regions.elements(name)
    if direct is not None and node.op_type in _POOLS:
        taps = math.prod(direct.term.kernel)
        return cost.pooling(regions.elements(data[0]), out, taps).nanoseconds
    moved = out + sum(regions.elements(n) for n in data)
    return cost.movement(moved).nanoseconds // len(node.output)
