"""Models of old opsets and IR versions, as int8 needs them."""

from __future__ import annotations

import onnx
from onnx import TensorProto, inliner

from onnxfuse.errors import ModelError
from onnxfuse.hollow import tensors
from onnxfuse.io.files import one_line
from onnxfuse.opsets import raise_opset
from onnxfuse.shapes import default_opset

PER_CHANNEL = 13
"""The opset from which DequantizeLinear has an axis."""
HALF = 19
"""The opset from which QuantizeLinear takes float16."""


def raised(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """A copy of a model at an opset at which its tensors can be quantized per channel.

    Local functions are put in their places first, where the opset has to be raised. Initializers
    that IR version 3 lists among the inputs are listed there no longer.

    Args:
        model: The model, its tensors' data in it.
        where: What messages begin with.

    Raises:
        ModelError: It cannot be raised.
    """
    least = HALF if is_half(model) else PER_CHANNEL
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if made.functions and default_opset(made) < least:
        try:
            made = inliner.inline_local_functions(made)
        except Exception as error:  # it raises types of its own, C++ ones
            raise ModelError(f"{where}: its functions stay: {one_line(error)}") from error
    try:
        raise_opset(made, least, "int8")
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    return made


def is_half(model: onnx.ModelProto) -> bool:
    """Whether the model keeps float16 numbers."""
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in tensors(model))
