"""A fold that could be made: lowered, rounded and certified, but not yet in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnxfuse.certify import Certificate
from onnxfuse.graph import Array, Graph


@dataclass(frozen=True, eq=False)
class Proposal:
    """A fold that could be made.

    Attributes:
        target: The tensor to compute directly.
        source: The tensor to compute it from.
        replaced: The nodes between them, in topological order.
        nodes: The nodes in their place; none when the target is the source.
        constants: What these read and the graph does not have yet, in the model's own type.
        formula: The map, in words and shapes.
        certificate: The proof.
        flushed: How many subnormal numbers were set to zero.
        apart: Nanoseconds that the replaced nodes take, by the cost model.
        spent: Nanoseconds that the nodes in their place take.
    """

    target: str
    source: str
    replaced: tuple[onnx.NodeProto, ...]
    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, Array]
    formula: str
    certificate: Certificate
    flushed: int
    apart: int
    spent: int

    def constants_before(self, graph: Graph) -> tuple[str, ...]:
        """The constants that the replaced nodes read."""
        read = dict.fromkeys(name for node in self.replaced for name in node.input if name)
        return tuple(name for name in read if graph.is_constant(name))

    def reads(self) -> dict[str, None]:
        """What the nodes in their place read; the source alone where there are none."""
        read = (name for node in self.nodes for name in node.input if name)
        return dict.fromkeys(read if self.nodes else (self.source,))
