"""Images between convolutions: what keeps channels apart, and small images for proofs."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.graph import Array, Dim, Graph
from onnxfuse.lift import Site, View
from onnxfuse.messages import operator
from onnxfuse.rewrites.pointwise import OPERATORS

IMAGE = View.image(4)
FROM_BEHIND = 3
"""Where the axis of the channels is in a constant, counted from behind: it may have fewer axes."""
ELEMENTWISE = OPERATORS.keys() | {"PRelu"}
"""Operators that compute a number from the numbers at its place."""
_BATCH = 2
_MOST_ELEMENTS = 1 << 28


def is_elementwise(graph: Graph, node: onnx.NodeProto, channels: Dim) -> bool:
    """True for a node that works on each channel by itself, with constants for all pixels alike.

    Constants with more channels than that would spread one channel over all of theirs.
    """
    shapes = [graph.constant_shape(name) or () for name in node.input if graph.is_constant(name)]
    return operator(node) in ELEMENTWISE and all(_is_per_channel(s, channels) for s in shapes)


def _is_per_channel(shape: Sequence[int], channels: Dim) -> bool:
    """True for one number, or one for each channel of an image."""
    places = enumerate(reversed(shape), 1)
    return len(shape) <= IMAGE.rank and all(
        extent == 1 or (place == FROM_BEHIND and extent == channels) for place, extent in places
    )


def is_for_the_last(graph: Graph, nodes: Sequence[int]) -> bool:
    """True where what nodes make is read by them alone, but for the last tensor."""
    made = [graph.nodes[index].output[0] for index in nodes[:-1]]
    return all(
        not graph.is_pinned(name) and set(nodes).issuperset(graph.consumers[name]) for name in made
    )


def image_probe(
    graph: Graph, nodes: Sequence[int], weight: Sequence[int]
) -> dict[str, Array] | Refusal:
    """A random x, so small that there are one or two pixels when every Conv has read it.

    Args:
        graph: The graph.
        nodes: By index, in order: a Conv without groups, and what computes on what it makes.
        weight: The shape of that Conv's weight.

    Returns:
        x by its name; or, where the windows reach too far, that.
    """
    size = [1, 2]
    for index in reversed(nodes):
        node = graph.nodes[index]
        if operator(node) != "Conv":
            continue
        site = Site(graph, node, node.output[0], IMAGE)
        kernel = (graph.constant_shape(node.input[1]) or ())[2:]
        strides, dilations = (site.integer_list(n) or (1, 1) for n in ("strides", "dilations"))
        size = [
            (n - 1) * stride + (taps - 1) * dilation + 1
            for n, stride, taps, dilation in zip(size, strides, kernel, dilations, strict=True)
        ]
    shape = (_BATCH, weight[1], *size)
    if math.prod((*shape, *weight[2:])) > _MOST_ELEMENTS:
        return Refusal("it cannot be certified: its window reaches too far")
    source = graph.nodes[nodes[0]].input[0]
    rng = np.random.default_rng(zlib.crc32(source.encode()))
    return {source: rng.standard_normal(shape)}
