"""Kernels as nodes: what makes a weight, under its name, from integers and scales.

    [Cast] -> DequantizeLinear -> [Mul -> Add] -> [Reshape] -> [Cast]

The first Cast is there for scales in float16 that are needed in float32, Mul and Add for the
channel distribution shift, Reshape for weights that are stored flat, and the last Cast for weights
in float16 of which something is computed in float32. 3 bits are stored in the 4 of INT4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.compression.kernel import Kernel
from onnxfuse.errors import ModelError

STORED = {2: 2, 3: 4, 4: 4, 8: 8}
"""Bits that integers of so many bits take in a file."""
OPSETS = {2: 25, 4: 21, 8: 21}
"""The opset from which DequantizeLinear takes blocks of integers with so many bits."""

_HEAD = 6  # bytes in front of a message, at most
_TYPES = {2: "INT2", 4: "INT4", 8: "INT8"}


class Lowered:
    """The nodes and tensors that make one weight.

    The nodes have no names, as their outputs say what they are: in a small model names are much of
    what a weight takes.

    Attributes:
        nodes: In order; the last one makes the weight.
        tensors: Integers, scales, zero points and so on.
    """

    def __init__(self, name: str, kernel: Kernel, taken: set[str]) -> None:
        """Makes them.

        Args:
            name: The weight's name.
            kernel: The weight in integers.
            taken: Names that the model has; those of new tensors and nodes are added.
        """
        self.name, self.kernel, self.taken = name, kernel, taken
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[TensorProto] = []
        half = kernel.dtype == np.float16
        computes_half = half and kernel.channel is None and kernel.scales.dtype == np.float16
        inputs = [self._integers("quantized", kernel.integers), self._scales(computes_half)]
        if kernel.zeros is not None:
            inputs.append(self._integers("zero_point", kernel.zeros))
        layout = kernel.layout
        made = self._node("DequantizeLinear", inputs, axis=layout.axis, block_size=layout.size)
        if kernel.channel is not None:
            made = self._node("Mul", [made, self._tensor("channel_scale", kernel.channel.scale)])
            made = self._node("Add", [made, self._tensor("channel_shift", kernel.channel.shift)])
        if layout.is_flat:
            shape = np.array(layout.shape, np.int64)
            made = self._node("Reshape", [made, self._tensor("shape", shape)])
        if half and not computes_half:
            self._node("Cast", [made], to=TensorProto.FLOAT16)
        self.nodes[-1].output[0] = name

    def size(self) -> int:
        """Bytes that all of it takes in a file."""
        nodes = sum(node.ByteSize() + _HEAD for node in self.nodes)
        return int(nodes + sum(tensor.ByteSize() + _HEAD for tensor in self.tensors))

    def _scales(self, computes_half: bool) -> str:
        scales = self.kernel.scales
        stored = self._tensor("scale", scales)
        if scales.dtype == np.float32 or computes_half:
            return stored
        return self._node("Cast", [stored], to=TensorProto.FLOAT)

    def _integers(self, role: str, values: NDArray[np.int8]) -> str:
        bits = STORED[self.kernel.bits]
        name = self._unique(role)
        self.tensors.append(
            TensorProto(
                name=name,
                dims=values.shape,
                data_type=integer_type(bits),
                raw_data=packed(values, bits),
            )
        )
        return name

    def _tensor(self, role: str, values: NDArray[Any]) -> str:
        name = self._unique(role)
        self.tensors.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = self._unique(op_type)
        self.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        return name

    def _unique(self, role: str) -> str:
        base = f"{self.name}/{role}"
        name, count = base, 1
        while name in self.taken:
            name, count = f"{base}_{count}", count + 1
        self.taken.add(name)
        return name


def integer_type(bits: int) -> int:
    """The element type of integers, as onnx.TensorProto numbers them.

    Raises:
        ModelError: The installed onnx has no such type.
    """
    found = TensorProto.DataType.items()
    number = dict(found).get(_TYPES[bits])
    if number is None:
        raise ModelError(f"the installed onnx {onnx.__version__} has no integers of {bits} bits")
    return int(number)


def is_known(bits: int) -> bool:
    """Whether the installed onnx has blocks of integers with so many bits."""
    return OPSETS[STORED[bits]] <= onnx.defs.onnx_opset_version()


def packed(values: NDArray[np.int8], bits: int) -> bytes:
    """Integers as ONNX stores them: several in a byte, the first one in the lowest bits."""
    flat: NDArray[Any] = values.reshape(-1).view(np.uint8)
    each = 8 // bits
    if each == 1:
        return flat.tobytes()
    flat = np.concatenate([flat, np.zeros(-len(flat) % each, np.uint8)]) & ((1 << bits) - 1)
    together = np.zeros(len(flat) // each, np.uint8)
    for place in range(each):
        together |= flat[place::each] << np.uint8(place * bits)
    return together.tobytes()


def put_in(graph: onnx.GraphProto, lowered: list[Lowered]) -> None:
    """Puts nodes in the place of initializers, in front of all others of the graph."""
    gone = {made.name for made in lowered}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in gone:
            del graph.initializer[index]
    graph.initializer.extend(tensor for made in lowered for tensor in made.tensors)
    nodes = [*(node for made in lowered for node in made.nodes), *_copies(graph)]
    del graph.node[:]
    graph.node.extend(nodes)


def _copies(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        yield copy
