"""Exact clean-ups that expose folds: nodes that pass their input through, and constant nodes.

Passing through: Identity, Dropout in inference, and x * 1, x / 1, x + 0, x - 0.
"""

from __future__ import annotations

import math

import onnx

from onnxfuse.affine import Refusal
from onnxfuse.constants import fold_constants
from onnxfuse.graph import FLOAT_TYPES, Graph
from onnxfuse.lift import Site, View
from onnxfuse.lift.movement import passes
from onnxfuse.messages import operator

_PASSING = frozenset({"Identity", "Dropout"})
_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}
_MATRIX_OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})


def normalize(graph: Graph, model: onnx.ModelProto, skip: frozenset[str]) -> bool:
    """Drops nodes that pass their input through, and evaluates what depends on constants alone.

    Args:
        graph: The graph; changed and committed.
        model: The model around it.
        skip: Operators that are left alone.

    Returns:
        True when something changed.
    """
    for node in graph.nodes:
        if node.op_type in skip:
            continue
        source: str | None = None
        if operator(node) in _PASSING:
            source = _passed(graph, node)
        elif operator(node) in _NEUTRAL:
            source = _unchanged(graph, node)
        if source is not None and graph.can_alias(node.output[0], source):
            graph.alias(node.output[0], source)
    changed = graph.commit(prune=graph.has_dead_nodes())
    fold_constants(graph, model)
    return graph.commit() or changed


def _passed(graph: Graph, node: onnx.NodeProto) -> str | None:
    """The input of an Identity, or of a Dropout in inference whose mask nobody reads."""
    if any(node.output[1:]) or graph.is_constant(node.input[0]):
        return None
    step = passes(Site(graph, node, node.output[0], View(0, 0, ())))
    return None if isinstance(step, Refusal) else str(node.input[0])


def _unchanged(graph: Graph, node: onnx.NodeProto) -> str | None:
    """The input that an elementwise node returns as it is; -0.0 may become 0.0, as in any sum."""
    if len(node.input) != 2 or node.attribute:
        return None
    first, second = node.input
    commutes = node.op_type in ("Add", "Mul")
    for data, constant in ((first, second), (second, first)) if commutes else ((first, second),):
        shape = graph.constant_shape(constant)
        if shape is None or graph.is_constant(data) or math.prod(shape) != 1:
            continue
        if graph.type(constant).elem_type not in FLOAT_TYPES:
            continue
        value = graph.constant(constant)
        if value is None or float(value.reshape(())) != _NEUTRAL[node.op_type]:
            continue
        if _least_rank(graph, data) >= len(shape):
            return str(data)
    return None


def _least_rank(graph: Graph, name: str) -> int:
    """A lower bound of a tensor's rank, from its type or from the node that makes it."""
    known = graph.type(name).rank
    if known is not None:
        return known
    index = graph.producers.get(name)
    node = None if index is None else graph.nodes[index]
    if node is not None and operator(node) in _NEUTRAL:
        return max(len(graph.constant_shape(n) or ()) for n in node.input)
    return int(node is not None and operator(node) in _MATRIX_OPERATORS)
