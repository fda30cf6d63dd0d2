"""Rounding a fold's constants to the model's own type, once, or refusing to."""

from __future__ import annotations

import numpy as np
import onnx

from onnxfuse.affine import Refusal, Term
from onnxfuse.graph import Array
from onnxfuse.lower import Lowered


def round_constants(lowered: Lowered, elem_type: int) -> dict[str, Array] | Refusal:
    """The constants of a fold in the tensor's type.

    1. They are finite, before and after.
    2. In a 16-bit type, no output channel loses digits to underflow: an entry may be off by one
       unit in the last place of the channel's largest entry (rounding alone makes half of one).

    Args:
        lowered: The fold, its constants in float64.
        elem_type: TensorProto.DataType of source and target.
    """
    dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    rounded: dict[str, Array] = {}
    for name, value in lowered.constants.items():
        with np.errstate(over="ignore", invalid="ignore"):
            rounded[name] = value.astype(dtype)
        if not np.all(np.isfinite(rounded[name])):
            if not np.all(np.isfinite(value)):
                return Refusal("its weights are not finite")
            return Refusal(f"the folded weight, up to {np.abs(value).max():.4g}, overflows {dtype}")
    if dtype.itemsize == 2 and rounded and _underflows(lowered.term, dtype):
        return Refusal(f"the folded weight underflows {dtype}")
    return rounded


def _underflows(term: Term, dtype: np.dtype[np.generic]) -> bool:
    one = np.ones(1, dtype)
    unit = float(np.nextafter(one, one + one)[0]) - 1.0
    rows = term.weight.reshape(term.out_channels, -1)
    largest = np.abs(rows).max(axis=1)
    lost = np.abs(rows.astype(dtype).astype(np.float64) - rows).max(axis=1)
    bias_lost = np.abs(term.bias.astype(dtype).astype(np.float64) - term.bias)
    allowed = unit * np.maximum(largest, np.abs(term.bias))
    return bool(np.any(lost > unit * largest) or np.any(bias_lost > allowed))
