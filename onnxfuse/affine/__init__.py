"""The algebra of affine, shift-equivariant maps: numpy only, knows nothing of ONNX."""

from onnxfuse.affine.combine import add, concat, select, total
from onnxfuse.affine.compose import Term, compose
from onnxfuse.affine.conv import (
    AffineConv,
    Size,
    affine_conv,
    average_pool,
    channel_affine,
    identity,
    padded_with,
    rounded_outside,
    window,
)
from onnxfuse.affine.deferred import Array, Deferred, large_arrays_freed
from onnxfuse.affine.refusal import Refusal
from onnxfuse.affine.tidy import is_trivial, regroup, trim, without_crops
from onnxfuse.affine.window import AttributeValue, FixedWindow

__all__ = [
    "AffineConv",
    "Array",
    "AttributeValue",
    "Deferred",
    "FixedWindow",
    "Refusal",
    "Size",
    "Term",
    "add",
    "affine_conv",
    "average_pool",
    "channel_affine",
    "compose",
    "concat",
    "identity",
    "is_trivial",
    "large_arrays_freed",
    "padded_with",
    "regroup",
    "rounded_outside",
    "select",
    "total",
    "trim",
    "window",
    "without_crops",
]
