"""Layers with constant weights, whose channels may be scaled on both sides.

y = W x + b    ->    s y = (s W / r) (r x) + s b
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxfuse.affine import Array
from onnxfuse.graph import Graph
from onnxfuse.lift import Site, View
from onnxfuse.messages import operator


@dataclass(frozen=True)
class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul whose constants nobody else reads.

    Attributes:
        index: The node's.
        data: The tensor that it computes on.
        output: The tensor that it makes.
        weight: Its weight.
        bias: Its bias; empty where there is none.
        groups: Groups g of its channels.
        channels: C_in and C_out.
        axes: The axes of the channels in `data` and in `output`.
        weight_axes: The axes of the weight that hold the channels: those that come in, and go out.
    """

    index: int
    data: str
    output: str
    weight: str
    bias: str
    groups: int
    channels: tuple[int, int]
    axes: tuple[int, int]
    weight_axes: tuple[int, int]

    def peaks(self, weight: Array) -> Array:
        """The largest magnitude between two channels: (g, C_out / g, C_in / g)."""
        ingoing, outgoing = self.weight_axes
        others = tuple(set(range(weight.ndim)) - {ingoing, outgoing})
        found = np.max(np.abs(weight), axis=others, initial=0.0)
        return self._grouped(found.T if ingoing < outgoing else found)

    def power(self, weight: Array) -> Array:
        """The sum of squares between two channels: (g, C_out / g, C_in / g)."""
        ingoing, outgoing = self.weight_axes
        others = tuple(set(range(weight.ndim)) - {ingoing, outgoing})
        found = np.sum(np.square(weight), axis=others)
        return self._grouped(found.T if ingoing < outgoing else found)

    def scaled(self, graph: Graph, before: Array, behind: Array) -> dict[str, Array]:
        """The constants for scaled channels, in float64, by name.

        Args:
            graph: The graph with the constants.
            before: Scales (C_in,) of the channels that come in.
            behind: Scales (C_out,) of those that go out.
        """
        weight = _float64(graph, self.weight)
        factors = behind.reshape(self.groups, -1, 1) / before.reshape(self.groups, 1, -1)
        made = {self.weight: weight * self._spread(factors, weight.ndim)}
        if self.bias:
            made[self.bias] = _float64(graph, self.bias) * behind
        return made

    def _grouped(self, pairs: Array) -> Array:
        """(rows, columns) as the weight has them -> (g, C_out / g, C_in / g)."""
        into, out = (count // self.groups for count in self.channels)
        if pairs.shape[0] == self.channels[1]:
            return pairs.reshape(self.groups, out, into)
        return pairs.reshape(out, self.groups, into).swapaxes(0, 1)

    def _spread(self, pairs: Array, rank: int) -> Array:
        """(g, C_out / g, C_in / g) -> what broadcasts to the weight."""
        ingoing, outgoing = self.weight_axes
        into, out = (count // self.groups for count in self.channels)
        if ingoing < outgoing and self.groups > 1:
            flat = pairs.swapaxes(0, 1).reshape(out, -1)
        else:
            flat = pairs.reshape(-1, into)
        shape = [1] * rank
        shape[outgoing], shape[ingoing] = flat.shape
        return (flat.T if ingoing < outgoing else flat).reshape(shape)


def layers(graph: Graph) -> Mapping[int, Layer]:
    """The layers of a graph, by the index of their node."""
    found = (_layer(graph, index) for index in range(len(graph.nodes)))
    return {layer.index: layer for layer in found if layer is not None}


def _layer(graph: Graph, index: int) -> Layer | None:
    node = graph.nodes[index]
    find = _FINDERS.get(operator(node))
    data = graph.data(index)
    if find is None or not data:
        return None
    rank = graph.type(data[0]).rank
    constants = [name for name in node.input if name and graph.is_constant(name)]
    own = all(len(graph.consumers[name]) == 1 for name in constants)
    own = own and not any(graph.is_pinned(name) for name in constants)
    if rank is None or not own:
        return None
    if len(set(constants)) < len(constants):
        return None
    return find(Site(graph, node, node.output[0], View.image(rank)), index, data[0])


def _conv(site: Site, index: int, data: str) -> Layer | None:
    """Conv: W (C_out, C_in / g, ..); ConvTranspose: W (C_in, C_out / g, ..)."""
    shape = site.shape_of(site.input(1))
    groups = site.integer("group", 1)
    if shape is None or len(shape) != site.view.rank or groups < 1:
        return None
    turned = site.node.op_type == "ConvTranspose"
    first, second = shape[0], shape[1] * groups
    into, out = (first, second) if turned else (second, first)
    fits = into % groups == 0 and out % groups == 0 and min(into, out) > 0
    if not fits or not _bias_fits(site, (out,)):
        return None
    axes = (0, 1) if turned else (1, 0)
    return Layer(
        index=index,
        data=data,
        output=site.output,
        weight=site.input(1),
        bias=site.input(2),
        groups=groups,
        channels=(into, out),
        axes=(1, 1),
        weight_axes=axes,
    )


def _gemm(site: Site, index: int, data: str) -> Layer | None:
    shape = site.shape_of(site.input(1))
    if shape is None or len(shape) != 2 or site.integer("transA", 0):
        return None
    axes = (1, 0) if site.integer("transB", 0) else (0, 1)
    into, out = (shape[axis] for axis in axes)
    if min(into, out) < 1 or not _bias_fits(site, (out,), (1, out)):
        return None
    return Layer(
        index=index,
        data=data,
        output=site.output,
        weight=site.input(1),
        bias=site.input(2),
        groups=1,
        channels=(into, out),
        axes=(1, 1),
        weight_axes=axes,
    )


def _matmul(site: Site, index: int, data: str) -> Layer | None:
    from_left = site.input(0) == data
    weight = site.input(1 if from_left else 0)
    shape, rank = site.shape_of(weight), site.view.rank
    if shape is None or not 2 <= len(shape) <= rank:
        return None
    last = len(shape) - 1
    axes = (last - 1, last) if from_left else (last, last - 1)
    into, out = (shape[axis] for axis in axes)
    if min(into, out) < 1:
        return None
    axis = rank - 1 if from_left else rank - 2
    return Layer(
        index=index,
        data=data,
        output=site.output,
        weight=weight,
        bias="",
        groups=1,
        channels=(into, out),
        axes=(axis, axis),
        weight_axes=axes,
    )


def _bias_fits(site: Site, *shapes: tuple[int, ...]) -> bool:
    return not site.input(2) or site.shape_of(site.input(2)) in shapes


def _float64(graph: Graph, name: str) -> Array:
    return np.asarray(graph.constant(name), np.float64)


_FINDERS = {"Conv": _conv, "ConvTranspose": _conv, "Gemm": _gemm, "MatMul": _matmul}
