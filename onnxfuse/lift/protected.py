"""Affine nodes left in place because ONNX Runtime fuses the pattern around them.

Folding the scale of an expanded LayerNormalization or the half of an expanded GELU into the next
layer would take away the runtime's own, faster fusion.
"""

from __future__ import annotations

import onnx

from onnxfuse.affine import Refusal
from onnxfuse.graph import Graph
from onnxfuse.messages import operator


def protected(graph: Graph, node: onnx.NodeProto) -> Refusal | None:
    """Why the runtime needs this node where it is, or None."""
    if getattr(node, "device_configurations", ()):
        return Refusal("it is assigned to devices")
    if operator(node) == "Mul" and _is_gelu_tail(graph, node):
        return Refusal("part of a GELU that the runtime fuses")
    if operator(node) == "Mul" and _is_normalized(graph, _data(graph, node)):
        return Refusal("the scale of a LayerNormalization that the runtime fuses")
    if operator(node) == "Add":
        scale = _maker(graph, _data(graph, node))
        if (
            scale is not None
            and operator(scale) == "Mul"
            and _is_normalized(graph, _data(graph, scale))
        ):
            return Refusal("the shift of a LayerNormalization that the runtime fuses")
    return None


def _maker(graph: Graph, name: str) -> onnx.NodeProto | None:
    index = graph.producers.get(name)
    return None if index is None else graph.nodes[index]


def _data(graph: Graph, node: onnx.NodeProto) -> str:
    """The only computed input of a node; empty when there are none or several."""
    computed = [name for name in node.input if name and not graph.is_constant(name)]
    return computed[0] if len(computed) == 1 else ""


def _is_normalized(graph: Graph, name: str) -> bool:
    """(x - mean) / sqrt(variance + epsilon), with any casts in between."""
    quotient = _maker(graph, name)
    while quotient is not None and operator(quotient) == "Cast":
        quotient = _maker(graph, quotient.input[0])
    if quotient is None or operator(quotient) != "Div":
        return False
    root = _maker(graph, quotient.input[1])
    return root is not None and operator(root) in ("Sqrt", "Pow")


def _is_gelu_tail(graph: Graph, node: onnx.NodeProto) -> bool:
    """0.5 * x * (1 + erf(..)) in any order of its factors, or the tanh form."""
    pending, seen = [name for name in node.input if name], 0
    while pending and seen < 8:
        maker = _maker(graph, pending.pop())
        seen += 1
        if maker is None:
            continue
        if operator(maker) in ("Erf", "Tanh"):
            return True
        if operator(maker) in ("Mul", "Add"):
            pending.extend(name for name in maker.input if name)
    return False
