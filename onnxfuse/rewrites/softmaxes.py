"""A Softmax along the last axis, where a Transpose beside it takes that axis there.

    Softmax(Transpose(x)), or Transpose(Softmax(x))  ->  Transpose(Softmax(Transpose(x)))

Along another axis than the last a runtime turns the tensor before and behind, every number by
itself. Here the graph's own Transpose does one of the two besides what it did.

1. Softmax or LogSoftmax as it is from opset 13 on, along an axis that is not the last of a tensor
   whose rank is known. Behind the axis is more than one element.
2. A Transpose in front is there for it alone, or it is there for one Transpose alone.

The head of YOLOv8 and its successors writes the first, for its distribution over distances.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx

from onnxfuse.affine import Refusal
from onnxfuse.fold import Fold, Outcome
from onnxfuse.graph import Array, Graph, TensorType
from onnxfuse.messages import attributes, operator
from onnxfuse.rewrites.proving import Replacement, certify_equal, put_in
from onnxfuse.turned import order_of

OPERATORS = frozenset({"LogSoftmax", "Softmax"})
_PER_AXIS = 13  # before it, all axes from the given one on are one


class _Turned(NamedTuple):
    """A Softmax between Transposes, of which one may not be there.

    Attributes:
        front: How x is turned in front of it.
        node: The Softmax.
        axis: Along which it goes.
        behind: How its output is turned.
        nodes: All of them, in order.
    """

    front: tuple[int, ...]
    node: int
    axis: int
    behind: tuple[int, ...]
    nodes: tuple[int, ...]


def turn_softmaxes(graph: Graph, skip: frozenset[str]) -> Outcome:
    """Takes each Softmax along the last axis, where a Transpose beside it pays for that.

    Args:
        graph: The graph; changed and committed.
        skip: Operators that are left alone.

    Raises:
        CertificateError: If a replacement does not agree with the nodes it replaces.
    """
    outcome = Outcome()
    types: dict[str, TensorType] = {}
    for index in range(len(graph.nodes)):
        found = _turned(graph, index, skip)
        if found is not None:
            made = _replaced(graph, found)
            outcome.folds.append(made)
            types |= {name: graph.type(made.target) for name in made.after[-1].outputs}
    graph.types = {**graph.types, **types}
    graph.commit(prune=bool(outcome.folds))
    return outcome


def _turned(graph: Graph, index: int, skip: frozenset[str]) -> _Turned | None:
    node = graph.nodes[index]
    if operator(node) not in OPERATORS - skip or "Transpose" in skip:
        return None
    axis = inner_axis(graph, index)
    if axis is None:
        return None
    x, target = node.input[0], node.output[0]
    rank = len(graph.type(target).shape or ())
    straight = tuple(range(rank))
    first = graph.producers.get(x) if graph.only_reader(x) == index else None
    front = _order(graph, first, rank)
    last = graph.only_reader(target)
    behind = _order(graph, last, rank)
    if front is None and behind is None:
        return None
    ends = [(first, front), (index, straight), (last, behind)]
    nodes = tuple(node for node, order in ends if node is not None and order is not None)
    return _Turned(front or straight, index, axis, behind or straight, nodes)


def inner_axis(graph: Graph, index: int) -> int | None:
    """The axis of a Softmax or LogSoftmax, where it is the only one and has others behind it."""
    node = graph.nodes[index]
    shape = graph.type(node.output[0]).shape
    if graph.opset < _PER_AXIS or not shape:
        return None
    given = attributes(node).get("axis")
    axis = (-1 if given is None else given.i) % len(shape)
    return None if set(shape[axis + 1 :]) <= {1} else axis


def probes(source: str, rank: int) -> Iterator[dict[str, Array]]:
    """A random tensor whose first axes have different sizes."""
    rng = np.random.default_rng(zlib.crc32(source.encode()))
    yield {source: rng.standard_normal((2, 3, 4, 5, *[2] * rank)[:rank])}


def _order(graph: Graph, index: int | None, rank: int) -> tuple[int, ...] | None:
    """How a node turns a tensor, where it is a Transpose."""
    if index is None or operator(graph.nodes[index]) != "Transpose":
        return None
    order = order_of(graph, graph.nodes[index])
    return order if order is not None and len(order) == rank else None


def _replaced(graph: Graph, found: _Turned) -> Fold:
    """Puts the turned Softmax in."""
    rank = len(found.front)
    x, target = graph.nodes[found.nodes[0]].input[0], graph.nodes[found.nodes[-1]].output[0]
    op_type = graph.nodes[found.node].op_type
    last = [axis for axis in range(rank) if axis != found.axis] + [found.axis]
    turn = [found.front[axis] for axis in last]
    back = [last.index(axis) for axis in found.behind]
    replacement = Replacement(
        kind="a Softmax",
        formula=f"y = {op_type} of x along axis {turn[-1]}, which is turned to the end",
        source=x,
        target=target,
        before=found.nodes,
        gone=found.nodes,
        nodes=_nodes(graph, op_type, (x, target), turn, back),
        constants={},
    )
    certificate = certify_equal(graph, replacement, probes(x, rank))
    assert not isinstance(certificate, Refusal)  # it makes finite numbers of finite ones
    return put_in(graph, replacement, certificate)


def _nodes(
    graph: Graph, op_type: str, ends: tuple[str, str], turn: Sequence[int], back: Sequence[int]
) -> list[onnx.NodeProto]:
    """The Softmax along the last axis, between what takes it there and back."""
    name, target = ends
    nodes: list[onnx.NodeProto] = []
    for kind, given in (
        ("Transpose", {"perm": turn}),
        (op_type, {"axis": -1}),
        ("Transpose", {"perm": back}),
    ):
        if given.get("perm") != list(range(len(turn))):
            made = graph.unique_name(f"{target}/{kind}")
            nodes.append(onnx.helper.make_node(kind, [name], [made], name=made, **given))
            name = made
    nodes[-1].output[0] = target
    return nodes
