"""Convolutions over one tensor become one convolution, whose channels are cut into parts.

    act(Conv_1(x)), act(Conv_2(x)), ...  ->  Split(act(Conv(x)))

The weight has the rows of theirs, one below the other. Runtimes work on blocks of channels, and
what a block lacks is computed all the same: the heads of a detector, of 4, 2 and 10 channels, take
three blocks apart, and one together.

1. The Convs read the same tensor, with constant weights, constant biases or none, one group, and
   kernels, strides, dilations and paddings that are equal. Images have two dimensions: there are no
   blocks for others.
2. Behind each may lie the same nodes, as far as these work on each channel by itself: elementwise
   ones, with constants that are one number or one for each channel, and depthwise Convs. They go
   in front of the Split as far as nobody else reads, or needs, what lies in between.
3. It pays: none of the Convs fills whole blocks, and together they need fewer of them, for blocks
   of `LANES` channels and of half as many.

Tried when there is nothing left to fold.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

import onnx

from onnxfuse.affine import Refusal
from onnxfuse.cost import LANES
from onnxfuse.fold import Outcome
from onnxfuse.graph import Graph
from onnxfuse.lift.convolution import weights
from onnxfuse.lift.site import Site
from onnxfuse.messages import operator
from onnxfuse.rewrites import measured
from onnxfuse.rewrites.images import IMAGE, is_elementwise, is_for_the_last
from onnxfuse.rewrites.merge_making import Family, Rows, replaced

NAME = "merges"
_BLOCKS = (LANES // 2, LANES)
_LONGEST = 24  # nodes
_EXTREMES = ("Max", "Min")
_BROADCAST_SINCE = 8  # opset; before it, a constant has the shape of the tensor


def merge_convolutions(
    graph: Graph,
    skip: frozenset[str],
    *,
    margin: float | None = None,
    blocks: Sequence[int] = _BLOCKS,
) -> Outcome:
    """Makes convolutions over one tensor together.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.
        margin: How many times fewer blocks of channels there have to be; default: from where that
            was measured to pay.
        blocks: The sizes of blocks for which it has to be so.

    Raises:
        CertificateError: If a part does not agree with the nodes it replaces.
    """
    outcome = Outcome()
    if not graph.takes_initializers or skip & {"Conv", "Split"}:
        return outcome
    least = measured.paying_from(NAME) if margin is None else margin
    rows = Rows(graph)
    gone = set[int]()
    for alike in _alike(graph):
        convs, gain = _best(graph, alike, blocks, least)
        if gain <= 1 or not gone.isdisjoint(convs):
            continue
        family = Family(tuple(_together(graph, convs, skip)))
        made = replaced(graph, family, rows)
        if isinstance(made, Refusal):
            node = graph.nodes[convs[0]]
            outcome.refusals.append((node.name or node.output[0], node.op_type, made.reason))
        else:
            outcome.folds.append(made)
            gone.update(*family.chains)
    graph.commit(prune=bool(outcome.folds))
    return outcome


def gain_at(graph: Graph, index: int) -> float | None:
    """How many times fewer blocks are needed when others join a Conv; None where none does."""
    found = (_best(graph, alike, _BLOCKS, 1.0) for alike in _alike(graph))
    return next((gain for convs, gain in found if gain > 1 and convs[0] == index), None)


# Convolutions that go together -------------------------------------------------------------------


def _best(
    graph: Graph, alike: Sequence[int], blocks: Sequence[int], least: float
) -> tuple[list[int], float]:
    """The Convs that become one, and how many times fewer blocks that takes; 1 where it does not.

    All that fill no whole blocks of the larger size, or else of the smaller.
    """
    for size in sorted(blocks, reverse=True):
        convs = [index for index in alike if _channels(graph, index) % size]
        gain = min(_gain(graph, convs, block) for block in blocks) if convs else 1.0
        if gain >= least:
            return convs, gain
    return [], 1.0


def _gain(graph: Graph, convs: Iterable[int], block: int) -> float:
    """The blocks that Convs fill by themselves, over those that they fill together."""
    counts = [_channels(graph, index) for index in convs]
    return sum(math.ceil(n / block) for n in counts) / math.ceil(sum(counts) / block)


def _channels(graph: Graph, conv: int) -> int:
    return (graph.constant_shape(graph.nodes[conv].input[1]) or (0,))[0]


def _alike(graph: Graph) -> list[list[int]]:
    """Convs over one tensor that differ in their weights alone."""
    families: dict[Hashable, list[int]] = defaultdict(list)
    for index, node in enumerate(graph.nodes):
        if operator(node) != "Conv":
            continue
        site = Site(graph, node, node.output[0], IMAGE)
        shape = weights(site)
        if isinstance(shape, Refusal) or len(shape) != IMAGE.rank or site.integer("group", 1) != 1:
            continue
        families[(node.input[0], shape[1:], _window(site))].append(index)
    return list(families.values())


def _window(site: Site) -> Hashable:
    """Where a Conv's kernel goes, the same however it is written."""
    padding = site.text("auto_pad", "NOTSET") or "NOTSET"
    pads = (site.integer_list("pads") or (0,) * 4) if padding == "NOTSET" else ()
    spread = (site.integer_list(name) or (1, 1) for name in ("strides", "dilations"))
    return (padding, pads, *spread)


# What lies behind --------------------------------------------------------------------------------


def _together(
    graph: Graph, convs: Sequence[int], skip: frozenset[str]
) -> Iterator[tuple[int, ...]]:
    """Each Conv with the nodes behind it that all of them have, and nobody else needs."""
    chains = [_chain(graph, index, skip) for index in convs]
    length = 1
    for count in range(2, min(map(len, chains)) + 1):
        if len({_description(graph, chain[:count]) for chain in chains}) > 1:
            break
        if all(is_for_the_last(graph, chain[:count]) for chain in chains):
            length = count
    return (tuple(chain[:length]) for chain in chains)


def _chain(graph: Graph, conv: int, skip: frozenset[str]) -> list[int]:
    """A Conv and what computes on its channels, each by itself, in order."""
    chain, made = [conv], [graph.nodes[conv].output[0]]
    channels = _channels(graph, conv)
    while len(chain) < _LONGEST:
        readers = {index for name in made for index in graph.consumers.get(name, ())}
        along = (
            index
            for index in sorted(readers.difference(chain))
            if graph.nodes[index].op_type not in skip and _goes_along(graph, index, made, channels)
        )
        index = next(along, None)
        if index is None:
            break
        chain.append(index)
        made.append(graph.nodes[index].output[0])
    return chain


def _goes_along(graph: Graph, index: int, made: Sequence[str], channels: int) -> bool:
    """True for a node that works on each channel by itself, of tensors that are made before."""
    node = graph.nodes[index]
    constants = [name for name in node.input if graph.is_constant(name)]
    if not set(filter(None, node.input)).issubset((*made, *constants)):
        return False
    if operator(node) != "Conv":
        return is_elementwise(graph, node, channels) and not (
            constants and node.op_type in _EXTREMES and graph.opset < _BROADCAST_SINCE
        )
    groups = Site(graph, node, node.output[0], IMAGE).integer("group", 1)
    return (graph.constant_shape(node.input[1]) or ())[:2] == (groups, 1)


def _description(graph: Graph, chain: Sequence[int]) -> Hashable:
    """The same for chains that differ in channels, and in constants, alone."""
    places: dict[str, Hashable] = {}
    found: list[Hashable] = []
    for index in chain:
        node = graph.nodes[index]
        if operator(node) == "Conv":
            kernel = (graph.constant_shape(node.input[1]) or ())[2:]
            window = _window(Site(graph, node, node.output[0], IMAGE))
            found.append(("Conv", places.get(node.input[0]), kernel, window))
        else:
            inputs = [places.get(name) or _constant(graph, node, name) for name in node.input]
            settings = sorted(attribute.SerializeToString() for attribute in node.attribute)
            found.append((operator(node), *inputs, *settings))
        places[node.output[0]] = ("tensor", len(places))
    return tuple(found)


def _constant(graph: Graph, node: onnx.NodeProto, name: str) -> Hashable:
    """What has to be alike in constants, if one is given: a Clip takes one number for all."""
    value = graph.constant(name) if operator(node) == "Clip" and name else None
    return name and (graph.constant_type(name), None if value is None else value.tobytes())
