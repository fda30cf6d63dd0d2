"""The weights that folds have put into a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from onnxfuse.fold import Fold
from onnxfuse.graph import FLOAT_TYPES, Array
from onnxfuse.messages import attributes, bodies
from onnxfuse.report.html.weights import Distribution, distribution

if TYPE_CHECKING:
    from onnxfuse.pipeline import OptimizeResult

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Held:
    """A weight as it is stored in a model.

    Attributes:
        name: Name of the initializer.
        operator: The operator that reads it.
        shape: Its shape.
        distribution: What its numbers are like.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    distribution: Distribution


class Stored:
    """Initializers of a model, and who reads them, by name."""

    def __init__(self, result: OptimizeResult) -> None:
        self._load = result.load
        self._tensors: dict[str, onnx.TensorProto] = {}
        self._readers: dict[str, onnx.NodeProto] = {}
        for graph in _graphs(result.model.graph):
            for tensor in graph.initializer:
                if tensor.data_type in FLOAT_TYPES:
                    self._tensors.setdefault(tensor.name, tensor)
            for node in graph.node:
                for name in node.input:
                    self._readers.setdefault(name, node)

    def weight(self, fold: Fold) -> Held | None:
        """The weight that a fold has made, as it is stored now.

        None where it made none, or where a later fold has taken its place.
        """
        products = [w for op, w in zip(fold.nodes, fold.after, strict=True) if op in _PRODUCTS]
        names = [name for wired in products or fold.after for name in wired.constants]
        for name in names:
            tensor, reader = self._tensors.get(name), self._readers.get(name)
            if tensor is not None and reader is not None:
                value = self._load(tensor)
                axes, weight = _by_channel(value, reader, name)
                return Held(name, reader.op_type, value.shape, distribution(weight, axes))
        return None


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from _graphs(body)


def _by_channel(
    weight: Array, reader: onnx.NodeProto, name: str
) -> tuple[tuple[int, ...] | None, Array]:
    """The axes of the output channels, and the weight in a form that has them."""
    if reader.op_type not in _PRODUCTS or weight.ndim < 2:
        return None, weight
    held = attributes(reader)
    if reader.op_type == "Conv":
        return (0,), weight
    if reader.op_type == "ConvTranspose":
        groups = held["group"].i if "group" in held else 1
        return (0, 2), np.reshape(weight, (groups, -1, *weight.shape[1:]))
    second = len(reader.input) > 1 and reader.input[1] == name
    turned = second and "transB" in held and bool(held["transB"].i)
    return (weight.ndim - (2 if turned or not second else 1),), weight
