"""A Softmax written out, along an axis that is not the last.

    Softmax(x)  ->  e / ReduceSum(e), where e = Exp(x - ReduceMax(x))

ONNX Runtime's CPU provider turns the tensor around for its kernel, row by row. Along a short axis,
such as the classes of a segmentation, five plain passes were up to three times as fast; along a
long one they were slower, and so they are where one kernel does it all. `tune` measures which.

1. Softmax as it is from opset 13 on, along an axis that is not the last of a tensor whose rank is
   known. Behind the axis is more than one element.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.fold import Fold, Outcome
from onnxfuse.graph import Array, Graph, TensorType
from onnxfuse.messages import operator
from onnxfuse.rewrites.proving import Replacement, certify_equal, put_in
from onnxfuse.rewrites.softmaxes import inner_axis, probes

_AXES_AS_INPUT = 18  # of ReduceMax; ReduceSum has them so from 13 on


def write_softmaxes(graph: Graph, skip: frozenset[str]) -> Outcome:
    """Writes each Softmax along another axis than the last out.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.

    Raises:
        CertificateError: If a replacement does not agree with the node it replaces.
    """
    outcome = Outcome()
    if not graph.takes_initializers or "Softmax" in skip:
        return outcome
    types: dict[str, TensorType] = {}
    for index, node in enumerate(graph.nodes):
        axis = inner_axis(graph, index) if operator(node) == "Softmax" else None
        if axis is not None:
            made = _replaced(graph, index, axis)
            outcome.folds.append(made)
            types |= {n: graph.type(made.target) for wired in made.after for n in wired.outputs}
    graph.types = {**graph.types, **types}
    graph.commit(prune=bool(outcome.folds))
    return outcome


def _replaced(graph: Graph, index: int, axis: int) -> Fold:
    """Puts the five nodes in."""
    x, target = graph.nodes[index].input[0], graph.nodes[index].output[0]
    axes = graph.unique_name(f"{target}/axes")
    nodes: list[onnx.NodeProto] = []

    def node(op_type: str, *inputs: str, **settings: Any) -> str:
        name = graph.unique_name(f"{target}/{op_type}")
        nodes.append(onnx.helper.make_node(op_type, inputs, [name], name=name, **settings))
        return name

    if graph.opset < _AXES_AS_INPUT:
        largest = node("ReduceMax", x, axes=[axis], keepdims=1)
    else:
        largest = node("ReduceMax", x, axes, keepdims=1)
    powers = node("Exp", node("Sub", x, largest))
    node("Div", powers, node("ReduceSum", powers, axes, keepdims=1))
    nodes[-1].output[0] = target
    replacement = Replacement(
        kind="a Softmax written out",
        formula=f"y = exp(x) / sum of exp(x) along axis {axis}",
        source=x,
        target=target,
        before=(index,),
        gone=(index,),
        nodes=nodes,
        constants={axes: np.array([axis], np.int64)},
    )
    certificate = certify_equal(graph, replacement, _probes(x, len(graph.type(x).shape or ())))
    assert not isinstance(certificate, Refusal)  # it makes finite numbers of finite ones
    return put_in(graph, replacement, certificate)


def _probes(source: str, rank: int) -> Iterator[dict[str, Array]]:
    """Small numbers, and some whose powers overflow."""
    for probe in probes(source, rank):
        yield probe
        yield {name: np.multiply(x, 1e4) for name, x in probe.items()}
