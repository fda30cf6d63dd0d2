"""Subnormal weights of Conv, ConvTranspose, Gemm and MatMul become zero.

Processors take up to a hundred times as long for a product with one. They come from training with
weight decay, in channels that stopped mattering.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx

from onnxfuse.graph import FLOAT_TYPES, Array, Graph
from onnxfuse.messages import attributes, bodies
from onnxfuse.rounding import SLOW, flushed, precision

_WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
_FEWEST_AXES = {"Conv": 3, "ConvTranspose": 3, "Gemm": 2, "MatMul": 1}


class _Reader(NamedTuple):
    node: onnx.NodeProto
    position: int


Uses = dict[str, list[_Reader | None]]


@dataclass
class Flushed:
    """What was found in the weights of a graph.

    Attributes:
        counts: How many numbers were set to zero, by weight.
        refusals: (node, operator, reason) for nodes whose weight is not finite.
    """

    counts: dict[str, int] = field(default_factory=dict)
    refusals: list[tuple[str, str, str]] = field(default_factory=list)


def flush_denormals(graph: Graph) -> Flushed:
    """Sets to zero what is below the rounding of every output channel that the weight goes into.

    A weight is left as it is where somebody else reads it too, where it can be overridden or is an
    output, and in float16, whose subnormal numbers are normal in the float32 that kernels use.

    Args:
        graph: The graph; changed and committed.
    """
    uses: Uses = {}
    _collect(graph.nodes, uses)
    outcome = Flushed()
    for tensor in graph.proto.initializer:
        found = uses.get(tensor.name, [])
        readers = [reader for reader in found if reader is not None]
        if not readers or not _may_change(graph, tensor):
            continue
        value = np.asarray(graph.constant(tensor.name))
        if not np.all(np.isfinite(value)):
            outcome.refusals.extend(map(_not_finite, readers))
            continue
        roundoff, smallest = precision(value.dtype)
        if len(readers) == len(found) and smallest <= SLOW:
            weakest = min(_weakest(reader, value) for reader in readers)
            rounded = flushed({tensor.name: value}, smallest, roundoff * weakest, roundoff)
            if rounded.flushed:
                graph.add_constant(tensor.name, rounded.constants[tensor.name])
                outcome.counts[tensor.name] = rounded.flushed
    graph.commit()
    return outcome


def _may_change(graph: Graph, tensor: onnx.TensorProto) -> bool:
    """True for numbers that nobody outside gives or sees."""
    return (
        tensor.data_type in FLOAT_TYPES
        and graph.is_constant(tensor.name)
        and tensor.name not in graph.outputs
    )


def _not_finite(reader: _Reader) -> tuple[str, str, str]:
    node = reader.node
    return node.name or node.output[0], node.op_type, "its weights are not finite"


def _collect(nodes: Iterable[onnx.NodeProto], uses: Uses) -> None:
    """Who reads a tensor, in bodies too; None for a reader that it is no weight of."""
    for node in nodes:
        positions = _WEIGHTS.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ()
        for position, name in enumerate(node.input):
            reader = _Reader(node, position) if position in positions else None
            uses.setdefault(name, []).append(reader)
        for body in bodies(node):
            _collect(body.node, uses)
            for output in body.output:
                uses.setdefault(output.name, []).append(None)


def _weakest(use: _Reader, value: Array) -> float:
    """The least, over output channels that are not all zero, of their largest weights."""
    largest = _largest(use, value)
    if largest is None:
        return 0.0
    sizes = largest.astype(np.float64)
    return float(np.min(sizes, where=sizes > 0, initial=np.inf))


def _largest(use: _Reader, value: Array) -> Array | None:
    """The largest magnitude in the weights of every output channel; None for no such weight."""
    op, options = use.node.op_type, attributes(use.node)
    if value.ndim < _FEWEST_AXES[op] or not value.size:
        return None
    axes = tuple(range(value.ndim))
    if op == "ConvTranspose":
        groups = options["group"].i if "group" in options else 1
        if groups < 1 or value.shape[0] % groups:
            return None
        value = value.reshape(groups, -1, value.shape[1], *value.shape[2:])
        summed = (1, *range(3, value.ndim))
    elif op == "Conv":
        summed = axes[1:]
    else:
        side = "transB" if use.position else "transA"
        is_turned = side in options and bool(options[side].i)
        rows_first = (use.position == 1) != is_turned and value.ndim > 1
        summed = axes[-2:-1] if rows_first else axes[-1:]
    return np.asarray(np.maximum(np.max(value, axis=summed), -np.min(value, axis=summed)))
