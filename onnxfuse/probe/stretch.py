"""Stretches: the nodes between a tensor and an ancestor that it is affine in.

The ancestors in question are the tensor's dominators: all paths from the tensor upwards, along the
inputs in which operators are affine, pass through them. Each tensor keeps its nearest one. Its
other inputs are constants, or computed from constants and shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from onnxfuse.graph import FLOAT_TYPES, Graph
from onnxfuse.lift import protected
from onnxfuse.lift.movement import MOST_OUTPUTS
from onnxfuse.messages import bodies, operator
from onnxfuse.probe.linearity import data_inputs
from onnxfuse.quantized import QUANTIZING
from onnxfuse.reference import SUPPORTED

_SHAPES = frozenset({"Shape", "Size"})
_FOLLOWED = SUPPORTED - {"LogSoftmax", "ReduceMax", "Resize", "Softmax", "Upsample"} - QUANTIZING
"""Operators whose sizes `bounds.reach` bounds, and that may be affine or make what they read;
quantized weights stay so."""


@dataclass(frozen=True)
class Stretch:
    """Nodes that make `target` of `source` and of nothing else but constants and shapes.

    Attributes:
        source: Name of the tensor it starts from.
        target: Name of the tensor it ends in.
        nodes: All of them, in topological order.
        affine: Those between source and target, in the same order.
        arithmetic: Those that compute on constants and shapes, in the same order.
        constants: Names of the constants that they read.
        shapes_of: Names of other tensors whose shapes they read.
    """

    source: str
    target: str
    nodes: tuple[onnx.NodeProto, ...]
    affine: tuple[onnx.NodeProto, ...]
    arithmetic: tuple[onnx.NodeProto, ...]
    constants: tuple[str, ...]
    shapes_of: tuple[str, ...]


class AffinePart:
    """The affine nodes of a graph, and the arithmetic on shapes that they need.

    Attributes:
        parents: For each output of an affine node, the tensors that it is affine in.
    """

    def __init__(self, graph: Graph, skip: frozenset[str]) -> None:
        self.graph = graph
        self.parents: dict[str, tuple[str, ...]] = {}
        self._of_shapes: set[str] = set()
        self._above: dict[str, str] = {}
        self._depth: dict[str, int] = {}
        for index, node in enumerate(graph.nodes):
            if self._is_arithmetic(index, node):
                self._of_shapes.update(filter(None, node.output))
            elif node.op_type not in skip and node.output:
                self._enter(node)

    def is_known(self, name: str) -> bool:
        """True when a tensor depends on constants and shapes alone."""
        return name in self._of_shapes or self.graph.is_constant(name)

    def dominators(self, name: str) -> Iterator[str]:
        """The tensors that all paths from `name` upwards pass through, the nearest first."""
        while (above := self._above.get(name)) is not None:
            yield above
            name = above

    def between(self, source: str, target: str) -> Stretch:
        """The stretch from a dominator of `target` to it."""
        affine = self._paths(source, target) or set()
        nodes = set(affine)
        shapes_of: dict[str, None] = {}
        pending = [name for index in affine for name in self.graph.nodes[index].input]
        while pending:
            index = self.graph.producers.get(pending.pop(), -1)
            if index in nodes or index < 0 or not self._makes_known(index):
                continue
            nodes.add(index)
            for name in filter(None, self.graph.nodes[index].input):
                if self.is_known(name):
                    pending.append(name)
                elif name != source and self.graph.producers.get(name) not in nodes:
                    aside = self._paths(source, name)
                    if aside is None:
                        shapes_of[name] = None
                    else:
                        nodes |= aside
                        pending.extend(n for i in aside for n in self.graph.nodes[i].input)
        arithmetic = filter(self._makes_known, sorted(nodes))
        read = {name for index in nodes for name in self.graph.nodes[index].input if name}
        return Stretch(
            source,
            target,
            nodes=tuple(self.graph.nodes[index] for index in sorted(nodes)),
            affine=tuple(self.graph.nodes[index] for index in sorted(affine)),
            arithmetic=tuple(self.graph.nodes[index] for index in arithmetic),
            constants=tuple(sorted(name for name in read if self.graph.is_constant(name))),
            shapes_of=tuple(shapes_of),
        )

    def _is_arithmetic(self, index: int, node: onnx.NodeProto) -> bool:
        """True for a node that computes on constants and shapes alone."""
        if operator(node) not in _FOLLOWED or any(bodies(node)):
            return False
        return node.op_type in _SHAPES or all(map(self.is_known, self.graph.reads[index]))

    def _makes_known(self, index: int) -> bool:
        return self.graph.nodes[index].output[0] in self._of_shapes

    def _enter(self, node: onnx.NodeProto) -> None:
        data = data_inputs(node, self.is_known, self._is_float)
        if data is None or protected(self.graph, node) is not None:
            return
        if len(node.output) > MOST_OUTPUTS:
            return
        if any(map(self._is_empty, (*data, *node.output))):
            return
        nearest = self._common(data)
        for output in filter(None, node.output):
            self.parents[output] = data
            if nearest is not None:
                self._above[output] = nearest
                self._depth[output] = self._depth.get(nearest, 0) + 1

    def _is_float(self, name: str) -> bool:
        return self.graph.type(name).elem_type in FLOAT_TYPES

    def _is_empty(self, name: str) -> bool:
        """True for a tensor without elements: there is nothing in it to probe."""
        return 0 in (self.graph.type(name).shape or ())

    def _common(self, names: tuple[str, ...]) -> str | None:
        """The nearest tensor that is, or dominates, each of `names`."""
        first, *rest = names
        for other in rest:
            left, right = first, other
            while left != right:
                if self._depth.get(left, 0) < self._depth.get(right, 0):
                    left, right = right, left
                if left not in self._above:
                    return None
                left = self._above[left]
            first = left
        return first

    def _paths(self, source: str, target: str) -> set[int] | None:
        """The affine nodes on all paths from `target` up to `source`; None where one misses it."""
        seen: set[int] = set()
        pending = [target]
        while pending:
            name = pending.pop()
            if name == source:
                continue
            if name not in self.parents:
                return None
            index = self.graph.producers[name]
            if index not in seen:
                seen.add(index)
                pending.extend(self.parents[name])
        return seen
