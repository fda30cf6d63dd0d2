"""Channels that have to be scaled alike.

A channel of a tensor is scaled where the layer that makes it is, and all that read it are scaled
back. What lies between has to let a positive factor through:

1. a node that works on every channel by itself and doubles its output with its input (Relu,
   MaxPool, Resize, .., see `rewrites.lines`), or puts channels elsewhere (Concat, Split, ..): what
   comes out has the scale of what went in;
2. a node that joins tensors of one shape (Add, Sub, Sum, Max, Min): all have the same scale.

Everything else, and whatever is read from outside, keeps its channels as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxfuse.affine import Refusal
from onnxfuse.equalization.layers import Layer
from onnxfuse.graph import Graph
from onnxfuse.lift import Site, View
from onnxfuse.lift.movement import chosen_channels
from onnxfuse.messages import operator
from onnxfuse.rewrites.lines import Line, behind

Groups: TypeAlias = NDArray[np.int64]

FIXED = 0
"""The group of the channels that keep their scale."""


@dataclass(frozen=True, eq=False)
class Lane:
    """The channels of a tensor.

    Attributes:
        axis: Their axis.
        rank: Number of dimensions of the tensor.
        slots: A number for each channel, (C,).
    """

    axis: int
    rank: int
    slots: Groups

    def is_laid_out_like(self, other: Lane) -> bool:
        """True where both have as many channels, on the same axis."""
        mine, others = ((lane.axis, lane.rank, len(lane.slots)) for lane in (self, other))
        return mine == others


@dataclass(frozen=True)
class Channels:
    """Which channels of a graph have one scale.

    Attributes:
        count: Number of groups; group 0 keeps its scale.
        groups: By tensor, the group of each channel.
        axes: By tensor, the axis of the channels.
        before: By layer, the groups of the channels that come in.
        behind: By layer, those of the channels that go out.
    """

    count: int
    groups: Mapping[str, Groups]
    axes: Mapping[str, int]
    before: Mapping[int, Groups]
    behind: Mapping[int, Groups]


def channels(graph: Graph, layers: Mapping[int, Layer], barred: Collection[int] = ()) -> Channels:
    """The groups of a graph's channels.

    Args:
        graph: The graph.
        layers: Those of its layers that may change.
        barred: Nodes that let nothing through, by index.
    """
    allowed = {index: layer for index, layer in layers.items() if index not in barred}
    return _Linker(graph, allowed, barred).run()


class _Linker:
    """Goes through a graph once, in order, and joins channels as it goes."""

    def __init__(self, graph: Graph, layers: Mapping[int, Layer], barred: Collection[int]) -> None:
        self.graph, self.layers, self.barred = graph, layers, barred
        self.parents: list[int] = [FIXED]
        self.lanes: dict[str, Lane] = {}
        self.before: dict[int, Groups] = {}

    def run(self) -> Channels:
        graph = self.graph
        for index in range(len(graph.nodes)):
            if index in self.layers:
                self._layer(self.layers[index])
            else:
                self._between(index)
        for name, lane in self.lanes.items():
            if graph.is_pinned(name):
                self._fix(lane)
        return self._numbered()

    def _layer(self, layer: Layer) -> None:
        lane = self.lanes.get(layer.data)
        fits = lane is not None and (lane.axis, len(lane.slots)) == (
            layer.axes[0],
            layer.channels[0],
        )
        if lane is not None and not fits:
            self._fix(lane)
        nothing = np.full(layer.channels[0], FIXED)
        self.before[layer.index] = lane.slots if lane is not None and fits else nothing
        rank = self.graph.type(layer.data).rank or 0
        first = len(self.parents)
        self.parents.extend(range(first, first + layer.channels[1]))
        slots = np.arange(first, first + layer.channels[1])
        self.lanes[layer.output] = Lane(layer.axes[1], rank, slots)

    def _between(self, index: int) -> None:
        """Lets scales through a node; or fixes those of all that it reads."""
        names = [name for name in self.graph.reads[index] if name in self.lanes]
        if not names:
            return
        rule = _RULES.get(operator(self.graph.nodes[index]), _passed)
        made = None if index in self.barred else rule(self, index, names)
        if made is None:
            for name in names:
                self._fix(self.lanes[name])
        else:
            self.lanes |= made

    # Joining -----------------------------------------------------------------------------------

    def root(self, slot: int) -> int:
        while self.parents[slot] != slot:
            self.parents[slot] = self.parents[self.parents[slot]]
            slot = self.parents[slot]
        return slot

    def join(self, first: Groups, second: Groups) -> None:
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self.root(a), self.root(b)))
            self.parents[high] = low

    def _fix(self, lane: Lane) -> None:
        self.join(lane.slots, np.full(len(lane.slots), FIXED))

    def _numbered(self) -> Channels:
        roots = np.array([self.root(slot) for slot in range(len(self.parents))])
        unique, numbers = np.unique(roots, return_inverse=True)
        return Channels(
            count=len(unique),
            groups={name: numbers[lane.slots] for name, lane in self.lanes.items()},
            axes={name: lane.axis for name, lane in self.lanes.items()},
            before={index: numbers[slots] for index, slots in self.before.items()},
            behind={
                index: numbers[self.lanes[layer.output].slots]
                for index, layer in self.layers.items()
            },
        )


# Rules -------------------------------------------------------------------------------------------

_Rule: TypeAlias = "Callable[[_Linker, int, Sequence[str]], dict[str, Lane] | None]"


def _passed(linker: _Linker, index: int, names: Sequence[str]) -> dict[str, Lane] | None:
    """A node that a factor moves behind: where each of its channels comes from shows on labels."""
    graph, node = linker.graph, linker.graph.nodes[index]
    merged: Lane | None = None
    for name in names:
        lane = linker.lanes[name]
        labels = np.arange(2.0, len(lane.slots) + 2.0, dtype=np.float64)
        labelled = Line(labels, np.zeros(len(labels)), lane.axis, lane.rank)
        found = (
            None
            if merged is not None and not _joins(node.op_type)
            else (behind(graph, index, name, labelled))
        )
        if found is None:
            linker._fix(lane)
            continue
        sources = found.scale.astype(np.int64) - 2
        slots = np.where(sources < 0, FIXED, lane.slots[np.maximum(sources, 0)])
        if merged is not None:
            slots = np.where(sources < 0, merged.slots, slots)
        merged = Lane(found.axis, found.rank, slots)
    return None if merged is None else {node.output[0]: merged}


def _joins(op_type: str) -> bool:
    return op_type == "Concat"


def _same(linker: _Linker, index: int, names: Sequence[str]) -> dict[str, Lane] | None:
    """Identity, Dropout."""
    node = linker.graph.nodes[index]
    return {node.output[0]: linker.lanes[names[0]]} if node.input[0] == names[0] else None


def _alike(linker: _Linker, index: int, names: Sequence[str]) -> dict[str, Lane] | None:
    """Add and others of tensors of one shape, all of which layers make."""
    graph, node = linker.graph, linker.graph.nodes[index]
    first = linker.lanes[names[0]]
    shapes = {graph.type(name).shape for name in node.input}
    whole = set(node.input) == set(names) and len(shapes) == 1 and None not in shapes
    (shape,) = shapes if len(shapes) == 1 else (None,)
    if not whole or shape is None or None in shape:
        return None
    if not all(first.is_laid_out_like(linker.lanes[name]) for name in names[1:]):
        return None
    for name in names[1:]:
        linker.join(first.slots, linker.lanes[name].slots)
    return {node.output[0]: first}


def _chosen(linker: _Linker, index: int, names: Sequence[str]) -> dict[str, Lane] | None:
    """Split and Slice of channels."""
    graph, node = linker.graph, linker.graph.nodes[index]
    lane = linker.lanes[names[0]]
    if list(names) != [node.input[0]]:
        return None
    view = View.image(lane.rank) if lane.axis == 1 else View.matrix(lane.axis, lane.rank)
    made: dict[str, Lane] = {}
    for output in filter(None, node.output):
        found = chosen_channels(Site(graph, node, output, view))
        if isinstance(found, Refusal):
            return None
        made[output] = Lane(lane.axis, lane.rank, lane.slots[list(found)])
    return made


def _clipped(linker: _Linker, index: int, names: Sequence[str]) -> dict[str, Lane] | None:
    """Clip at 0 from below alone is a Relu."""
    graph, node = linker.graph, linker.graph.nodes[index]
    if graph.opset < 11 or len(node.input) < 2 or any(node.input[2:]):
        return None
    low = graph.constant(node.input[1]) if node.input[1] else None
    if low is None or low.size != 1 or low.item() != 0:
        return None
    return _same(linker, index, names)


_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(("Add", "Max", "Min", "Sub", "Sum"), _alike),
    **dict.fromkeys(("Slice", "Split"), _chosen),
    **dict.fromkeys(("Dropout", "Identity"), _same),
    "Clip": _clipped,
}
