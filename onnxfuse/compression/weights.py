"""Which initializers of a model are weights of layers that can be stored in integers.

1. It is an initializer of float32 or float16 with two dimensions or more.
2. Nobody can override it: it is no graph input (from IR version 4 on, where these are defaults).
3. It is no graph output, and training information does not name it.
4. All who read it do so as the weight of a Conv, ConvTranspose, Gemm or MatMul, bodies included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import onnx
from onnx import TensorProto

from onnxfuse.compression.layout import Layout, conv_layout, matrix_layout, transposed_layout
from onnxfuse.compression.result import LeftAlone
from onnxfuse.errors import ModelError
from onnxfuse.io.checks import called
from onnxfuse.messages import attributes, bodies, operator, trained_names

_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
_SLOTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
_BEHIND = frozenset({"Add", "Cast", "Mul", "Reshape", "Transpose"})
_ALWAYS_WEIGHTS = frozenset({"Conv", "ConvTranspose"})


class _Read(NamedTuple):
    """Who reads a tensor, at which of its inputs; an output of a graph where `node` is None."""

    node: onnx.NodeProto | None
    place: int

    @property
    def is_weight(self) -> bool:
        """Whether the tensor is the weight of a layer there."""
        return self.node is not None and self.place in _SLOTS.get(operator(self.node), ())


_Reads: TypeAlias = dict[str, list[_Read]]


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight that can be stored in integers.

    Attributes:
        graph: The graph whose initializer it is.
        tensor: The initializer.
        layer: The layer that reads it, the first of several.
        index: At which of its inputs.
        place: Which of the model's graphs it is, bodies counted in the order of the nodes; 0 is the
            model's own.
    """

    graph: onnx.GraphProto
    tensor: TensorProto
    layer: onnx.NodeProto
    index: int
    place: int

    @property
    def name(self) -> str:
        """The initializer's name."""
        return str(self.tensor.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.tensor.dims)

    @property
    def layer_name(self) -> str:
        """What the report calls the layer."""
        return name_of(self.layer)

    def layout(self, block: int) -> Layout:
        """How it is stored, in blocks of at most so many values."""
        kind = operator(self.layer)
        given = attributes(self.layer)
        if kind == "Conv":
            return conv_layout(self.shape, block)
        if kind == "ConvTranspose":
            return transposed_layout(self.shape, block, given["group"].i if "group" in given else 1)
        first = self.index == 0
        turned = "transB" if not first else "transA"
        turns = kind == "Gemm" and turned in given and given[turned].i != 0
        return matrix_layout(self.shape, block, len(self.shape) - 2 + int(first != turns))


def name_of(node: onnx.NodeProto) -> str:
    """A node's name, or that of its first output."""
    return str(node.name or next(filter(None, node.output), ""))


def find_weights(
    model: onnx.ModelProto, keep: frozenset[str]
) -> tuple[list[Weight], list[LeftAlone]]:
    """The weights that can be stored in integers, and those that are left alone.

    Args:
        model: The model.
        keep: Names of weights, or of layers (or of what these make), that stay as they are.

    Raises:
        ModelError: `keep` names nothing in the model.
    """
    weights: list[Weight] = []
    left: list[LeftAlone] = []
    known: set[str] = set()
    trained = trained_names(model)
    for place, graph in enumerate(graphs_of(model.graph)):
        reads: _Reads = defaultdict(list)
        for name, read in _reads(graph):
            reads[name].append(read)
        overridable = {value.name for value in graph.input} if model.ir_version >= 4 else set()
        sparse = {tensor.values.name for tensor in graph.sparse_initializer}
        known.update(sparse, (tensor.name for tensor in graph.initializer))
        for node in graph.node:
            known.update(filter(None, (node.name, *node.output)))
        for tensor in graph.initializer:
            layers = [read for read in reads[tensor.name] if read.is_weight]
            if not layers or layers[0].node is None:
                continue
            weight = Weight(graph, tensor, layers[0].node, layers[0].place, place)
            reason = _refused(tensor, reads[tensor.name], overridable, trained, keep)
            if reason:
                left.append(LeftAlone(weight.name, weight.layer_name, reason))
            else:
                weights.append(weight)
        left.extend(_made(graph, reads, sparse))
    missing = sorted(keep - known)
    if missing:
        raise ModelError(f"no weight and no layer is named {missing[0]!r}")
    return weights, left


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies in it."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs_of(body)


def _reads(graph: onnx.GraphProto) -> Iterator[tuple[str, _Read]]:
    """Every read of a tensor in a graph and the bodies in it, under the tensor's name."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            yield name, _Read(node, index)
        for body in bodies(node):
            yield from _reads(body)
    for output in graph.output:
        yield output.name, _Read(None, 0)


def _refused(
    tensor: TensorProto,
    reads: list[_Read],
    overridable: set[str],
    trained: frozenset[str],
    keep: frozenset[str],
) -> str:
    """Why an initializer that is a layer's weight is left alone; empty where it is not."""
    if tensor.data_type not in _TYPES:
        return f"its type is {TensorProto.DataType.Name(tensor.data_type).lower()}"
    if len(tensor.dims) < 2 or 0 in tensor.dims:
        return f"its shape is {'x'.join(map(str, tensor.dims)) or 'that of a scalar'}"
    if tensor.name in overridable:
        return "it is an input with a default, which callers may override"
    if tensor.name in trained:
        return "the model's training information names it"
    for read in reads:
        if read.node is None:
            return "it is a graph output"
        if not read.is_weight:
            return f"{called(read.node)} reads it too, not as a layer's weight"
    names = {tensor.name}
    for read in reads:
        if read.node is not None:
            names.update((read.node.name, *read.node.output))
    return "it is kept" if keep & names else ""


def _made(graph: onnx.GraphProto, reads: _Reads, sparse: set[str]) -> Iterator[LeftAlone]:
    """Weights that are no initializers: made by nodes, or sparse."""
    makers = {name: node for node in graph.node for name in node.output if name}
    for name, found in reads.items():
        layer = next((read.node for read in found if read.is_weight), None)
        if layer is None:
            continue
        if name in sparse:
            yield LeftAlone(name, name_of(layer), "it is sparse")
        if name not in makers:
            continue
        maker = makers[name]
        is_weight = any(
            read.node is not None and operator(read.node) in _ALWAYS_WEIGHTS
            for read in found
            if read.is_weight
        )
        if _is_dequantized(maker, makers):
            yield LeftAlone(name, name_of(layer), "it is in integers already")
        elif is_weight or operator(maker) == "Constant":
            yield LeftAlone(name, name_of(layer), f"{called(maker)} makes it, it is no initializer")


def _is_dequantized(maker: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether a tensor comes from DequantizeLinear, also through what shifts and shapes it."""
    node: onnx.NodeProto | None = maker
    while node is not None and operator(node) in _BEHIND:
        node = makers.get(node.input[0])
    return node is not None and operator(node) == "DequantizeLinear"
