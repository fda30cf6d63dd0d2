"""Operators on integers that stand for real numbers, scale * (code - zero point).

Rounding is to the nearest code, ties to the even one, and what lies beyond the codes of a type
becomes the last of them. Sums of products of codes are exact in float64.
"""

from typing import Any

import numpy as np
import onnx

from onnxfuse.reference.call import Call, Tensor
from onnxfuse.reference.convolution import conv

_TYPES = onnx.TensorProto.DataType
_BITS = {
    name: bits
    for name, bits in (
        *(("INT2", 2), ("INT4", 4), ("INT8", 8), ("INT16", 16)),
        *(("UINT2", 2), ("UINT4", 4), ("UINT8", 8), ("UINT16", 16)),
    )
    if name in _TYPES.keys()  # noqa: SIM118 - onnx 1.19 has no types of two bits
}


def quantize_linear(call: Call) -> Tensor:
    """QuantizeLinear: y = saturate(round(x / scale) + zero point).

    Scale and zero point are one number, one for each index along an axis, or one for each block
    of indices along it.

    Raises:
        UnsupportedOperator: The codes are floating numbers.
        ValueError: Scale or zero point do not fit x.
    """
    x, scale = call.inputs[:2]
    zero, wanted = call.optional(2), call.attributes.get("output_dtype", 0)
    if zero is not None:
        dtype = zero.dtype
    else:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(wanted or onnx.TensorProto.UINT8)
    return _codes(call, x / _spread(call, scale, x), _zero(call, zero, x), dtype)


def dequantize_linear(call: Call) -> Tensor:
    """DequantizeLinear: y = (x - zero point) * scale; see `quantize_linear`.

    Raises:
        ValueError: Scale or zero point do not fit x.
    """
    x, scale = call.inputs[:2]
    shifted: Tensor = _wide(x) - _zero(call, call.optional(2), x)
    return shifted * _spread(call, scale, x)


def dynamic_quantize_linear(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """DynamicQuantizeLinear: x (any shape) as uint8, its scale and its zero point.

    The codes reach from the smallest number to the largest, 0 between them. Zeros alone have the
    scale 1, as ONNX Runtime has it; ONNX divides 0 by 0 there.
    """
    (x,) = call.inputs
    low, high = float(np.min(x, initial=0.0)), float(np.max(x, initial=0.0))
    scale = (high - low) / 255 or 1.0
    zero = np.clip(np.rint(-low / scale), 0, 255)
    codes = np.clip(np.rint(x / scale) + zero, 0, 255)
    return codes.astype(np.uint8), np.asarray(scale), np.asarray(zero, np.uint8)


def conv_integer(call: Call) -> Tensor:
    """ConvInteger: Conv of x (N, C, *size) and weight (M, C / groups, *kernel), both less zero.

    The zero point of x is one number, that of the weight one or one for each of M.
    """
    x, weight = call.inputs[:2]
    return _wrapped(_convolved(call, x, call.optional(2), weight, call.optional(3), None))


def qlinear_conv(call: Call) -> Tensor:
    """QLinearConv: Conv of what the codes stand for, bias (M) in int32, in codes again."""
    x, x_scale, x_zero, weight, w_scale, w_zero, y_scale, y_zero = call.inputs[:8]
    sums = _convolved(call, x, x_zero, weight, w_zero, call.optional(8))
    factor = (x_scale * w_scale / y_scale).ravel()
    scaled = sums * factor.reshape(-1, *[1] * (sums.ndim - 2))
    return _codes(call, scaled, _wide(y_zero).reshape(()), y_zero.dtype)


def matmul_integer(call: Call) -> Tensor:
    """MatMulInteger: MatMul of a (*, M, K) and b (*, K, N), both less their zero points.

    The zero point of a is one number or one for each row, that of b one or one for each column.
    """
    a, b = call.inputs[:2]
    left = _wide(a) - _rows(call.optional(2), a)
    return _wrapped(left @ (_wide(b) - _columns(call.optional(3))))


def qlinear_matmul(call: Call) -> Tensor:
    """QLinearMatMul: MatMul of what the codes stand for, in codes again."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = call.inputs
    left = (_wide(a) - _rows(a_zero, a)) * _rows(a_scale, a)
    product = left @ ((_wide(b) - _columns(b_zero)) * _columns(b_scale))
    return _codes(call, product / _rows(y_scale, a), _rows(y_zero, a), y_zero.dtype)


def _convolved(
    call: Call,
    x: Tensor,
    x_zero: Tensor | None,
    weight: Tensor,
    w_zero: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """Exact sums of products of codes, less their zero points; padding stands for the number 0."""
    shifted = _wide(x) - (0.0 if x_zero is None else _wide(x_zero).reshape(()))
    zeros = np.zeros(1) if w_zero is None else _wide(w_zero)
    kernel = _wide(weight) - zeros.reshape(-1, *[1] * (weight.ndim - 1))
    return conv(call._replace(inputs=[shifted, kernel, *([] if bias is None else [_wide(bias)])]))


def _codes(call: Call, scaled: Tensor, zero: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Numbers in units of their scale as the nearest codes of a type."""
    name = _TYPES.Name(onnx.helper.np_dtype_to_tensor_dtype(dtype))
    if name not in _BITS:
        raise call.unsupported(f"codes of type {name}")
    signed, bits = not name.startswith("U"), _BITS[name]
    low = -(2 ** (bits - 1)) if signed else 0
    codes = np.clip(np.rint(scaled) + zero, low, low + 2**bits - 1)
    narrow: Tensor = codes.astype(np.int32).astype(dtype)
    return narrow


def _zero(call: Call, zero: Tensor | None, x: Tensor) -> Tensor:
    return np.zeros(()) if zero is None else _spread(call, _wide(zero), x)


def _spread(call: Call, value: Tensor, x: Tensor) -> Tensor:
    """A scale or zero point, so that it broadcasts against x."""
    block = call.attributes.get("block_size", 0)
    if value.ndim == 0 or (value.size == 1 and not block):
        return value.reshape(())
    axis = call.attributes.get("axis", 1)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis {axis} of a tensor of rank {x.ndim}")
    axis %= x.ndim
    if not block:
        expected: tuple[int, ...] = (x.shape[axis],)
        along = [-1 if a == axis else 1 for a in range(x.ndim)]
    else:
        blocks = -(-x.shape[axis] // block)
        expected = (*x.shape[:axis], blocks, *x.shape[axis + 1 :])
    if value.shape != expected:
        raise ValueError(f"a scale or zero point of shape {value.shape}, not {expected}")
    if not block:
        return value.reshape(along)
    return np.repeat(value, block, axis).take(range(x.shape[axis]), axis)


def _rows(value: Tensor | None, a: Tensor) -> Tensor:
    """One number, or one for each row of a matrix."""
    wide = np.zeros(()) if value is None else _wide(value)
    return wide[:, None] if wide.ndim == 1 and wide.size > 1 and a.ndim > 1 else _single(wide)


def _columns(value: Tensor | None) -> Tensor:
    """One number, or one for each column, which broadcasts as it is."""
    return np.zeros(()) if value is None else _single(_wide(value))


def _single(value: Tensor) -> Tensor:
    return value.reshape(()) if value.size == 1 else value


def _wide(codes: Tensor) -> Tensor:
    return codes.astype(np.float64)


def _wrapped(sums: Tensor) -> Tensor:
    """As int32, in which sums may overflow."""
    narrow: Tensor = sums.astype(np.int64).astype(np.int32)
    return narrow
