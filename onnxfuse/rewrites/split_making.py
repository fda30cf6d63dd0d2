"""Puts the parts of a convolution in, with their proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.fold import Fold
from onnxfuse.graph import Array, Graph, TensorType
from onnxfuse.messages import operator
from onnxfuse.rewrites.images import FROM_BEHIND, IMAGE, image_probe
from onnxfuse.rewrites.proving import Replacement, certify_equal, put_in


@dataclass(frozen=True)
class Part:
    """Some channels of a tensor.

    Attributes:
        name: The tensor that holds them alone.
        cutter: The node that makes it, by index.
        channels: Which they are, in order.
    """

    name: str
    cutter: int
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Head:
    """A convolution whose channels are cut into parts.

    Attributes:
        nodes: The Conv, and what works on each of its channels by itself, by index, in order.
        weight: The shape of its weight.
        parts: The parts.
    """

    nodes: tuple[int, ...]
    weight: tuple[int, ...]
    parts: tuple[Part, ...]

    def conv(self, graph: Graph) -> onnx.NodeProto:
        """The Conv that reads x."""
        return graph.nodes[self.nodes[0]]


@dataclass
class Cuts:
    """Constants cut into parts: once, however many nodes of a graph read them.

    Attributes:
        graph: The graph.
        values: The parts, by the names they got.
    """

    graph: Graph
    values: dict[str, Array] = field(default_factory=dict)
    _names: dict[tuple[str, int, tuple[int, ...]], str] = field(default_factory=dict)

    def of(self, name: str, axis: int, part: Part) -> str:
        """The name of a constant's part."""
        key = (name, axis, part.channels)
        if key not in self._names:
            new = self._names[key] = self.graph.unique_name(f"{part.name}/{name}")
            self.values[new] = np.take(np.asarray(self.graph.constant(name)), part.channels, axis)
        return self._names[key]


def replaced(graph: Graph, head: Head, cuts: Cuts) -> list[Fold] | Refusal:
    """Puts a convolution for each part in the place of one for all.

    Args:
        graph: The graph; changed, not committed.
        head: The convolution.
        cuts: Constants that were cut before; those of this one are added.

    Raises:
        CertificateError: If a part does not agree with the nodes it replaces.
    """
    probe = image_probe(graph, head.nodes, head.weight)
    if isinstance(probe, Refusal):
        return probe
    proved = []
    types: dict[str, TensorType] = {}
    for part in head.parts:
        replacement = _replacement(graph, head, part, cuts)
        certificate = certify_equal(graph, replacement, [probe])
        if isinstance(certificate, Refusal):
            return certificate
        proved.append((replacement, certificate))
        types |= _types(graph, head, part, replacement.nodes)
    graph.types = {**graph.types, **types}
    return [put_in(graph, *one) for one in proved]


def _replacement(graph: Graph, head: Head, part: Part, cuts: Cuts) -> Replacement:
    """The nodes that make one part."""
    made: dict[str, str] = {}
    nodes = []
    for index in head.nodes:
        old, new = graph.nodes[index], onnx.NodeProto()
        new.CopyFrom(old)
        new.input[:] = [
            made.get(name) or _given(graph, old, place, part, cuts)
            for place, name in enumerate(old.input)
        ]
        new.name = graph.unique_name(f"{part.name}/{old.op_type}")
        new.output[0] = part.name if index == head.nodes[-1] else new.name
        for attribute in new.attribute:
            if attribute.name == "group" and attribute.i > 1:
                attribute.i = attribute.i * len(part.channels) // head.weight[0]
        made[old.output[0]] = new.output[0]
        nodes.append(new)
    gone = (*head.nodes, part.cutter)
    return Replacement(
        kind="a part of a Conv",
        formula=_formula(head, part),
        source=head.conv(graph).input[0],
        target=part.name,
        before=gone,
        gone=gone,
        nodes=nodes,
        constants={n: cuts.values[n] for node in nodes for n in node.input if n in cuts.values},
    )


def _given(graph: Graph, node: onnx.NodeProto, place: int, part: Part, cuts: Cuts) -> str:
    """What a node of a part reads in the place of a constant, or of x."""
    name: str = node.input[place]
    if operator(node) == "Conv":
        return cuts.of(name, 0, part) if place else name
    shape = graph.constant_shape(name) or ()
    if len(shape) < FROM_BEHIND or shape[-FROM_BEHIND] == 1:
        return name
    return cuts.of(name, len(shape) - FROM_BEHIND, part)


def _formula(head: Head, part: Part) -> str:
    first, last = part.channels[0], part.channels[-1]
    if part.channels == tuple(range(first, last + 1)):
        which = f"channels {first} to {last}"
    else:
        which = f"{len(part.channels)} channels"
    value = "act(W * x + b)" if len(head.nodes) > 1 else "W * x + b"
    return f"y = {value}, {which} of {head.weight[0]} by themselves"


def _types(
    graph: Graph, head: Head, part: Part, nodes: Sequence[onnx.NodeProto]
) -> Mapping[str, TensorType]:
    """What is known of the tensors that the nodes of a part make."""
    types = {}
    for index, new in zip(head.nodes, nodes, strict=True):
        kind = graph.type(graph.nodes[index].output[0])
        batch, _, *size = kind.shape or (None,) * IMAGE.rank
        shape = (batch, len(part.channels), *size)
        types[new.output[0]] = TensorType(kind.elem_type, shape)
    return types
