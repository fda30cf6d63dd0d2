"""Operators that hand on a tensor, change its type, or make one."""

import numpy as np
import onnx
from onnx import TensorProto

from onnxfuse.reference.call import Call, Tensor, widen

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_INTEGERS = (
    TensorProto.BOOL,
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.UINT32,
    TensorProto.UINT64,
)


def identity(call: Call) -> Tensor:
    """Identity: y = x."""
    tensor: Tensor = call.inputs[0]
    return tensor


def dropout(call: Call) -> Tensor | tuple[Tensor, Tensor]:
    """Dropout at inference: the identity, and a mask that keeps everything.

    Before opset 12 the mask's content is not specified at inference: it is not covered.
    """
    x: Tensor = call.inputs[0]
    training_mode = call.optional(2)
    if training_mode is not None and training_mode.any():
        raise call.unsupported("Dropout in training mode")
    return (x, np.ones(x.shape, np.bool_)) if call.opset >= 12 else x


def cast(call: Call) -> Tensor:
    """Cast: to a floating type float64 whatever its width, to an integer type as numpy does."""
    (x,) = call.inputs
    to = call.attributes["to"]
    name = TensorProto.DataType.Name(to)
    if x.dtype.kind not in "iubf":
        raise call.unsupported(f"Cast from {x.dtype}")
    if to in _FLOATS:
        return np.asarray(x, np.float64)
    if to in _INTEGERS:
        return np.asarray(x.astype(onnx.helper.tensor_dtype_to_np_dtype(to)))
    raise call.unsupported(f"Cast to {name}")


def constant(call: Call) -> Tensor:
    """Constant: the tensor, number or list of numbers in its only attribute."""
    ((name, value),) = call.attributes.items()
    if name == "value":
        return widen(value)
    if name in ("value_float", "value_floats"):
        return np.asarray(value, np.float64)
    if name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    raise call.unsupported(f"attribute {name!r} is not covered")


def constant_of_shape(call: Call) -> Tensor:
    """ConstantOfShape: the only element of value, or a floating 0, in the shape that x holds."""
    value = widen(call.attributes.get("value", np.zeros(1)))
    return np.broadcast_to(value.reshape(()), [int(size) for size in call.inputs[0]])


def range_(call: Call) -> Tensor:
    """Range: start + i * delta for i from 0 to ceil((limit - start) / delta), exclusive.

    Raises:
        UnsupportedOperator: Rounding to float32 changes the length.
    """
    dtype = call.inputs[0].dtype
    start, limit, delta = (scalar.item() for scalar in call.inputs)
    if not delta or not np.isfinite((limit - start) / delta):
        raise ValueError(f"no range from {start} to {limit} by {delta}")
    if dtype.kind in "iu":
        return np.asarray(range(start, limit, delta), dtype)
    narrow = np.float32(limit) - np.float32(start)  # in float32 all through, or until the division
    quotients = [(limit - start) / delta, float(narrow) / delta, narrow / np.float32(delta)]
    count, *others = np.maximum(np.ceil(quotients), 0).tolist()
    if any(other != count for other in others):
        raise call.unsupported(f"length {count} or {others} from {start} to {limit} by {delta}")
    return np.asarray(start + np.arange(count) * delta)
