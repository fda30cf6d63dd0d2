"""Equalizing a model's channels: finding, balancing, proving and writing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from onnxfuse import io
from onnxfuse.affine import Array, Refusal
from onnxfuse.certify import Certificate
from onnxfuse.equalization.absorbing import absorption
from onnxfuse.equalization.balance import balanced
from onnxfuse.equalization.certifying import FEW_VALUES, Between, Change, certify_changed
from onnxfuse.equalization.costs import Costs, Seen
from onnxfuse.equalization.lanes import Channels, channels
from onnxfuse.equalization.layers import Layer, layers
from onnxfuse.equalization.outliers import Diagonal, apart, costs_less_apart, diagonal
from onnxfuse.equalization.ranges import Range, channel_ranges
from onnxfuse.errors import ModelError
from onnxfuse.graph import Graph
from onnxfuse.messages import operator, trained_names
from onnxfuse.rewrites.probes import probes
from onnxfuse.rewrites.proving import certify_equal, put_in
from onnxfuse.rounding import keeps_digits
from onnxfuse.runtime.feeds import Feeds
from onnxfuse.shapes import default_opset, infer_types

Progress = Callable[[str], None]
SCALED, SHIFTED, SPLIT = "scaled", "shifted", "split"


@dataclass(frozen=True)
class Equalized:
    """A node whose channels have other scales now.

    Attributes:
        node: Its name, or that of its first output.
        operator: Its operator.
        change: What was done: "scaled", "shifted", or "split" in two.
        certificate: The proof.
    """

    node: str
    operator: str
    change: str
    certificate: Certificate


@dataclass(frozen=True)
class EqualizeResult:
    """A model with equalized channels.

    Attributes:
        model: The new model.
        nodes: The nodes around scaled channels, each with its proof.
        refusals: (node, reason) of those that could not be proved, and are as they were.
        source: The new model, and where it keeps its weights.
    """

    model: onnx.ModelProto
    nodes: tuple[Equalized, ...]
    refusals: tuple[tuple[str, str], ...]
    source: io.Source = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model; the file appears whole or not at all."""
        io.write(self.source, path)


def equalize(
    model: Any,
    samples: Iterable[Feeds],
    *,
    weight_bits: int = 8,
    keep: Iterable[str] = (),
    progress: Progress | None = None,
) -> EqualizeResult:
    """Scales the channels between layers so that their ranges are alike.

    The model computes what it did: what one layer is multiplied with, the next ones are divided by,
    where everything between them lets a positive factor through. Each node is proved in float64.

    Args:
        model: What `onnxfuse.optimize` takes.
        samples: Inputs of the model, by name.
        weight_bits: How many bits a weight will have; 2 or more.
        keep: Tensors that stay what they are, each made by the node that makes it.
        progress: Called with a word on each step as it begins.

    Raises:
        ModelError: The model or the samples cannot be used, or a weight has less than 2 bits.
        CertificateError: A node does not agree with what it was.
    """
    if weight_bits < 2:
        raise ModelError(f"a weight of {weight_bits} bits has no steps")
    tell = progress or (lambda step: None)
    steps = 2 ** (weight_bits - 1) - 1
    return _Run(io.read(model), samples, steps, frozenset(keep), tell).result()


class _Run:
    """One equalization of one model."""

    def __init__(
        self,
        source: io.Source,
        samples: Iterable[Feeds],
        weight_steps: int,
        keep: frozenset[str],
        tell: Progress,
    ) -> None:
        self.source, self.samples, self.tell = source, samples, tell
        self.weight_steps, self.keep = weight_steps, keep
        self.refused: list[tuple[str, str]] = []
        self.made: list[Equalized] = []
        self.constants: dict[str, Array] = {}
        self._index()

    def _index(self) -> None:
        model = self.source.model
        self.graph = Graph(
            model.graph,
            default_opset(model),
            model.ir_version,
            load=self.source.load,
            types=infer_types(model),
            keep=trained_names(model) | self.keep,
        )
        self.layers = layers(self.graph)
        self.barred: dict[int, str] = {}

    def result(self) -> EqualizeResult:
        self._split()
        found = channels(self.graph, self.layers)
        if self.layers:
            self.tell("ranges of channels")
            ranges = channel_ranges(self.source, found.axes, self.samples)
            self.tell("equalizing")
            seen = {index: self._seen(layer) for index, layer in self.layers.items()}
            ranges = self._scale(found, ranges, seen)
            self._absorb(ranges)
            for name, value in self.constants.items():
                held = np.asarray(self.graph.constant(name))
                self.graph.add_constant(name, value.astype(held.dtype))
            self.graph.commit(prune=True)
        self.refused += [(self._label(index), why) for index, why in self.barred.items()]
        made, refused = tuple(self.made), tuple(self.refused)
        return EqualizeResult(self.source.model, made, refused, self.source)

    def _seen(self, layer: Layer) -> Seen:
        weight = self._value(layer.weight)
        peaks = layer.peaks(weight)
        return Seen(peaks, layer.power(weight), weight.size // peaks.size)

    # Outliers ----------------------------------------------------------------------------------

    def _split(self) -> None:
        """Computes layers in two parts where some of their weights stand out."""
        graph = self.graph
        diagonals: dict[int, Diagonal] = {}
        for index, layer in self.layers.items():
            if layer.output in graph.keep:
                continue
            found = diagonal(graph, layer, self._value(layer.weight))
            if found is not None:
                diagonals[index] = found
        if not diagonals:
            return
        self.tell("looking for outliers")
        names = (n for i in diagonals for n in (self.layers[i].data, self.layers[i].output))
        ranges = channel_ranges(self.source, dict.fromkeys(names, 1), self.samples)
        for index, found in diagonals.items():
            layer = self.layers[index]
            given, made = ranges[layer.data], ranges[layer.output]
            weight = self._value(layer.weight)
            if not costs_less_apart(layer, weight, found, given, made, self.weight_steps):
                continue
            replacement = apart(graph, layer, found)
            shown = probes(graph, layer.data, (index,), 1, whole=FEW_VALUES)
            proof = (
                shown if isinstance(shown, Refusal) else certify_equal(graph, replacement, shown)
            )
            if isinstance(proof, Refusal):
                self.refused.append((self._label(index), proof.reason))
                continue
            put_in(graph, replacement, proof)
            self.made.append(Equalized(self._label(index), "Conv", SPLIT, proof))
        graph.commit(prune=True)
        self._index()

    # Scales ------------------------------------------------------------------------------------

    def _scale(
        self, found: Channels, ranges: Mapping[str, Range], seen: Mapping[int, Seen]
    ) -> dict[str, Range]:
        """Scales the channels; without those around nodes for which that cannot be proved."""
        while True:
            costs = Costs(self.graph, self.layers, found, ranges, seen)
            scales = balanced(
                found.count, costs.activations, costs.weights, weight_steps=self.weight_steps
            )
            scales = scales**costs.trust
            changes = {
                name: Change(found.axes[name], scales[groups], np.zeros(len(groups)))
                for name, groups in found.groups.items()
                if np.any(groups)
            }
            made, constants = self._scaled(found, scales, changes)
            if made is not None:
                break
            found = channels(self.graph, self.layers, self.barred.keys())
        self.made += made
        self.constants |= constants
        return {n: r.scaled(changes[n].scale) if n in changes else r for n, r in ranges.items()}

    def _scaled(
        self, found: Channels, scales: Array, changes: Mapping[str, Change]
    ) -> tuple[list[Equalized] | None, dict[str, Array]]:
        """The nodes around changed tensors, proved, and constants; None where one is barred."""
        made: list[Equalized] = []
        constants: dict[str, Array] = {}
        barred = len(self.barred)
        for index, node in enumerate(self.graph.nodes):
            if not changes.keys() & {*self.graph.reads[index], *node.output}:
                continue
            after: dict[str, Array] = {}
            if index in found.behind:
                before, behind = scales[found.before[index]], scales[found.behind[index]]
                after = self.layers[index].scaled(self.graph, before, behind)
            proof = self._proved(index, changes, after)
            if isinstance(proof, Refusal):
                self.barred[index] = proof.reason
                continue
            made.append(Equalized(self._label(index), operator(node), SCALED, proof))
            constants |= after
        return (made if len(self.barred) == barred else None), constants

    # Shifts ------------------------------------------------------------------------------------

    def _absorb(self, ranges: Mapping[str, Range]) -> None:
        """Moves biases into the layers behind, one layer after the other."""
        for layer in self.layers.values():
            held = ranges[layer.output]
            found = absorption(self.graph, self.layers, layer, held, self._value)
            if found is None:
                continue
            proofs = {
                index: self._proved(index, found.changes, found.constants, found.limits)
                for index in found.nodes
            }
            refused = next((p.reason for p in proofs.values() if isinstance(p, Refusal)), None)
            if refused is not None:
                self.barred[layer.index] = refused
                continue
            self.constants |= found.constants
            nodes = self.graph.nodes
            self.made += [
                Equalized(self._label(index), operator(nodes[index]), SHIFTED, proof)
                for index, proof in proofs.items()
                if isinstance(proof, Certificate)
            ]

    # Constants ---------------------------------------------------------------------------------

    def _proved(
        self,
        index: int,
        changes: Mapping[str, Change],
        after: Mapping[str, Array],
        limits: Mapping[str, Between] | None = None,
    ) -> Certificate | Refusal:
        node = self.graph.nodes[index]
        own = {name: value for name, value in after.items() if name in node.input}
        for name, value in own.items():
            held = np.asarray(self.graph.constant(name))
            if not keeps_digits(value, held):
                return Refusal(f"with other scales its constants cannot be written in {held.dtype}")
        return certify_changed(self.graph, index, changes, self.constants, own, limits)

    def _value(self, name: str) -> Array:
        if name in self.constants:
            return self.constants[name]
        return np.asarray(self.graph.constant(name), np.float64)

    def _label(self, index: int) -> str:
        node = self.graph.nodes[index]
        return str(node.name or node.output[0])
