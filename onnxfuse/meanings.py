"""Operators that mean something else at newer opsets, where onnx's converter does not see to it.

1. GroupNormalization before 21 takes numbers per group, BatchNormalization before 14 trains where
   it has more outputs than one, and the mask of a Dropout before 12 is another one: refused, a
   mask only where something reads it.
2. Hardmax before 13 takes its input as a matrix: Hardmax(axis) -> Flatten(axis), Hardmax, Reshape.
3. Resize and Upsample before 11 do not shift by half a pixel. The nearest value is the one below,
   or where ONNX Runtime makes the image smaller, the one above; scales that the model computes are
   taken to make it larger.
4. Pad before 11 has an attribute `value`, also where nothing is filled with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnxfuse.errors import ModelError
from onnxfuse.hollow import is_external
from onnxfuse.messages import attributes, bodies, names_read, operator

_GROUPS, _TRAINING, _MASK, _MATRIX, _PIXELS = 21, 14, 12, 13, 11
"""The opsets from which these operators mean what they mean now."""
_MOST_AXES = 8  # of an image


def refusals(graph: onnx.GraphProto, own: int, opset: int) -> Iterator[str]:
    """What in a graph and its bodies has no equal at a newer opset, in words."""
    read = set(names_read(graph))
    for inner in _graphs(graph):
        for node in inner.node:
            kind = operator(node)
            if kind == "GroupNormalization" and own < _GROUPS <= opset:
                yield "GroupNormalization takes other numbers there"
            if kind == "BatchNormalization" and own < _TRAINING <= opset and any(node.output[1:]):
                yield "BatchNormalization trains, by operators that are others there"
            if kind == "Dropout" and own < _MASK <= opset and read & set(node.output[1:]):
                yield "the mask of Dropout is another one there"


def drop_masks(graph: onnx.GraphProto, own: int) -> None:
    """Takes the masks that nothing reads off Dropout: their type would be another one."""
    for inner in _graphs(graph) if own < _MASK else ():
        dropped: set[str] = set()
        for node in inner.node:
            if operator(node) == "Dropout":
                dropped.update(node.output[1:])
                del node.output[1:]
        for index in reversed(range(len(inner.value_info))):
            if inner.value_info[index].name in dropped:
                del inner.value_info[index]


class Mender:
    """Mends nodes that the converter has raised."""

    def __init__(self, model: onnx.ModelProto, own: int, unique: Callable[[str], str]) -> None:
        """Notes what it needs.

        Args:
            model: The model as it was.
            own: Its opset.
            unique: Gives a name that nothing has.
        """
        self.own, self.unique = own, unique
        self.constants = dict(_constants(model.graph)) if own < _PIXELS else {}

    def mended(self, old: onnx.NodeProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Nodes that compute, at the newer opset, what `old` did; changes `node`.

        Raises:
            ModelError: There are none.
        """
        kind = operator(node)
        if kind == "Resize" and self.own < _PIXELS:
            self._place_pixels(old, node)
        if kind == "Pad" and self.own < _PIXELS and "value" in attributes(node):
            node.attribute.remove(attributes(node)["value"])
        if kind == "Hardmax" and self.own < _MATRIX:
            return self._as_matrix(node)
        return [node]

    def _place_pixels(self, old: onnx.NodeProto, node: onnx.NodeProto) -> None:
        settings = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        scales = self.constants.get(old.input[1]) if operator(old) == "Resize" else None
        mode = attributes(node).get("mode")
        if scales is not None and (mode is None or mode.s == b"nearest"):
            step = np.float32(1) / scales
            if np.any((scales < 1) & (step != np.rint(step))):  # else there is nothing to round
                if np.any(scales > 1):
                    raise ModelError(
                        "cannot be raised to a newer opset: Resize rounds up along one axis, "
                        "down along another"
                    )
                settings["nearest_mode"] = "ceil"
        for name, value in settings.items():  # the converter leaves these at their defaults
            if name not in attributes(node):
                node.attribute.append(helper.make_attribute(name, value))

    def _as_matrix(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        given = attributes(node)
        axis = given["axis"].i if "axis" in given else 1
        if axis == -1:
            return [node]
        (source,), (target,) = node.input, node.output
        flat, chosen, shape = (
            self.unique(f"{target}/{role}") for role in ("flat", "chosen", "shape")
        )
        if "axis" in given:
            node.attribute.remove(given["axis"])
        node.input[0], node.output[0] = flat, chosen
        return [
            helper.make_node("Flatten", [source], [flat], axis=axis),
            node,
            helper.make_node("Shape", [source], [shape]),
            helper.make_node("Reshape", [chosen, shape], [target]),
        ]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from _graphs(body)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    """Numbers in float32 that the model itself holds, by name."""
    for inner in _graphs(graph):
        held = {tensor.name: tensor for tensor in inner.initializer}
        for node in inner.node:
            value = attributes(node).get("value")
            if operator(node) == "Constant" and value and value.type == AttributeProto.TENSOR:
                held[node.output[0]] = value.t
        for name, tensor in held.items():
            is_short = len(tensor.dims) == 1 and tensor.dims[0] <= _MOST_AXES
            if tensor.data_type == TensorProto.FLOAT and is_short and not is_external(tensor):
                yield name, numpy_helper.to_array(tensor)
