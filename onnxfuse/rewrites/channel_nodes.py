"""What nodes do with channels: layers, which mix them, and ties, which keep each to itself.

Channels lie along axis 1 of images, and along the last axis of what a MatMul or Gemm makes; which
axis it is goes from node to node.

A layer is, with constant weight and bias,
1. a Conv or ConvTranspose of one group,
2. a Gemm with alpha = beta = 1 whose input is not transposed and whose bias is the same for all
   rows, or a MatMul by a matrix.

A tie is
3. an elementwise operator, its constants one number per channel or the same for all of them,
4. a depthwise Conv, a BatchNormalization in inference, a pooling, a ReduceMean over other axes, an
   upsampling by scales, a Concat of channels, or what drops axes behind the channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from onnxfuse.graph import FLOAT_TYPES, Graph
from onnxfuse.messages import attributes, operator
from onnxfuse.rewrites.upsampling import OPERATORS as UPSAMPLING
from onnxfuse.rewrites.upsampling import repeats

ELEMENTWISE = frozenset(
    {"Abs", "Add", "Cast", "Clip", "Div", "Dropout", "Erf", "Exp", "Gelu", "HardSigmoid"}
    | {"HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg"}
    | {"PRelu", "Pow", "Reciprocal", "Relu", "Sigmoid", "Softplus", "Sub", "Sum", "Tanh"}
)
"""Operators that make a number of numbers that stand in the same place."""


@dataclass(frozen=True)
class Span:
    """Where the channels of a tensor lie, and how many there are."""

    axis: int
    count: int


@dataclass(frozen=True)
class Layer:
    """A node each of whose output channels is a sum over all input channels.

    Attributes:
        x: What it reads.
        y: What it makes.
        x_span: The channels of x.
        y_span: The channels of y.
        weight: Its weight.
        rows: The axis of the weight along which the channels of y lie.
        columns: That of the channels of x.
        bias: Its bias, or an empty name.
        reaches: Whether it may reach beyond x, where it finds zeros.
    """

    x: str
    y: str
    x_span: Span
    y_span: Span
    weight: str
    rows: int
    columns: int
    bias: str
    reaches: bool


@dataclass(frozen=True)
class Tie:
    """A node whose output channels come each from one channel of every input.

    Attributes:
        inputs: The inputs with those channels; of a Concat one behind the other.
        free: The others, which have one channel for all.
        y: What it makes.
        y_span: Its channels.
        cuts: Constants with a number for each channel of y: their position and the axis.
        repeat: How many channels of y there are, one behind the other, for each of x.
    """

    inputs: tuple[str, ...]
    free: tuple[str, ...]
    y: str
    y_span: Span
    cuts: tuple[tuple[int, int], ...] = ()
    repeat: int = 1


Role = Layer | Tie
Spans = Mapping[str, Span]


def settings(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values."""
    return {name: onnx.helper.get_attribute_value(a) for name, a in attributes(node).items()}


def role(graph: Graph, index: int, spans: Spans) -> Role | None:
    """What a node does with channels; None where that, or the rank of what it reads, is not known.

    Args:
        graph: The graph.
        index: The node's index.
        spans: The channels of the tensors in front of it, as far as they are known.
    """
    node = graph.nodes[index]
    op = operator(node)
    if any(graph.type(name).rank is None for name in graph.reads[index]):
        return None
    find = _LAYERS.get(op)
    found = find(graph, node) if find else None
    if found is not None or sum(map(bool, node.output)) != 1:
        return found
    if op in ELEMENTWISE:
        return _elementwise(graph, node, spans)
    tie = _TIES.get(op)
    return tie(graph, node, spans) if tie and node.input[0] in spans else None


# Layers ----------------------------------------------------------------------------------------


def _conv(graph: Graph, node: onnx.NodeProto) -> Layer | None:
    shape, bias, given = _weights(graph, node), _third(node), settings(node)
    if shape is None or len(shape) < 3 or given.get("group", 1) != 1:
        return None
    if bias and graph.constant_shape(bias) != shape[:1]:
        return None
    x_span, y_span = Span(1, shape[1]), Span(1, shape[0])
    reach = reaches(given, shape[2:])
    return Layer(
        node.input[0], node.output[0], x_span, y_span, node.input[1], 0, 1, bias, reaches=reach
    )


def _conv_transpose(graph: Graph, node: onnx.NodeProto) -> Layer | None:
    shape, bias = _weights(graph, node), _third(node)
    if shape is None or len(shape) < 3 or settings(node).get("group", 1) != 1:
        return None
    if bias and graph.constant_shape(bias) != shape[1:2]:
        return None
    x_span, y_span = Span(1, shape[0]), Span(1, shape[1])
    return Layer(
        node.input[0], node.output[0], x_span, y_span, node.input[1], 1, 0, bias, reaches=True
    )


def _gemm(graph: Graph, node: onnx.NodeProto) -> Layer | None:
    shape, bias, given = _weights(graph, node), _third(node), settings(node)
    if shape is None or len(shape) != 2 or given.get("transA", 0):
        return None
    if given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
        return None
    rows = 0 if given.get("transB", 0) else 1
    vectors = ((), (1,), (1, 1), (shape[rows],), (1, shape[rows]))
    if bias and graph.constant_shape(bias) not in vectors:
        return None
    x_span, y_span = Span(1, shape[1 - rows]), Span(1, shape[rows])
    return Layer(
        *(node.input[0], node.output[0], x_span, y_span, node.input[1], rows, 1 - rows, bias),
        reaches=False,
    )


def _matmul(graph: Graph, node: onnx.NodeProto) -> Layer | None:
    shape, rank = _weights(graph, node), graph.type(node.input[0]).rank or 0
    if shape is None or len(shape) != 2 or rank < 2:
        return None
    x_span, y_span = Span(rank - 1, shape[0]), Span(rank - 1, shape[1])
    return Layer(
        node.input[0], node.output[0], x_span, y_span, node.input[1], 1, 0, "", reaches=False
    )


def _weights(graph: Graph, node: onnx.NodeProto) -> tuple[int, ...] | None:
    """The shape of the second input, where it alone is constant, and floating."""
    if graph.constant_type(node.input[1]) not in FLOAT_TYPES or graph.is_constant(node.input[0]):
        return None
    return graph.constant_shape(node.input[1])


def _third(node: onnx.NodeProto) -> str:
    return str(node.input[2]) if len(node.input) > 2 else ""


def reaches(given: Mapping[str, Any], kernel: tuple[int, ...]) -> bool:
    """True for a window that may reach beyond the image."""
    if given.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
        return math.prod(kernel) > 1
    return any(given.get("pads", ()))


# Ties ------------------------------------------------------------------------------------------


def _elementwise(graph: Graph, node: onnx.NodeProto, spans: Spans) -> Tie | None:
    shapes = {name: graph.type(name).shape for name in node.input if name}
    rank = max(len(shape or ()) for shape in shapes.values())
    counts = [spans[name].count for name in shapes if name in spans]
    if not counts or not _keeps_floats(graph, node):
        return None
    count = max(counts)
    inputs = [name for name in shapes if name in spans and spans[name].count == count]
    axes = {spans[name].axis + rank - len(shapes[name] or ()) for name in inputs}
    if len(axes) != 1:
        return None
    axis = axes.pop()
    free, cuts = [], []
    for position, name in enumerate(node.input):
        if not name or name in inputs:
            continue
        shape = shapes[name] or ()
        at = axis - (rank - len(shape))
        size = shape[at] if at >= 0 else 1
        if size == count and graph.is_constant(name):
            cuts.append((position, at))
        elif size != 1:
            return None
        elif not graph.is_constant(name):
            free.append(name)
    return Tie(tuple(inputs), tuple(free), node.output[0], Span(axis, count), tuple(cuts))


def _keeps_floats(graph: Graph, node: onnx.NodeProto) -> bool:
    """True for floating numbers made of floating ones."""
    kinds = (graph.type(node.input[0]).elem_type, graph.type(node.output[0]).elem_type)
    return all(kind in FLOAT_TYPES for kind in kinds)


def _depthwise(graph: Graph, node: onnx.NodeProto, spans: Spans) -> Tie | None:
    shape, bias, span = _weights(graph, node), _third(node), spans[node.input[0]]
    groups = settings(node).get("group", 1)
    if shape is None or len(shape) < 3 or span != Span(1, groups) or shape[1] != 1:
        return None
    if bias and graph.constant_shape(bias) != shape[:1]:
        return None
    cuts = ((1, 0), (2, 0)) if bias else ((1, 0),)
    y_span = Span(1, shape[0])
    return Tie((node.input[0],), (), node.output[0], y_span, cuts, shape[0] // groups)


def _normalization(graph: Graph, node: onnx.NodeProto, spans: Spans) -> Tie | None:
    given, span = settings(node), spans[node.input[0]]
    shapes = {graph.constant_shape(name) for name in node.input[1:]}
    if given.get("training_mode", 0) or span.axis != 1 or shapes != {(span.count,)}:
        return None
    return _same(node, span, tuple((position, 0) for position in range(1, 5)))


def _pooling(graph: Graph, node: onnx.NodeProto, spans: Spans) -> Tie | None:
    span = spans[node.input[0]]
    return _same(node, span) if span.axis == 1 else None


def _mean(graph: Graph, node: onnx.NodeProto, spans: Spans) -> Tie | None:
    span = spans[node.input[0]]
    axes, given = _axes(graph, node), settings(node)
    if not axes or span.axis in axes:
        return None
    if not given.get("keepdims", 1) and min(axes) < span.axis:
        return None
    return _same(node, span)


def _dropping(graph: Graph, node: onnx.NodeProto, spans: Spans) -> Tie | None:
    """Squeeze, or a Flatten of what has one number per channel."""
    span, shape = spans[node.input[0]], graph.type(node.input[0]).shape or ()
    if operator(node) == "Flatten":
        axes = list(range(2, len(shape)))
        if settings(node).get("axis", 1) != 1:
            return None
    else:
        axes = _axes(graph, node)
    if not axes or min(axes) <= span.axis or any(shape[axis] != 1 for axis in axes):
        return None
    return _same(node, span)


def _axes(graph: Graph, node: onnx.NodeProto) -> list[int]:
    """The axes that a node is given, counted from the first; empty where they are not known."""
    rank = graph.type(node.input[0]).rank or 0
    given = settings(node).get("axes")
    if given is None and len(node.input) > 1:
        constant = graph.constant(node.input[1])
        given = None if constant is None else constant.ravel().tolist()
    return [axis % rank for axis in given or ()]


def _upsampling(graph: Graph, node: onnx.NodeProto, spans: Spans) -> Tie | None:
    span = spans[node.input[0]]
    if span.axis != 1 or any(name and not graph.is_constant(name) for name in node.input[1:]):
        return None
    if repeats(graph, graph.producers[node.output[0]]) is None or any(node.input[3:]):
        return None
    return _same(node, span)


def _concat(graph: Graph, node: onnx.NodeProto, spans: Spans) -> Tie | None:
    span, rank = spans[node.input[0]], graph.type(node.input[0]).rank or 0
    if settings(node)["axis"] % rank != span.axis:
        return None
    found = [spans[name] for name in node.input if name in spans]
    if len(found) < len(node.input) or any(one.axis != span.axis for one in found):
        return None
    total = sum(one.count for one in found)
    return Tie(tuple(node.input), (), node.output[0], Span(span.axis, total))


def _same(node: onnx.NodeProto, span: Span, cuts: tuple[tuple[int, int], ...] = ()) -> Tie:
    """A node with one input, whose channels stay where they are."""
    return Tie((node.input[0],), (), node.output[0], span, cuts)


_LAYERS: Mapping[str, Callable[[Graph, onnx.NodeProto], Layer | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
_TIES: Mapping[str, Callable[[Graph, onnx.NodeProto, Spans], Tie | None]] = {
    "AveragePool": _pooling,
    "BatchNormalization": _normalization,
    "Concat": _concat,
    "Conv": _depthwise,
    "Flatten": _dropping,
    "GlobalAveragePool": _pooling,
    "GlobalMaxPool": _pooling,
    "MaxPool": _pooling,
    "ReduceMean": _mean,
    "Squeeze": _dropping,
    **dict.fromkeys(UPSAMPLING, _upsampling),
}
