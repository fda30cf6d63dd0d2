"""Affine nodes left in place because ONNX Runtime fuses the pattern around them.

Folding the scale of an expanded LayerNormalization or the half of an expanded GELU into the next
layer would take away the runtime's own, faster fusion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.graph import Graph
from onnxfuse.messages import operator

_MOST_FACTORS = 4


def protected(graph: Graph, node: onnx.NodeProto) -> Refusal | None:
    """Why the runtime needs this node where it is, or None."""
    if getattr(node, "device_configurations", ()):
        return Refusal("it is assigned to devices")
    for part, op_type, is_part in PATTERNS:
        if operator(node) == op_type and is_part(graph, node):
            return Refusal(f"{part} that the runtime fuses")
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


def _is_scale(graph: Graph, node: onnx.NodeProto) -> bool:
    return _is_normalized(graph, _data(graph, node))


def _is_shift(graph: Graph, node: onnx.NodeProto) -> bool:
    scale = _maker(graph, _data(graph, node))
    return scale is not None and operator(scale) == "Mul" and _is_scale(graph, scale)


def _is_half_of_gelu(graph: Graph, node: onnx.NodeProto) -> bool:
    """The 0.5 in 0.5 * x * (1 + erf(..)), in any order of its factors; or with tanh."""
    if not any(_is_number(graph, name, 0.5) for name in node.input):
        return False
    last, above = node, graph.only_reader(node.output[0])
    for _ in range(_MOST_FACTORS):
        if above is None or operator(graph.nodes[above]) != "Mul":
            break
        last, above = graph.nodes[above], graph.only_reader(graph.nodes[above].output[0])
    pending, seen = list(last.input), 0
    while pending and seen < 2 * _MOST_FACTORS:
        maker = _maker(graph, pending.pop())
        seen += 1
        if maker is not None and operator(maker) == "Mul":
            pending.extend(maker.input)
        elif maker is not None and operator(maker) == "Add" and _is_gate(graph, maker):
            return True
    return False


def _is_gate(graph: Graph, node: onnx.NodeProto) -> bool:
    """1 + erf(..), or with tanh."""
    bent = _maker(graph, _data(graph, node))
    one = any(_is_number(graph, name, 1.0) for name in node.input)
    return one and bent is not None and operator(bent) in ("Erf", "Tanh")


def _is_number(graph: Graph, name: str, number: float) -> bool:
    shape = graph.constant_shape(name)
    if shape is None or math.prod(shape) != 1:
        return False
    return bool(np.all(np.asarray(graph.constant(name)) == number))


PATTERNS: Sequence[tuple[str, str, Callable[[Graph, onnx.NodeProto], bool]]] = (
    ("part of a GELU", "Mul", _is_half_of_gelu),
    ("the scale of a LayerNormalization", "Mul", _is_scale),
    ("the shift of a LayerNormalization", "Add", _is_shift),
)
"""Parts of what the runtime fuses, each with its operator and how it is known."""
