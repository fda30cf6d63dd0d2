"""What quantization is expected to cost, for `balance`: from a graph's weights and ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnxfuse.affine import Array
from onnxfuse.equalization.balance import Activation, Weight
from onnxfuse.equalization.lanes import FIXED, Channels
from onnxfuse.equalization.layers import Layer
from onnxfuse.equalization.ranges import Range
from onnxfuse.graph import Graph
from onnxfuse.messages import operator

_FUSED = frozenset({"Clip", "Relu"})
"""What stands between a layer and a tensor with a step: the one in front has none."""


@dataclass(frozen=True)
class Seen:
    """A layer's weight.

    Attributes:
        peaks: The largest magnitude between two channels, (g, C_out / g, C_in / g).
        power: The sum of squares between two channels, of the same shape.
        taps: How many numbers there are between two channels.
    """

    peaks: Array
    power: Array
    taps: int


class Costs:
    """The costs of one graph.

    Attributes:
        activations: Of its tensors.
        weights: Of its layers.
    """

    def __init__(
        self,
        graph: Graph,
        layers: Mapping[int, Layer],
        found: Channels,
        ranges: Mapping[str, Range],
        seen: Mapping[int, Seen],
    ) -> None:
        self.graph, self.found, self.ranges = graph, found, ranges
        self.layers = {index: layers[index] for index in found.before}
        self.seen = seen
        self._own: dict[str, Array] = {}
        shared = np.zeros(found.count)
        for index, layer in self.layers.items():
            if layer.data not in ranges:
                continue
            columns = np.sum(seen[index].power, axis=1).reshape(-1) / self._power(layer)
            self._own[layer.data] = self._own.get(layer.data, 0.0) + columns
            np.add.at(shared, found.before[index], columns)
        self._shared = shared
        self.activations = list(self._activations())
        self.weights = list(self._weights())

    def _power(self, layer: Layer) -> float:
        """The sum of the mean squares of what a layer makes."""
        return float(np.sum(self.ranges[layer.output].power)) or 1.0

    def _activations(self) -> Iterator[Activation]:
        for name, groups in self.found.groups.items():
            range_ = self.ranges[name]
            readers = {operator(self.graph.nodes[i]) for i in self.graph.consumers.get(name, ())}
            if np.any(groups) and not readers <= _FUSED:
                own = self._own.get(name, np.zeros(len(groups)))
                importance = np.where(groups == FIXED, own, self._shared[groups])
                low, high = np.maximum(-range_.smallest, 0.0), np.maximum(range_.largest, 0.0)
                yield Activation(groups, low, high, importance)

    def _weights(self) -> Iterator[Weight]:
        for index, layer in self.layers.items():
            groups = self.found.before[index]
            if not np.any(groups):
                continue
            behind = self.found.behind[index]
            rows = self._shared[behind]
            rows = np.where((behind == FIXED) | (rows == 0), 1 / self._power(layer), rows)
            seen = self.seen[index]
            power = seen.taps * self.ranges[layer.data].power
            yield Weight(groups, seen.peaks, power, rows)
