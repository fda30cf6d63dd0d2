"""Channels that are constant: the same number at every place of every image.

They begin where a filter is zero, in a layer or a depthwise Conv, or the scale of a
BatchNormalization: the channel is the bias. From there they go through ties.

1. A depthwise Conv makes a constant of a constant where its window does not reach beyond the image,
   or the constant is 0.
2. An elementwise operator does where all its inputs are constant in the channel. 0 times what is
   bounded is 0, too.
3. A MaxPool does with sizes rounded down, an AveragePool too, where padding does not count, and
   both where no window may miss the image between its taps; of 0 every AveragePool does. Means,
   upsampling and Concats do.
4. A constant is a number of the model's type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.graph import Graph
from onnxfuse.messages import operator
from onnxfuse.reference import UnsupportedOperator, evaluate
from onnxfuse.rewrites.channel_nodes import (
    ELEMENTWISE,
    Layer,
    Role,
    Span,
    Tie,
    reaches,
    settings,
)

Reals = NDArray[np.float64]
Values = Mapping[str, Reals]
"""Of a tensor with constant channels, each channel's number; NaN where it is not constant."""

_BOUNDED = frozenset({"Erf", "HardSigmoid", "Sigmoid", "Tanh"})
_SHIFTING = frozenset({"Add", "Mul", "Sub"})
_DEEPEST = 4


@dataclass(frozen=True)
class Surveyed:
    """What is known of a graph.

    Attributes:
        graph: The graph.
        roles: What its nodes do with channels, by index, in order.
        spans: The channels of its tensors.
        zero_rows: Of layers, and of depthwise Convs and BatchNormalizations, by index, the channels
            whose filters or scales are zero; where there are any.
    """

    graph: Graph
    roles: Mapping[int, Role]
    spans: Mapping[str, Span]
    zero_rows: Mapping[int, NDArray[np.bool_]]


def constant_channels(surveyed: Surveyed) -> Values:
    """The constant channels of every tensor that has any."""
    values: dict[str, Reals] = {}
    for index, role in surveyed.roles.items():
        dead = surveyed.zero_rows.get(index)
        if dead is None and (isinstance(role, Layer) or values.keys().isdisjoint(role.inputs)):
            continue
        found = np.full(role.y_span.count, np.nan)
        if isinstance(role, Tie):
            found = _Tied(surveyed, index, role, values).found()
        if dead is not None:
            found[dead] = np.broadcast_to(_shift(surveyed.graph, index), dead.shape)[dead]
        kind = surveyed.graph.type(role.y).elem_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind or onnx.TensorProto.FLOAT)
        with np.errstate(over="ignore"):
            found[~np.isfinite(found.astype(dtype).astype(np.float64))] = np.nan
        if np.isfinite(found).any():
            values[role.y] = found
    return values


def _shift(graph: Graph, index: int) -> Reals:
    """What is left of a channel whose filter is zero: one number each, or one for all."""
    name = next(iter(graph.nodes[index].input[2:3]), "")
    bias = np.asarray(graph.constant(name) if name else np.zeros(1)).astype(np.float64)
    return bias.ravel()


class _Tied:
    """What a tie makes of constants."""

    def __init__(self, surveyed: Surveyed, index: int, tie: Tie, values: Values) -> None:
        self.graph, self.index, self.tie = surveyed.graph, index, tie
        self.node = surveyed.graph.nodes[index]
        self.spans = surveyed.spans
        self.values = [
            values[name] if name in values else np.full(self.spans[name].count, np.nan)
            for name in tie.inputs
        ]

    def found(self) -> Reals:
        """The number of each channel, or NaN; a new array."""
        op = self.node.op_type
        if op in ELEMENTWISE or op == "BatchNormalization":
            return self._computed()
        if op == "Concat":
            return np.concatenate(self.values)
        (given,) = self.values
        if op == "Conv":
            return self._filtered(given)
        if op not in ("AveragePool", "MaxPool"):
            return given.copy()
        options = settings(self.node)
        outside = reaches(options, tuple(options["kernel_shape"]))
        misses = outside and max(options.get("dilations", [1])) > 1
        counts = op == "AveragePool" and outside and options.get("count_include_pad", 0)
        if not misses and not counts and not options.get("ceil_mode", 0):
            return given.copy()
        return np.where((given == 0) & (op == "AveragePool"), given, np.nan)

    def _computed(self) -> Reals:
        """By the operator itself, on one number per channel."""
        node, tie, graph = self.node, self.tie, self.graph
        count = tie.y_span.count
        result = np.full(count, np.nan)
        known = np.all(np.isfinite(self.values), axis=0)
        shape = graph.type(tie.y).rank or 0
        if known.any() and not tie.free and shape:
            given = dict(zip(tie.inputs, map(self._spread, tie.inputs, self.values), strict=True))
            constants = {n: graph.constant(n) for n in node.input if n and n not in given}
            fed = {**given, **{n: np.asarray(value) for n, value in constants.items()}}
            try:
                made = evaluate([node], fed, graph.opset, {tie.y})[tie.y]
            except UnsupportedOperator:
                return result
            if made.size == count:  # else a constant differs from place to place
                result = np.where(known, made.reshape(count), np.nan)
        if node.op_type == "Mul" and len(node.input) == 2:
            self._fill_zeros(result)
        return result

    def _spread(self, name: str, value: Reals) -> Reals:
        """One number per channel, as a tensor of the rank that it has."""
        shape = [1] * (self.graph.type(name).rank or 0)
        shape[self.spans[name].axis] = len(value)
        return value.reshape(shape)

    def _fill_zeros(self, result: Reals) -> None:
        """0 times what is bounded."""
        for zero, other in (tuple(self.node.input), tuple(self.node.input)[::-1]):
            if zero in self.tie.inputs and _is_bounded(self.graph, other):
                value = self.values[self.tie.inputs.index(zero)]
                result[value == 0] = 0.0

    def _filtered(self, given: Reals) -> Reals:
        """By a depthwise Conv."""
        weight = np.asarray(self.graph.constant(self.node.input[1])).astype(np.float64)
        each = np.repeat(given, self.tie.repeat)
        made = each * weight.sum(axis=tuple(range(1, weight.ndim))) + _shift(self.graph, self.index)
        inside = not reaches(settings(self.node), weight.shape[2:])
        return np.where((each == 0) | inside, made, np.nan)


def _is_bounded(graph: Graph, name: str, depth: int = _DEEPEST) -> bool:
    """True for what cannot be infinite: a function that is bounded, and numbers added to it."""
    index = graph.producers.get(name)
    if index is None or depth == 0:
        return False
    node = graph.nodes[index]
    data = graph.data(index)
    constants = [given for given in node.input if given not in data]
    if not all(np.all(np.isfinite(np.asarray(graph.constant(c), np.float64))) for c in constants):
        return False
    if operator(node) == "Clip":
        return len(constants) + len(node.attribute) == 2
    if operator(node) in _BOUNDED:
        return True
    if operator(node) not in _SHIFTING or len(data) != 1:
        return False
    return _is_bounded(graph, data[0], depth - 1)
