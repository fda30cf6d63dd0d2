"""Evaluates ONNX nodes in float64, the way a textbook would: the oracle behind every certificate.

It shares no code with the algebra it judges. Convolution is im2col and a matrix product, pooling
is a mean over windows, and every other operator is the numpy function of the same name. Only
inference is covered, from opset 7 to the newest that onnx knows.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnxfuse.reference import (
    activations,
    arithmetic,
    conversion,
    convolution,
    integers,
    movement,
    pooling,
    quantization,
    resizing,
    shape,
    slicing,
)
from onnxfuse.reference.call import Call, Tensor, UnsupportedOperator, attributes, widen
from onnxfuse.reference.limits import check_size

__all__ = ["SUPPORTED", "UnsupportedOperator", "evaluate"]

_OPERATORS: dict[str, Callable[[Call], Tensor | tuple[Tensor, ...]]] = {
    "Abs": arithmetic.elementwise(np.abs),
    "Add": arithmetic.elementwise(np.add),
    "And": arithmetic.elementwise(np.logical_and),
    "AveragePool": pooling.average_pool,
    "BatchNormalization": arithmetic.batch_normalization,
    "Cast": conversion.cast,
    "Ceil": arithmetic.elementwise(np.ceil),
    "Clip": activations.clip,
    "Concat": movement.concat,
    "Constant": conversion.constant,
    "ConstantOfShape": conversion.constant_of_shape,
    "Conv": convolution.conv,
    "ConvInteger": quantization.conv_integer,
    "ConvTranspose": convolution.conv_transpose,
    "DepthToSpace": movement.depth_to_space,
    "DequantizeLinear": quantization.dequantize_linear,
    "Div": arithmetic.div,
    "Dropout": conversion.dropout,
    "DynamicQuantizeLinear": quantization.dynamic_quantize_linear,
    "Einsum": arithmetic.einsum,
    "Equal": arithmetic.elementwise(np.equal),
    "Erf": activations.of_one(activations.erf),
    "Exp": arithmetic.elementwise(np.exp),
    "Expand": shape.expand,
    "Flatten": shape.flatten,
    "Floor": arithmetic.elementwise(np.floor),
    "Gather": slicing.gather,
    "GatherElements": slicing.gather_elements,
    "GatherND": slicing.gather_nd,
    "Gelu": activations.gelu,
    "Gemm": arithmetic.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "GlobalMaxPool": pooling.global_max_pool,
    "Greater": arithmetic.elementwise(np.greater),
    "GreaterOrEqual": arithmetic.elementwise(np.greater_equal),
    "HardSigmoid": activations.hard_sigmoid,
    "HardSwish": activations.hard_swish,
    "Identity": conversion.identity,
    "LeakyRelu": activations.leaky_relu,
    "Less": arithmetic.elementwise(np.less),
    "LessOrEqual": arithmetic.elementwise(np.less_equal),
    "Log": arithmetic.elementwise(np.log),
    "LogSoftmax": activations.log_softmax,
    "MatMul": arithmetic.elementwise(np.matmul),
    "MatMulInteger": quantization.matmul_integer,
    "Max": integers.of_all(np.maximum),
    "MaxPool": pooling.max_pool,
    "Mean": arithmetic.mean,
    "Min": integers.of_all(np.minimum),
    "Mish": activations.of_one(activations.mish),
    "Mod": integers.mod,
    "Mul": arithmetic.elementwise(np.multiply),
    "Neg": arithmetic.elementwise(np.negative),
    "NonZero": integers.non_zero,
    "Not": arithmetic.elementwise(np.logical_not),
    "Or": arithmetic.elementwise(np.logical_or),
    "PRelu": activations.prelu,
    "Pad": movement.pad,
    "Pow": activations.power,
    "QLinearConv": quantization.qlinear_conv,
    "QLinearMatMul": quantization.qlinear_matmul,
    "QuantizeLinear": quantization.quantize_linear,
    "Range": conversion.range_,
    "Reciprocal": arithmetic.elementwise(lambda x: 1.0 / x),
    "ReduceMax": arithmetic.reduce_max,
    "ReduceMean": arithmetic.reduce_mean,
    "ReduceProd": integers.reduce_prod,
    "ReduceSum": arithmetic.reduce_sum,
    "Relu": arithmetic.elementwise(lambda x: np.maximum(x, 0)),
    "Reshape": shape.reshape,
    "Resize": resizing.resize,
    "Scatter": slicing.scatter_elements,
    "ScatterElements": slicing.scatter_elements,
    "ScatterND": slicing.scatter_nd,
    "Shape": shape.shape,
    "Sigmoid": activations.of_one(activations.sigmoid),
    "Size": integers.size,
    "Slice": slicing.slice_,
    "Softmax": activations.softmax,
    "Softplus": activations.of_one(activations.softplus),
    "SpaceToDepth": movement.space_to_depth,
    "Split": slicing.split,
    "Squeeze": shape.squeeze,
    "Sub": arithmetic.elementwise(np.subtract),
    "Sum": arithmetic.sum_,
    "Tanh": arithmetic.elementwise(np.tanh),
    "Tile": movement.tile,
    "Transpose": movement.transpose,
    "Unsqueeze": shape.unsqueeze,
    "Upsample": resizing.resize,
    "Where": slicing.where,
}

SUPPORTED: frozenset[str] = frozenset(_OPERATORS)
"""Operator types of the default ONNX domain that `evaluate` knows."""

OLDEST_OPSET = 7  # the first with numpy broadcasting


def evaluate(
    nodes: Sequence[onnx.NodeProto],
    values: Mapping[str, Tensor],
    opset: int,
    wanted: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Evaluates nodes in float64.

    Floating tensors of any width (bfloat16 of ml_dtypes included) are widened to float64, and a
    Cast between floating types is the identity; integers and booleans keep their type. No warning
    is raised for overflow, division by zero or NaN: they give what IEEE 754 says.

    Args:
        nodes: Nodes of the default ONNX domain, topologically sorted.
        values: The inputs and constants that the nodes read, by tensor name.
        opset: Version of the default domain, 7 or newer.
        wanted: Names of the tensors to return, or None for all. Given names, every other tensor
            is dropped after the last node that reads it.

    Returns:
        values, widened, and every output of the nodes, or what is wanted of both, by tensor name.
        Outputs may be read-only views of other tensors.

    Raises:
        UnsupportedOperator: A node, or what it asks for, is not covered.
        KeyError: A node reads a tensor that is neither in values nor an earlier output, or a
            wanted tensor is neither in values nor an output.
        ValueError: The shapes of a node's inputs do not fit together.
    """
    last_reads = {name: i for i, node in enumerate(nodes) for name in node.input}

    def is_alive(name: str, i: int) -> bool:
        """Whether the tensor is needed after node i."""
        return wanted is None or name in wanted or last_reads.get(name, -1) > i

    known = {name: widen(value) for name, value in values.items() if is_alive(name, -1)}
    with np.errstate(all="ignore"):
        for i, node in enumerate(nodes):
            results = map(np.asarray, _run(node, known, opset))
            known.update(zip(node.output, results, strict=False))
            for name in {*node.input, *node.output}:
                if not is_alive(name, i):
                    known.pop(name, None)
    known.pop("", None)  # an output that nobody asked for
    return known if wanted is None else {name: known[name] for name in wanted}


def _run(node: onnx.NodeProto, known: Mapping[str, Tensor], opset: int) -> tuple[Any, ...]:
    if node.domain not in ("", "ai.onnx"):
        raise UnsupportedOperator(node, f"domain {node.domain!r} is not covered")
    operator = _OPERATORS.get(node.op_type)
    if operator is None:
        raise UnsupportedOperator(node, "the operator is not covered")
    if opset < OLDEST_OPSET:
        raise UnsupportedOperator(node, f"opset {opset} is older than {OLDEST_OPSET}")
    inputs = [known[name] if name else None for name in node.input]
    call = Call(node, inputs, attributes(node), opset)
    check_size(call)
    result = operator(call)
    results = result if isinstance(result, tuple) else (result,)
    if any(node.output[len(results) :]):
        names = list(node.output[len(results) :])
        raise UnsupportedOperator(node, f"the outputs {names} are not covered")
    return results
