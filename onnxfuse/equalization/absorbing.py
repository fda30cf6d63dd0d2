"""High biases that the next layers take in.

    Conv_2(Conv_1(x) + b)                  ->  Conv_2(Conv_1(x) + b - c) + W_2 c
    Conv_2(Relu(y)), y >= c                ->  Conv_2(Relu(y - c)) + W_2 c

A tensor with one step of quantization spends it on what all of its channels have in common: a
channel between 5 and 6 needs a sixth of it. Moved by c, it is between 0 and 1.

1. A layer makes the tensor and has a bias. All that read it, directly or through nodes that let a
   shift through (MaxPool, Concat, Add, ..), are Convs without padding, or Gemms, and have a bias.
2. In front of a Relu, c is no more than what the tensor is proved never to be below (see `bounds`).
3. The range of the tensor, on samples, becomes smaller.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
absorb biases where the tensor is hardly ever below c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxfuse.affine import Array
from onnxfuse.equalization.bounds import floor, limits
from onnxfuse.equalization.certifying import Between, Change
from onnxfuse.equalization.layers import Layer
from onnxfuse.equalization.ranges import Range
from onnxfuse.graph import Graph
from onnxfuse.lift import Site, View
from onnxfuse.messages import operator
from onnxfuse.rewrites.lines import Line, behind

_WORTH = 0.9  # of the range before
_FARTHEST = 16


@dataclass(frozen=True, eq=False)
class Absorption:
    """A shift between layers.

    Attributes:
        nodes: The nodes around the tensors that are shifted, by index.
        changes: What becomes of each of the tensors.
        limits: Between what tensors are proved to be.
        constants: The layers' new constants, in float64, by name.
    """

    nodes: tuple[int, ...]
    changes: Mapping[str, Change]
    limits: Mapping[str, Between]
    constants: Mapping[str, Array]


def absorption(
    graph: Graph,
    layers: Mapping[int, Layer],
    layer: Layer,
    range_: Range,
    value: Callable[[str], Array],
) -> Absorption | None:
    """How the layers behind one take in a part of its bias; None where nothing is to be gained.

    Args:
        graph: The graph.
        layers: The layers that may change.
        layer: The first one.
        range_: What its output holds on samples.
        value: A layer's constant, in float64.
    """
    rank = graph.type(layer.output).rank
    if not rank or layer.axes[1] != 1 or not _has_plain_bias(graph, layer):
        return None
    middle = (range_.largest + range_.smallest) / 2
    way = _Way(graph, layers)
    way.follow(layer.output, Line(np.ones(len(middle)), middle, 1, rank))
    if not way.is_open or not way.sinks:
        return None
    held: dict[str, Between] = {}
    if way.bends:
        held = _bounded(graph, layer, value)
        if not held:
            return None
        middle = np.clip(np.minimum(held[layer.output].low, range_.smallest), 0.0, None)
    if not _pays(range_, middle, way.bends):
        return None
    way = _Way(graph, layers)
    way.follow(layer.output, Line(np.ones(len(middle)), -middle, 1, rank))
    made = {layer.bias: value(layer.bias) - middle.reshape(value(layer.bias).shape)}
    for index, shift in way.sinks:
        reader = layers[index]
        bias = made.get(reader.bias, value(reader.bias))
        taken = _response(reader, value(reader.weight), shift)
        made[reader.bias] = bias - taken.reshape(bias.shape)
    changes = {n: Change(given.axis, given.scale, given.shift) for n, given in way.lines.items()}
    readers = {i for name in changes for i in graph.consumers.get(name, ())}
    return Absorption((layer.index, *sorted(readers)), changes, held, made)


def _bounded(graph: Graph, layer: Layer, value: Callable[[str], Array]) -> dict[str, Between]:
    """Between what a layer's input and output are; nothing where that is not known."""
    given = limits(graph, layer.data)
    if given is None:
        return {}
    weight, bias = value(layer.weight), value(layer.bias).reshape(-1)
    into, out = layer.channels
    around = Between(np.full(into, given[0]), np.full(into, given[1]))
    return {
        layer.data: around,
        layer.output: Between(floor(layer, weight, bias, given), np.full(out, np.inf)),
    }


def _pays(range_: Range, shift: Array, bends: bool) -> bool:
    low, high = (range_.smallest, range_.largest)
    if bends:
        low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    before, after = _spread(low, high), _spread(low - shift, high - shift)
    return after < _WORTH * before


def _spread(low: Array, high: Array) -> float:
    """The range of a tensor; zero is always in it."""
    return float(max(np.max(high), 0.0) - min(np.min(low), 0.0))


def _response(layer: Layer, weight: Array, shift: Array) -> Array:
    """What the weight of a layer without padding makes of a constant per channel: (C_out,)."""
    parts, out = layer.groups, layer.channels[1]
    others = tuple(set(range(weight.ndim)) - set(layer.weight_axes))
    pairs = np.sum(weight, axis=others)
    rows = (pairs.T if layer.weight_axes == (0, 1) else pairs).reshape(parts, out // parts, -1)
    return np.asarray(np.einsum("goi,gi->go", rows, shift.reshape(parts, -1)).reshape(-1))


class _Way:
    """Follows a shift to all that read it.

    Attributes:
        is_open: False where something does not let it through.
        bends: Whether a Relu lies on the way.
        sinks: The layers that take it in, and what reaches them.
        lines: The tensors that are shifted.
    """

    def __init__(self, graph: Graph, layers: Mapping[int, Layer]) -> None:
        self.graph, self.layers = graph, layers
        self.is_open, self.bends = True, False
        self.sinks: list[tuple[int, Array]] = []
        self.lines: dict[str, Line] = {}

    def follow(self, name: str, given: Line, steps: int = 0) -> None:
        graph = self.graph
        self.is_open &= not graph.is_pinned(name) and name not in self.lines and steps < _FARTHEST
        if not self.is_open:
            return
        self.lines[name] = given
        for index in graph.consumers.get(name, ()):
            if index in self.layers:
                self.is_open &= _takes(graph, self.layers[index], given)
                self.sinks.append((index, given.shift))
                continue
            node = graph.nodes[index]
            if operator(node) == "Relu":
                self.bends = True
                self.is_open &= steps == 0
            following = _behind(graph, index, name, given)
            self.is_open &= following is not None
            if following is not None:
                self.follow(node.output[0], following, steps + 1)


def _behind(graph: Graph, index: int, name: str, given: Line) -> Line | None:
    """The shift behind a node; behind a Relu, where 2. holds."""
    node = graph.nodes[index]
    op_type = operator(node)
    if op_type == "Relu":
        return given
    if op_type in ("Add", "Sum"):
        shapes = {graph.type(other).shape for other in node.input}
        (shape,) = shapes if len(shapes) == 1 else (None,)
        once = list(node.input).count(name) == 1
        return given if once and shape is not None and None not in shape else None
    return behind(graph, index, name, given)


def _takes(graph: Graph, layer: Layer, given: Line) -> bool:
    """True for a layer that pads with nothing and has a bias to put the shift into."""
    site = _site(graph, layer)
    pads = site.integer_list("pads") or ()
    unpadded = not any(pads) and site.text("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return given.axis == 1 and unpadded and _has_plain_bias(graph, layer)


def _has_plain_bias(graph: Graph, layer: Layer) -> bool:
    """True for a Conv, or a Gemm without factors of its own, with a bias."""
    plain = operator(graph.nodes[layer.index]) in ("Conv", "Gemm")
    factors = {_site(graph, layer).real(name, 1.0) for name in ("alpha", "beta")}
    return plain and bool(layer.bias) and factors == {1.0}


def _site(graph: Graph, layer: Layer) -> Site:
    return Site(graph, graph.nodes[layer.index], layer.output, View.image(2))
