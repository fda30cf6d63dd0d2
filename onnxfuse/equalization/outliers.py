"""Weights that stand out, as layers of their own.

    y = W * x + b    ->    y = (W - D) * x + b  +  d x,    d = D's diagonal

An identity branch that is folded into a convolution leaves one large number in each output channel:
the weight of the channel itself, in the tap that reads the pixel itself. A weight has one step for
each output channel, and the rest of the channel then shares few of its integers. As a depthwise
Conv of one tap, the large numbers have steps of their own; W - D has zeros there, and no rounding.

1. The layer is a Conv with as many channels out as in.
2. One tap reads the output's own pixel, and there is an output for each pixel that a Conv of one
   tap would have one for: the pads add up to dilation * (kernel - 1), and the dilation divides
   those in front.
3. Rounding the weight leaves less than 35 dB of the output, and costs at least twice what rounding
   W - D and the two new tensors will.

Chu, Li, Zhang: "Make RepVGG Greater Again: A Quantization-aware Approach", AAAI 2024, show where
such outliers come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxfuse.affine import Array
from onnxfuse.equalization.balance import ACTIVATION_STEPS, LASTING
from onnxfuse.equalization.layers import Layer
from onnxfuse.equalization.ranges import Range
from onnxfuse.graph import Graph
from onnxfuse.lift import Site, View
from onnxfuse.messages import operator
from onnxfuse.rewrites.proving import Replacement

_WORTH = 0.5
_AUDIBLE = 3e-4


@dataclass(frozen=True, eq=False)
class Diagonal:
    """The weights of a layer's channels for themselves.

    Attributes:
        places: Their indices in the weight.
        values: The weights, (C,), float64.
        strides: The layer's strides.
    """

    places: tuple[Array, ...]
    values: Array
    strides: tuple[int, ...]


def diagonal(graph: Graph, layer: Layer, weight: Array) -> Diagonal | None:
    """The diagonal of a layer's own pixel, where 1. and 2. hold; or None.

    Args:
        graph: The graph.
        layer: The layer.
        weight: Its weight, (C, C / g, *kernel), in float64.
    """
    node = graph.nodes[layer.index]
    count, inner = weight.shape[:2]
    if operator(node) != "Conv" or layer.channels != (count, count):
        return None
    site = Site(graph, node, layer.output, View.image(weight.ndim))
    spatial = weight.ndim - 2
    pads = site.integer_list("pads") or (0,) * (2 * spatial)
    gaps = site.integer_list("dilations") or (1,) * spatial
    strides = site.integer_list("strides") or (1,) * spatial
    taps = []
    for axis, (kernel, gap) in enumerate(zip(weight.shape[2:], gaps, strict=True)):
        begin, end = pads[axis], pads[axis + spatial]
        if min(begin, end) < 0 or begin + end != gap * (kernel - 1) or begin % gap:
            return None
        taps.append(begin // gap)
    rows = np.arange(count)
    places = (rows, rows % inner, *(np.full(count, tap) for tap in taps))
    return Diagonal(places, weight[places], strides)


def costs_less_apart(
    layer: Layer, weight: Array, found: Diagonal, given: Range, made: Range, steps: int
) -> bool:
    """True where 3. holds.

    Args:
        layer: The layer.
        weight: Its weight, in float64.
        found: Its diagonal.
        given: What the layer's input holds on samples.
        made: What its output holds.
        steps: The largest integer of a quantized weight.
    """
    size = float(np.sum(made.power)) or 1.0
    rest = weight.copy()
    rest[found.places] = 0.0
    before, after = (_noise(layer, one, given, steps) / size for one in (weight, rest))
    alone = np.max(np.abs(found.values) * np.maximum(-given.smallest, given.largest))
    spread = np.max(made.largest) - np.min(made.smallest) + 2 * alone, 2 * alone
    steps_of_two = np.square(spread).sum() / (12.0 * ACTIVATION_STEPS**2)
    after += len(found.values) * float(steps_of_two) / size / LASTING
    return before > _AUDIBLE and after < _WORTH * before


def _noise(layer: Layer, weight: Array, given: Range, steps: int) -> float:
    """The mean square that rounding a weight adds to the outputs, of all channels together."""
    peaks = layer.peaks(weight)
    taps = weight.size // peaks.size
    rows = np.square(np.max(peaks, axis=2) / steps) / 12.0
    return float(np.sum(rows * taps * np.sum(given.power.reshape(layer.groups, 1, -1), axis=2)))


def apart(graph: Graph, layer: Layer, found: Diagonal) -> Replacement:
    """The nodes that compute a layer in two parts.

    Args:
        graph: The graph.
        layer: The layer.
        found: Its diagonal.
    """
    weight = np.asarray(graph.constant(layer.weight))
    rest = weight.copy()
    rest[found.places] = 0
    alone = weight[found.places].reshape(-1, 1, *(1,) * (weight.ndim - 2))
    kernels = {
        graph.unique_name(f"{layer.weight}/{role}"): value
        for role, value in (("rest", rest), ("diagonal", alone))
    }
    of_rest, of_diagonal = kernels
    first = onnx.NodeProto()
    first.CopyFrom(graph.nodes[layer.index])
    first.input[1], first.output[0] = of_rest, graph.unique_name(f"{layer.output}/rest")
    own, label = (graph.unique_name(f"{layer.output}/{role}") for role in ("diagonal", "Add"))
    count, strides = layer.channels[0], found.strides
    make = onnx.helper.make_node
    alike = [layer.data, of_diagonal]
    second = make("Conv", alike, [own], name=own, group=count, strides=strides)
    third = make("Add", [first.output[0], own], [layer.output], name=label)
    return Replacement(
        kind="a layer in two parts",
        formula=f"y = (W - D) * x + b + d x, {count} channels",
        source=layer.data,
        target=layer.output,
        before=(layer.index,),
        gone=(layer.index,),
        nodes=[first, second, third],
        constants=kernels,
    )
