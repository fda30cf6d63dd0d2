"""A convolution whose channels are cut into parts is one convolution for each part.

    Split(act(Conv(x)))  ->  act(Conv_1(x)), act(Conv_2(x)), ...

Each has the rows of the weight, and the part of the bias, that make its channels. Nothing more is
computed, and what no part holds is not. ONNX Runtime keeps images in blocks of channels between
convolutions, and puts them back in order for a Split alone.

1. The Conv has a constant weight, a constant bias or none, and one group. Images have two
   dimensions: there are no blocks for others.
2. Between it and what cuts lie nodes that work on each channel by itself: elementwise ones, on
   tensors that come from that Conv and on constants that are one number or one for each channel,
   and Convs whose groups are as many channels behind as in front (depthwise ones), of which each
   part has whole groups. Nobody else reads, or needs, what they make.
3. A Split, or Slices, along the channels read the last tensor, nothing else does, and no channel is
   in two parts. There are no more than `_MOST_PARTS`.
4. It pays: each part fills whole blocks, of `LANES` channels, and where the kernel is larger than
   1x1 as many of them as a runtime works on at a time. A part goes on to another Conv, through
   nothing but what takes blocks as well.

Tried when there is nothing left to fold: what scales or shifts in front of the Split joins the Conv
before, what does so behind it joins the part's Conv afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from onnxfuse.affine import Refusal
from onnxfuse.cost import LANES
from onnxfuse.fold import Outcome
from onnxfuse.graph import Dim, Graph
from onnxfuse.lift.convolution import weights
from onnxfuse.lift.movement import chosen_channels
from onnxfuse.lift.site import Site
from onnxfuse.messages import operator
from onnxfuse.rewrites.images import ELEMENTWISE, IMAGE, is_elementwise, is_for_the_last
from onnxfuse.rewrites.split_making import Cuts, Head, Part, replaced

OPERATORS = frozenset({"Slice", "Split"})
"""Operators that cut."""
_BLOCKED = ELEMENTWISE | {
    "AveragePool",
    "Concat",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "MaxPool",
    "Resize",
    "Sum",
    "Upsample",
}
_AT_A_TIME = 4  # blocks; with fewer, kernels larger than 1x1 became slower when measured
_LONGEST, _FARTHEST = 24, 64  # nodes
_MOST_PARTS = 32


def split_convolutions(graph: Graph, skip: frozenset[str], *, always: bool = False) -> Outcome:
    """Computes the parts of what convolutions make by themselves.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.
        always: Whether that is done where it does not pay, too.

    Raises:
        CertificateError: If a part does not agree with the nodes it replaces.
    """
    outcome = Outcome()
    if not graph.takes_initializers:
        return outcome
    cuts = Cuts(graph)
    cutters = [node for node in graph.nodes if operator(node) in OPERATORS]
    for name in dict.fromkeys(node.input[0] for node in cutters):
        head = _head(graph, name, skip)
        if head is None or not (always or _pays(graph, head)):
            continue
        made = replaced(graph, head, cuts)
        if isinstance(made, Refusal):
            node = graph.nodes[head.parts[0].cutter]
            outcome.refusals.append((node.name or name, node.op_type, made.reason))
        else:
            outcome.folds.extend(made)
    graph.commit(prune=bool(outcome.folds))
    return outcome


def _head(graph: Graph, name: str, skip: frozenset[str]) -> Head | None:
    """The convolution that makes a tensor which is cut into parts."""
    if graph.is_pinned(name):
        return None
    parts = _parts(graph, name, skip)
    nodes = _above(graph, name, parts, skip) if 0 < len(parts) <= _MOST_PARTS else None
    if nodes is None:
        return None
    weight = graph.constant_shape(graph.nodes[nodes[0]].input[1]) or ()
    return Head(tuple(nodes), weight, parts)


def _parts(graph: Graph, name: str, skip: frozenset[str]) -> tuple[Part, ...]:
    """The parts of a tensor that somebody needs; none where it is not only cut into parts."""
    parts = []
    for index in graph.consumers[name]:
        node = graph.nodes[index]
        if operator(node) not in OPERATORS - skip:
            return ()
        for output in node.output:
            if not graph.consumers.get(output) and not graph.is_pinned(output):
                continue
            channels = chosen_channels(Site(graph, node, output, IMAGE))
            if isinstance(channels, Refusal) or not channels:
                return ()
            parts.append(Part(output, index, tuple(channels)))
    taken = [channel for part in parts for channel in part.channels]
    return tuple(parts) if len(set(taken)) == len(taken) else ()


# What lies between -------------------------------------------------------------------------------


def _above(
    graph: Graph, name: str, parts: Sequence[Part], skip: frozenset[str]
) -> list[int] | None:
    """The nodes from a Conv to a tensor, all of them for it alone."""
    _, channels, *_ = graph.type(name).shape or (0, 0)
    nodes: list[int] = []
    pending = {graph.producers.get(name, -1)}
    while len(nodes) < _LONGEST:
        index = max(pending)  # whatever reads what it makes was there before
        pending.remove(index)
        node = graph.nodes[index]
        if index < 0 or node.op_type in skip:
            return None
        nodes.insert(0, index)
        inputs = [name for name in node.input if name and not graph.is_constant(name)]
        if operator(node) == "Conv":
            groups = _groups(graph, node, channels, parts)
            if pending or not groups:
                return None
            if groups == 1:
                return nodes if is_for_the_last(graph, nodes) else None
        elif not inputs or not is_elementwise(graph, node, channels):
            return None
        pending.update(graph.producers.get(name, -1) for name in inputs)
    return None


def _groups(graph: Graph, node: onnx.NodeProto, channels: Dim, parts: Sequence[Part]) -> int:
    """The groups of a Conv; 0 where it does not go with the parts."""
    site = Site(graph, node, node.output[0], IMAGE)
    shape, groups = weights(site), site.integer("group", 1)
    if isinstance(shape, Refusal) or len(shape) != IMAGE.rank or shape[0] != channels:
        return 0
    if groups == 1:
        return 1
    several = shape[1]
    whole = all(
        part.channels[at : at + several] == tuple(range(first, first + several))
        and first % several == 0
        for part in parts
        for at, first in list(enumerate(part.channels))[::several]
    )
    return groups if whole and several * groups == channels else 0


# Whether it pays ---------------------------------------------------------------------------------


def _pays(graph: Graph, head: Head) -> bool:
    """True where parts fill blocks of channels, and one stays in them up to the next Conv."""
    whole = LANES if math.prod(head.weight[2:]) == 1 else _AT_A_TIME * LANES
    fill = all(len(part.channels) % whole == 0 for part in head.parts)
    return fill and any(_goes_on(graph, part.name) for part in head.parts)


def _goes_on(graph: Graph, name: str) -> bool:
    """True where a tensor leads to a Conv, through what takes blocks of channels as well."""
    pending, seen = [name], {name}
    while pending and len(seen) < _FARTHEST:
        for index in graph.consumers.get(pending.pop(), ()):
            node = graph.nodes[index]
            if operator(node) == "Conv":
                return True
            if operator(node) in _BLOCKED and node.output[0] not in seen:
                seen.add(node.output[0])
                pending.append(node.output[0])
    return False
