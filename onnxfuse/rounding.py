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
    2. No output channel loses its digits to underflow: its largest entry, or its bias, is a normal
       number. What is subnormal beside that is off by less than its rounding.

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
    if rounded and _underflows(lowered.term, dtype):
        return Refusal(f"the folded weight underflows {dtype}")
    return rounded


def _underflows(term: Term, dtype: np.dtype[np.generic]) -> bool:
    one = np.ones(1, dtype)
    digits = float(np.nextafter(one, one + one)[0]) - 1.0
    smallest = float(np.nextafter(np.zeros(1, dtype), one)[0]) / digits
    rows = term.weight.reshape(term.out_channels, -1)
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    largest = np.maximum(largest, np.abs(term.bias))
    return bool(np.any((largest > 0) & (largest < smallest)))
