"""Models of old opsets and IR versions, as int8 needs them."""

from __future__ import annotations

import onnx
from onnx import TensorProto, inliner, version_converter

from onnxfuse.errors import ModelError
from onnxfuse.hollow import tensors
from onnxfuse.io.files import one_line
from onnxfuse.shapes import default_opset

PER_CHANNEL = 13
"""The opset from which DequantizeLinear has an axis."""
HALF = 19
"""The opset from which QuantizeLinear takes float16."""
_IR_VERSION = 7
"""That which came with opset 13. From 4 on, initializers need not be inputs."""


def raised(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """A copy of a model at an opset at which its tensors can be quantized per channel.

    The copy keeps what onnx's version converter loses: nodes' metadata and training information.
    Local functions are put in their places first, where the opset has to be raised. Initializers
    that IR version 3 lists among the inputs are listed there no longer.

    Args:
        model: The model, its tensors' data in it.
        where: What messages begin with.

    Raises:
        ModelError: The converter cannot raise it.
    """
    least = HALF if is_half(model) else PER_CHANNEL
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if made.ir_version < 4:
        weights = {tensor.name for tensor in made.graph.initializer}
        given = [value for value in made.graph.input if value.name not in weights]
        del made.graph.input[:]
        made.graph.input.extend(given)
    made.ir_version = max(made.ir_version, _IR_VERSION)
    if default_opset(made) >= least:
        return made
    before = made
    try:
        if made.functions:
            before = made = inliner.inline_local_functions(made)
        made = version_converter.convert_version(made, least)
    except Exception as error:  # the converter raises types of its own, C++ ones
        raise ModelError(
            f"{where}: opset {default_opset(model)} cannot be raised to {least}, which int8 needs: "
            f"{one_line(error)}"
        ) from error
    _give_back(before, made)
    made.ir_version = max(made.ir_version, before.ir_version)
    return made


def is_half(model: onnx.ModelProto) -> bool:
    """Whether the model keeps float16 numbers."""
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in tensors(model))


def _give_back(before: onnx.ModelProto, made: onnx.ModelProto) -> None:
    """What the converter does not copy: metadata of nodes and graph, training information."""
    held = {name: node.metadata_props for node in before.graph.node for name in node.output if name}
    for node in made.graph.node:
        props = next((held[name] for name in node.output if name in held), ())
        if props and not node.metadata_props:
            node.metadata_props.extend(props)
    if not made.graph.metadata_props:
        made.graph.metadata_props.extend(before.graph.metadata_props)
    if not made.training_info:
        made.training_info.extend(before.training_info)
