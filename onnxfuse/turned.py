"""Maps across a Transpose: the axis of the channels moves, the map stays the same.

    Transpose(W x + b)  ->  W (Transpose x) + b, for channels first behind it and last before it

A pointwise map does not care where its channels are, or over what it is repeated. So a map from a
source to the Transpose's input, read with the channels on one axis, is a map from the turned source
to its output, read with the channels on the axis that the Transpose takes them to; and what follows
there, such as the BatchNorm behind a linear layer with channels last, joins it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import onnx

from onnxfuse.affine import AffineConv, Deferred, Term
from onnxfuse.graph import Dim, Graph
from onnxfuse.lift import View
from onnxfuse.messages import attributes


@dataclass(frozen=True)
class Turned:
    """A tensor as it is read behind a Transpose.

    Attributes:
        name: The tensor in front of the Transpose.
        view: How it is read there.
        order: The Transpose's `perm`.
    """

    name: str
    view: View
    order: tuple[int, ...]

    def shape(self, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """The shape behind the Transpose, from the one in front of it."""
        return tuple(shape[axis] for axis in self.order)

    def shape_in_front(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in front of the Transpose, from the one behind it."""
        return tuple(shape[self.order.index(axis)] for axis in range(len(shape)))


Source = str | Turned
"""What a map starts from: a tensor of the graph, or one turned."""


def order_of(graph: Graph, node: onnx.NodeProto) -> tuple[int, ...] | None:
    """The axes of a Transpose's input in the order of its output.

    Returns:
        None where the rank is not known, or `perm` is no order of the axes.
    """
    perm = attributes(node).get("perm")
    if perm is not None:
        order = tuple(perm.ints)
        return order if sorted(order) == list(range(len(order))) else None
    rank = graph.type(node.input[0]).rank
    return None if rank is None else tuple(reversed(range(rank)))


def across(
    maps: Mapping[tuple[str, View], Mapping[Source, Term]],
    name: str,
    order: tuple[int, ...],
    front: Iterable[View],
    behind: View,
) -> dict[Source, Term]:
    """The maps to a Transpose's output from turned sources.

    1. The channels lie, behind it, where it takes them.
    2. The map is pointwise, at any size, and more than a movement of values.
    3. Its source is not itself turned.

    Args:
        maps: The maps to each tensor in each view.
        name: The Transpose's input.
        order: Its `perm`.
        front: Views in which the input is read.
        behind: The view in which the output is read.
    """
    found: dict[Source, Term] = {}
    for view in front:
        if view.rank != behind.rank or len(order) != view.rank or order[behind.axis] != view.axis:
            continue
        for source, term in maps.get((name, view), {}).items():
            if not isinstance(source, str) or not isinstance(term, AffineConv):
                continue
            if term.is_pointwise and term.at_size is None and not term.is_movement:
                found[Turned(source, view, order)] = over_rank(term, len(behind.spatial))
    return found


def over_rank(term: AffineConv, rank: int) -> AffineConv:
    """A pointwise map over another number of spatial axes."""
    shape = (term.out_channels, term.in_channels // term.groups, *(1,) * rank)
    return replace(
        term,
        kernel=(1,) * rank,
        strides=(1,) * rank,
        dilations=(1,) * rank,
        pads=(0,) * (2 * rank),
        weight_of=Deferred(lambda: term.weight.reshape(shape)),
    )
