"""A stretch at one size: evaluated in float64, on whatever is put in."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.errors import OnnxfuseError
from onnxfuse.graph import Graph
from onnxfuse.probe.linearity import PRODUCTS, WINDOWS
from onnxfuse.probe.stretch import Stretch
from onnxfuse.reference import evaluate

_MOST_ELEMENTS = 3 << 24
_COPY = 16  # a value that is moved takes as long as so many multiply-adds

Array = NDArray[Any]
Shape = tuple[int, ...]


class DoesNotRun(OnnxfuseError):  # noqa: N818 - named for what it says
    """At the sizes given, shapes within a stretch do not fit each other."""


class BeyondMeans(OnnxfuseError):  # noqa: N818
    """A stretch cannot be judged by evaluating it; the message says why."""


class Load(NamedTuple):
    """How large a tensor is, and how many multiply-adds it takes to make it."""

    elements: int
    macs: int


class Run:
    """A stretch for one shape of its source.

    Attributes:
        shape: Shape of the source, (N, C, *S).
        rest: What the stretch makes of zeros, (N, C', *S').
        work: What it takes to evaluate it, in multiply-adds.
        calls: How often it was evaluated.
        loads: What each tensor in it takes.
    """

    def __init__(
        self, graph: Graph, stretch: Stretch, shape: Shape, others: Mapping[str, Shape]
    ) -> None:
        """Evaluates the stretch once.

        Args:
            graph: The graph around it.
            stretch: The stretch.
            shape: Shape of its source.
            others: Shapes of the tensors that it reads the shapes of.

        Raises:
            DoesNotRun: If the shapes within it do not fit each other then.
            BeyondMeans: If it is too large.
            UnsupportedOperator: If the evaluator does not cover one of its nodes.
        """
        self.stretch, self.shape, self._opset = stretch, shape, graph.opset
        if math.prod(shape) * len(stretch.affine) > _MOST_ELEMENTS:
            size = "x".join(map(str, shape))
            raise BeyondMeans(f"evaluating {len(stretch.affine)} nodes on {size} takes too much")
        values = _evaluated(graph, stretch.nodes, _given(graph, stretch, shape, others))
        made = {name for node in stretch.affine for name in node.output if name}
        read = {name for node in stretch.affine for name in node.input if name}
        self._fixed = {n: np.asarray(values[n]) for n in read - made - {stretch.source}}
        self.rest = np.asarray(values[stretch.target])
        elements = math.prod(shape) + sum(values[name].size for name in made)
        products = {node.output[0]: _products(node, values) for node in stretch.affine}
        self.calls = 1
        self.work = _COPY * elements + sum(products.values())
        self.loads = {name: Load(values[name].size, products.get(name, 0)) for name in made}

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the source and of the target."""
        return self.shape[1], *self.rest.shape[1:2]

    def __call__(self, x: Array) -> Array:
        """What the stretch makes of x."""
        self.calls += 1
        given = {**self._fixed, self.stretch.source: x}
        target = self.stretch.target
        return np.asarray(evaluate(self.stretch.affine, given, self._opset, {target})[target])


def shape_after(graph: Graph, stretch: Stretch, shape: Shape, count: int) -> Shape:
    """The shape of what the first `count` nodes make; raises as `Run` does."""
    nodes = stretch.nodes[:count]
    values = _evaluated(graph, nodes, _given(graph, stretch, shape, {}))
    return values[nodes[-1].output[0]].shape


def _evaluated(
    graph: Graph, nodes: Sequence[onnx.NodeProto], values: Mapping[str, Array]
) -> dict[str, Array]:
    try:
        return evaluate(nodes, values, graph.opset)
    except (ValueError, IndexError) as error:
        raise DoesNotRun(str(error)) from error


def _given(
    graph: Graph, stretch: Stretch, shape: Shape, others: Mapping[str, Shape]
) -> dict[str, Array]:
    if max(map(math.prod, others.values()), default=0) > sys.maxsize:
        raise BeyondMeans("it reads the sizes of a tensor that is too large")
    given = {name: _wide(graph, name) for name in stretch.constants}
    given |= {name: np.broadcast_to(np.zeros(()), other) for name, other in others.items()}
    return given | {stretch.source: np.zeros(shape)}


def _wide(graph: Graph, name: str) -> Array:
    """A constant in the evaluator's own types, so that it is not converted each time."""
    value = np.asarray(graph.constant(name))
    if value.dtype.kind in "OSU":
        raise BeyondMeans(f"it reads the strings in {name!r}")
    return value if value.dtype.kind in "iub" else value.astype(np.float64)


def _products(node: onnx.NodeProto, values: Mapping[str, Array]) -> int:
    """Multiply-adds of a node: those of a matrix product of its operands and result."""
    if node.op_type not in PRODUCTS and node.op_type not in WINDOWS:
        return 0
    sizes = [values[name].size for name in (*node.input[:2], node.output[0])]
    return math.isqrt(math.prod(sizes))
