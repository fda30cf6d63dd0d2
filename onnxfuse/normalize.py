"""Exact clean-ups that expose folds: nodes that pass their input through, and constant nodes."""

from __future__ import annotations

import onnx

from onnxfuse.affine import Refusal
from onnxfuse.constants import fold_constants
from onnxfuse.graph import Graph
from onnxfuse.lift import Site, View
from onnxfuse.lift.movement import passes

_PASSING = frozenset({"Identity", "Dropout"})


def normalize(graph: Graph, model: onnx.ModelProto) -> bool:
    """Drops Identity and inference-mode Dropout, and evaluates what depends on constants alone.

    Args:
        graph: The graph; changed and committed.
        model: The model around it.

    Returns:
        True when something changed.
    """
    for node in graph.nodes:
        if node.op_type in _PASSING and node.domain in ("", "ai.onnx"):
            _pass_through(graph, node)
    changed = graph.commit(prune=graph.has_dead_nodes())
    fold_constants(graph, model)
    return graph.commit() or changed


def _pass_through(graph: Graph, node: onnx.NodeProto) -> None:
    if any(node.output[1:]):
        return
    source, target = node.input[0], node.output[0]
    step = passes(Site(graph, node, target, View(0, 0, ())))
    if isinstance(step, Refusal) or graph.is_constant(source):
        return
    if graph.can_alias(target, source):
        graph.alias(target, source)
