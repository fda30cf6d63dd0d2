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
_FAR = 6.0
"""Standard deviations that a channel is expected to reach on what is not among the samples."""
_MANY = 256
"""With so many values of a channel a scale's logarithm is half of what they ask for. On the
networks in models/trained, calibrated with 1 to 128 images, 256 lost no more than 0.9 dB to what
is not equalized, 64 lost 1.8 dB, and 0 lost 10 dB."""


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
        trust: By group, what part of a scale's logarithm the samples are enough for, (groups,).
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
        self._expected = dict(self._expectations())
        self.activations = list(self._activations())
        self.weights = list(self._weights())
        self.trust = self._trust()

    def _trust(self) -> Array:
        """What is large on a few values need not be on others; it is what quantization clips."""
        counts = np.full(self.found.count, np.inf)
        for index, groups in self.found.behind.items():
            np.minimum.at(counts, groups, self.ranges[self.layers[index].output].count)
        return np.asarray(1.0 / (1.0 + _MANY / np.maximum(counts, 1.0)))

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
                smallest, largest = self._limits(name, range_)
                low, high = np.maximum(-smallest, 0.0), np.maximum(largest, 0.0)
                yield Activation(groups, low, high, importance)

    def _limits(self, name: str, range_: Range) -> tuple[Array, Array]:
        """Between what a tensor is on samples, and is to be expected on others."""
        index = self.graph.producers[name]
        is_fused = operator(self.graph.nodes[index]) in _FUSED
        made = self.graph.nodes[index].input[0] if is_fused else name
        if made not in self._expected:
            return range_.smallest, range_.largest
        below, above = self._expected[made]
        smallest = range_.smallest if is_fused else np.minimum(range_.smallest, below)
        return smallest, np.maximum(range_.largest, above)

    def _expectations(self) -> Iterator[tuple[str, tuple[Array, Array]]]:
        """By how much layers vary, where what they are given does not vary together."""
        for index, layer in self.layers.items():
            if layer.data in self.ranges:
                power = self.ranges[layer.data].power.reshape(layer.groups, 1, -1)
                size = np.sqrt(np.sum(self.seen[index].power * power, axis=2)).reshape(-1)
                mean = self.ranges[layer.output].mean
                yield layer.output, (mean - _FAR * size, mean + _FAR * size)

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
