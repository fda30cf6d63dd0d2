"""Layers as onnxruntime.quantization can take them: what it gets wrong, in other nodes.

    Gemm(a, b, c, alpha, beta) -> Gemm(a, b, beta c, alpha)          c of one row, as a (N,)
    Gemm(a, b, c, alpha, beta) -> Add(Gemm(a, b, alpha), beta c)     any other constant c
    ConvTranspose(x, w, b, group) -> Add(ConvTranspose(x, w, group), b)

The library quantizes a bias with one scale for each channel of the weight and drops a Gemm's beta.

1. The bias is a constant, which may have other readers.
2. Of a Gemm: beta is not 1, or the bias has another shape than (N,), or the weight is no constant.
3. Of a ConvTranspose: more groups than one, of which each has several channels: the library's
   scales are those of the channels in a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfuse.messages import all_names, attributes, names_read, operator

_FLOATS = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
Array = np.ndarray[Any, Any]


def plain(model: onnx.ModelProto, kept: frozenset[str]) -> None:
    """Rewrites such layers of a model, in place, and drops constants that nobody reads.

    Args:
        model: A model with its data in it.
        kept: Tensors whose makers and readers stay as they are.
    """
    _Rewrite(model).run(kept)


class _Rewrite:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.held = {tensor.name: tensor for tensor in self.graph.initializer}
        self.given = {value.name for value in self.graph.input}
        self.names = set(all_names(self.graph))

    def run(self, kept: frozenset[str]) -> None:
        nodes, made = list(self.graph.node), []
        for node in nodes:
            made.append(node)
            if not kept.intersection((*node.input, *node.output)):
                made += self._behind(node)
        if len(made) > len(nodes):
            del self.graph.node[:]
            self.graph.node.extend(made)
        read = {*names_read(self.graph), *self.given}
        for index in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[index].name not in read:  # ONNX Runtime warns of it
                del self.graph.initializer[index]

    def _behind(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Changes a node, and gives what is to come behind it."""
        bias = self._bias(node)
        if bias is None:
            return
        if operator(node) == "Gemm":
            beta = attributes(node).get("beta")
            scale = 1.0 if beta is None else beta.f
            count = self._columns(node)
            if bias.shape == (count,) and scale == 1:
                return
            if beta is not None:
                node.attribute.remove(beta)
            scaled = (bias.astype(np.float64) * scale).astype(bias.dtype)
            if count is not None and bias.shape[:-1] in ((), (1,)):
                row = np.ascontiguousarray(np.broadcast_to(scaled.reshape(-1), (count,)))
                node.input[2] = self._constant(node.input[2], row)
            else:
                yield self._added(node, scaled)
        elif operator(node) == "ConvTranspose" and self._has_shared_scales(node):
            rank = len(self.held[node.input[1]].dims)
            yield self._added(node, bias.reshape(-1, *[1] * (rank - 2)))

    def _bias(self, node: onnx.NodeProto) -> Array | None:
        """The third input, if it is a constant in floats."""
        tensor = self.held.get(node.input[2]) if len(node.input) == 3 else None
        if tensor is None or tensor.name in self.given or tensor.data_type not in _FLOATS:
            return None
        return numpy_helper.to_array(tensor)

    def _columns(self, node: onnx.NodeProto) -> int | None:
        """How many columns a Gemm makes; None where its weight is no constant."""
        weight = self.held.get(node.input[1])
        if weight is None or len(weight.dims) != 2:
            return None
        transposed = attributes(node).get("transB")
        return int(weight.dims[0 if transposed is not None and transposed.i else 1])

    def _has_shared_scales(self, node: onnx.NodeProto) -> bool:
        group = attributes(node).get("group")
        weight = self.held.get(node.input[1])
        return group is not None and group.i > 1 and weight is not None and weight.dims[1] > 1

    def _added(self, node: onnx.NodeProto, value: Array) -> onnx.NodeProto:
        """An Add of what was a node's bias, which the node loses."""
        bias, output = node.input.pop(), node.output[0]
        node.output[0] = self._unique(f"{output}_unbiased")
        inputs = [node.output[0], self._constant(bias, value)]
        return helper.make_node("Add", inputs, [output], self._unique(f"{node.name}_bias"))

    def _constant(self, base: str, value: Array) -> str:
        name = self._unique(f"{base}_plain")
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _unique(self, base: str) -> str:
        name, count = base, 1
        while name in self.names:
            name, count = f"{base}_{count}", count + 1
        self.names.add(name)
        return name
