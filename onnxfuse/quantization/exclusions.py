"""Which nodes stay float, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfuse.errors import ModelError
from onnxfuse.graph import TensorType
from onnxfuse.messages import bodies, names_read, operator
from onnxfuse.report.report import Refused
from onnxfuse.shapes import infer_types

MOVING = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split"}
    | {"Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
"""Operators that make the numbers they are given, in other places, and no others but a padding."""
_INTEGER = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
)
_FLOATS = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def integer_operator(model: onnx.ModelProto) -> str | None:
    """An operator of the model that computes with integers in the place of real numbers, if any."""
    operators = (str(node.op_type) for node in model.graph.node)
    return next(
        (name for name in operators if name in _INTEGER or name.startswith("QLinear")), None
    )


def kept_tensors(model: onnx.ModelProto, keep: Iterable[str], where: str) -> frozenset[str]:
    """The tensors that folding has to leave, so that the nodes that make them can stay float.

    Args:
        model: The model as it was.
        keep: Names of nodes, or of tensors.
        where: What messages begin with.

    Raises:
        ModelError: There is no such node or tensor.
    """
    made: dict[str, list[str]] = {}
    for node in model.graph.node:
        made.setdefault(node.name, []).extend(filter(None, node.output))
        for name in node.output:
            made.setdefault(name, []).append(name)
    given = {value.name for value in model.graph.input}
    tensors: set[str] = set()
    for name in keep:
        if name not in made and name not in given:
            raise ModelError(f"{where}: no node or tensor is named {name!r}")
        tensors.update(made.get(name, ()))
    return frozenset(tensors)


def left_float(
    model: onnx.ModelProto,
    kept: Iterable[str],
    read: Iterable[str] = (),
    delicate: Iterable[str] = (),
) -> list[Refused]:
    """The nodes that are not quantized, because of who else has to do with their tensors.

    1. Those that make a tensor of `kept`, or read one of `read`.
    2. Operators of other domains than ONNX's: of what they compute nothing is known.
    3. Those that make what a body reads, or share a weight with one: the quantizer does not look
       into bodies.
    4. Those whose weight is an output of the model, or an input with a default: it has to stay.
    5. Those that read a tensor of unknown type, such as what another domain's operator makes: the
       quantizer has no range for it.
    6. Relu and Clip of an output of the model: the quantizer gives it the range of what they make.
    7. Those that read a constant without elements, or with numbers that are not finite, which has
       no range; but for the bounds of a Clip.
    8. Those that make or read a tensor of `delicate`.
    9. Those that compute something from constants alone, other than by moving it: it is exact.
    10. Clip whose bounds are not known to be on either side of 0: the quantizer leaves it out, and
       the range that does its work has 0 in it.

    Args:
        model: The folded model; every node has a name.
        kept: Tensors made in float.
        read: Tensors read in float.
        delicate: Tensors of which 8 bits are too few.
    """
    return list(_found(model, *map(frozenset, (kept, read, delicate))))


def _found(
    model: onnx.ModelProto, kept: frozenset[str], read: frozenset[str], delicate: frozenset[str]
) -> Iterator[Refused]:
    graph = model.graph
    captured = {
        name for node in graph.node for body in bodies(node) for name in names_read(body) if name
    }
    weights = {tensor.name for tensor in graph.initializer}
    fixed = {value.name for value in (*graph.input, *graph.output)} & weights
    types = infer_types(model)
    outputs = {value.name for value in graph.output}
    constant = _constants(graph)
    empty = {tensor.name for tensor in graph.initializer if 0 in tensor.dims}
    infinite = {tensor.name for tensor in graph.initializer if not _is_finite(tensor)}
    for node in graph.node:
        reason = None
        data = next(iter(node.input), "")
        if kept.intersection(node.output) or read.intersection(node.input):
            reason = "it is to stay float"
        elif node.domain not in ("", "ai.onnx"):
            reason = f"an operator of {node.domain}"
        elif captured.intersection(node.output):
            reason = "a body reads what it makes"
        elif weights.intersection(node.input) & captured:
            reason = "a body reads its weight too"
        elif fixed.intersection(node.input):
            reason = "its weight is an input or an output of the model"
        elif data and data not in weights and not types.get(data, TensorType()).elem_type:
            reason = "the type of what it reads is not known"
        elif empty.intersection(node.input):
            reason = "it reads a constant without elements"
        elif operator(node) != "Clip" and infinite.intersection(node.input):
            reason = "it reads a constant that is not finite"
        elif delicate.intersection((*node.input, *node.output)):
            reason = "8 bits cannot hold what it makes or reads"
        elif operator(node) not in MOVING and constant.issuperset(node.output):
            reason = "it computes a constant"
        elif operator(node) in ("Relu", "Clip") and data in outputs:
            reason = "it reads an output of the model"
        elif operator(node) == "Clip" and not _is_around_zero(node, model):
            reason = "its bounds are not on either side of 0"
        if reason is not None:
            yield Refused(node.name, node.op_type, reason)


def _constants(graph: onnx.GraphProto) -> frozenset[str]:
    """The tensors that follow from initializers alone."""
    found = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if node.input and operator(node) and not any(bodies(node)) and found.issuperset(node.input):
            found.update(node.output)
    return frozenset(found)


def _is_finite(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type not in _FLOATS or np.isfinite(numpy_helper.to_array(tensor)).all()


def _is_around_zero(clip: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether 0 is within the bounds of a Clip (of opset 11 or later, where they are inputs)."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    given = {value.name for value in model.graph.input}
    signs = {1: -1, 2: 1}  # of the smallest and the largest
    for index, name in enumerate(clip.input):
        if index not in signs or not name:
            continue
        if name not in held or name in given:
            return False
        bound = numpy_helper.to_array(held[name])
        if not (signs[index] * bound >= 0).all():
            return False
    return True
