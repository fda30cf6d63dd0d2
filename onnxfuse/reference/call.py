"""What an operator's function is given: node, inputs as arrays, attributes and opset."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto

from onnxfuse.errors import OnnxfuseError

Tensor: TypeAlias = NDArray[Any]


class UnsupportedOperator(OnnxfuseError):  # noqa: N818 - named for what it is about
    """A node that the evaluator does not cover, with the reason.

    Attributes:
        node: The node.
        reason: What about it is not covered, in words.
    """

    def __init__(self, node: onnx.NodeProto, reason: str) -> None:
        label = node.name or ", ".join(node.output)
        super().__init__(f"cannot evaluate {node.op_type} node {label!r}: {reason}")
        self.node = node
        self.reason = reason


class Call(NamedTuple):
    """One evaluation of one node."""

    node: onnx.NodeProto
    inputs: list[Any]  # Tensor, or None where an optional input is left out
    attributes: dict[str, Any]
    opset: int

    def optional(self, index: int) -> Tensor | None:
        """The input at index, or None where the node has none there."""
        return self.inputs[index] if index < len(self.inputs) else None

    def integers(self, name: str, index: int) -> list[int] | None:
        """Integers that older opsets keep in attribute name and newer ones in input index."""
        if name in self.attributes:
            return list(self.attributes[name])
        tensor = self.optional(index)
        return None if tensor is None else [int(value) for value in tensor.ravel()]

    def unsupported(self, reason: str) -> UnsupportedOperator:
        """The exception to raise when this node asks for something that is not covered."""
        return UnsupportedOperator(self.node, reason)


def widen(value: Tensor) -> Tensor:
    """Value as float64 when it is floating, and as it is otherwise."""
    dtype = value.dtype
    if dtype == np.float64 or dtype.kind in "iub":
        return value
    if dtype.kind == "f" or dtype.name.startswith(("bfloat", "float")):  # ml_dtypes are of kind V
        return value.astype(np.float64)
    return value


_READERS: dict[int, Callable[[AttributeProto], Any]] = {
    AttributeProto.FLOAT: lambda attribute: attribute.f,
    AttributeProto.INT: lambda attribute: attribute.i,
    AttributeProto.STRING: lambda attribute: attribute.s.decode("utf-8", "replace"),
    AttributeProto.TENSOR: lambda attribute: onnx.numpy_helper.to_array(attribute.t),
    AttributeProto.FLOATS: lambda attribute: list(attribute.floats),
    AttributeProto.INTS: lambda attribute: list(attribute.ints),
}


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values, by name."""
    read = {}
    for attribute in node.attribute:
        reader = _READERS.get(attribute.type)
        if reader is None or attribute.ref_attr_name:
            raise UnsupportedOperator(node, f"attribute {attribute.name!r} is not covered")
        read[attribute.name] = reader(attribute)
    return read
