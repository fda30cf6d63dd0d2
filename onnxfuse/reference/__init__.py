"""Evaluates ONNX nodes in float64, the way a textbook would: the oracle behind every certificate.

It shares no code with the algebra it judges. Convolution is im2col and a matrix product, pooling
is a mean over windows, and every other operator is the numpy function of the same name. Only
inference is covered, from opset 7 to the newest that onnx knows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnxfuse.reference import (
    arithmetic,
    conversion,
    convolution,
    movement,
    pooling,
    shape,
    slicing,
)
from onnxfuse.reference.call import Call, Tensor, UnsupportedOperator, attributes, widen

__all__ = ["SUPPORTED", "UnsupportedOperator", "evaluate"]

_OPERATORS: dict[str, Callable[[Call], Tensor | tuple[Tensor, ...]]] = {
    "Add": arithmetic.elementwise(np.add),
    "AveragePool": pooling.average_pool,
    "BatchNormalization": arithmetic.batch_normalization,
    "Cast": conversion.cast,
    "Concat": movement.concat,
    "Constant": conversion.constant,
    "Conv": convolution.conv,
    "ConvTranspose": convolution.conv_transpose,
    "DepthToSpace": movement.depth_to_space,
    "Div": arithmetic.div,
    "Dropout": conversion.dropout,
    "Einsum": arithmetic.einsum,
    "Expand": shape.expand,
    "Flatten": shape.flatten,
    "Gather": slicing.gather,
    "GatherND": slicing.gather_nd,
    "Gemm": arithmetic.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "Identity": conversion.identity,
    "MatMul": arithmetic.elementwise(np.matmul),
    "Mean": arithmetic.mean,
    "Mul": arithmetic.elementwise(np.multiply),
    "Neg": arithmetic.elementwise(np.negative),
    "Pad": movement.pad,
    "ReduceMean": arithmetic.reduce_mean,
    "ReduceSum": arithmetic.reduce_sum,
    "Reshape": shape.reshape,
    "ScatterND": slicing.scatter_nd,
    "Shape": shape.shape,
    "Slice": slicing.slice_,
    "SpaceToDepth": movement.space_to_depth,
    "Split": slicing.split,
    "Squeeze": shape.squeeze,
    "Sub": arithmetic.elementwise(np.subtract),
    "Sum": arithmetic.sum_,
    "Transpose": movement.transpose,
    "Unsqueeze": shape.unsqueeze,
}

SUPPORTED: frozenset[str] = frozenset(_OPERATORS)
"""Operator types of the default ONNX domain that `evaluate` knows."""

OLDEST_OPSET = 7  # the first with numpy broadcasting


def evaluate(
    nodes: Sequence[onnx.NodeProto], values: Mapping[str, Tensor], opset: int
) -> dict[str, Tensor]:
    """Evaluates nodes in float64.

    Floating tensors of any width (bfloat16 of ml_dtypes included) are widened to float64, and a
    Cast between floating types is the identity; integers and booleans keep their type. No warning
    is raised for overflow, division by zero or NaN: they give what IEEE 754 says.

    Args:
        nodes: Nodes of the default ONNX domain, topologically sorted.
        values: The inputs and constants that the nodes read, by tensor name.
        opset: Version of the default domain, 7 or newer.

    Returns:
        values, widened, and every output of the nodes, by tensor name. Outputs may be read-only
        views of other tensors.

    Raises:
        UnsupportedOperator: A node, or what it asks for, is not covered.
        KeyError: A node reads a tensor that is neither in values nor an earlier output.
        ValueError: The shapes of a node's inputs do not fit together.
    """
    known = {name: widen(value) for name, value in values.items()}
    with np.errstate(all="ignore"):
        for node in nodes:
            for name, result in zip(node.output, _run(node, known, opset), strict=False):
                known[name] = np.asarray(result)
    known.pop("", None)  # an output that nobody asked for
    return known


def _run(node: onnx.NodeProto, known: Mapping[str, Tensor], opset: int) -> tuple[Any, ...]:
    if node.domain not in ("", "ai.onnx"):
        raise UnsupportedOperator(node, f"domain {node.domain!r} is not covered")
    operator = _OPERATORS.get(node.op_type)
    if operator is None:
        raise UnsupportedOperator(node, "the operator is not covered")
    if opset < OLDEST_OPSET:
        raise UnsupportedOperator(node, f"opset {opset} is older than {OLDEST_OPSET}")
    inputs = [known[name] if name else None for name in node.input]
    result = operator(Call(node, inputs, attributes(node), opset))
    results = result if isinstance(result, tuple) else (result,)
    if any(node.output[len(results) :]):
        names = list(node.output[len(results) :])
        raise UnsupportedOperator(node, f"the outputs {names} are not covered")
    return results
