"""Which operators are affine in which of their inputs, the others being known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

_FIRST = frozenset(
    {
        *("AveragePool", "BatchNormalization", "Cast", "Conv", "ConvTranspose", "DepthToSpace"),
        *("Div", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
        *("GlobalAveragePool", "Identity", "Neg", "Pad", "ReduceMean", "ReduceSum", "Reshape"),
        *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""Affine in the first input."""

_JOINTLY: Mapping[str, frozenset[int] | None] = {
    **dict.fromkeys(("Add", "Concat", "Mean", "Sub", "Sum")),
    **dict.fromkeys(("Scatter", "ScatterElements", "ScatterND"), frozenset({0, 2})),
    "Where": frozenset({1, 2}),
}
"""Affine in several inputs at once; None: in all of them."""

PRODUCTS = frozenset({"Einsum", "Gemm", "MatMul", "Mul"})
"""Affine in each factor when the others are known; Gemm in its third input too."""

MOVING = frozenset(
    {
        *("Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements"),
        *("GatherND", "Identity", "Pad", "Reshape", "Scatter", "ScatterElements", "ScatterND"),
        *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    }
)
"""Those that copy values and compute nothing."""

WINDOWS = frozenset(
    {"AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool"}
)
"""Those that read (N, C, *S) as an image."""


def data_inputs(
    node: onnx.NodeProto, is_known: Callable[[str], bool], is_float: Callable[[str], bool]
) -> tuple[str, ...] | None:
    """The inputs in which a node is affine, all its other inputs being known.

    Args:
        node: The node.
        is_known: Tells of a tensor whether its value is fixed.
        is_float: Tells of a tensor whether it is floating.

    Returns:
        Names of tensors, at least one, or None where the node is not affine, or not in one of
        its unknown inputs.
    """
    if node.domain not in ("", "ai.onnx") or not is_float(node.output[0]):
        return None
    unknown = [i for i, name in enumerate(node.input) if name and not is_known(name)]
    if not unknown or not all(is_float(node.input[i]) for i in unknown):
        return None
    op = node.op_type
    if op in _FIRST:
        affine = unknown == [0]
    elif op in _JOINTLY:
        positions = _JOINTLY[op]
        affine = positions is None or positions.issuperset(unknown)
        if op.startswith("Scatter"):
            affine = affine and _reduction(node) in (b"none", b"add")
    else:
        factors = [i for i in unknown if not (op == "Gemm" and i == 2)]
        affine = op in PRODUCTS and len(factors) <= 1
    return tuple(dict.fromkeys(node.input[i] for i in unknown)) if affine else None


def _reduction(node: onnx.NodeProto) -> bytes:
    """How a Scatter combines updates with what is there."""
    return next((bytes(a.s) for a in node.attribute if a.name == "reduction"), b"none")
