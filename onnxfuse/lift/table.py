"""The table of rules: operator -> how it lifts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from onnxfuse.affine import Refusal
from onnxfuse.graph import Graph
from onnxfuse.lift import arithmetic, convolution, matrix, movement, normalization, pooling
from onnxfuse.lift.site import Site, Step, View

Rule = Callable[[Site], Step | Refusal]

RULES: Mapping[str, Rule] = {
    "Add": arithmetic.addition,
    "AveragePool": pooling.average,
    "BatchNormalization": normalization.batch_normalization,
    "Concat": movement.concatenation,
    "Conv": convolution.conv,
    "ConvTranspose": convolution.conv_transpose,
    "Div": arithmetic.multiplication,
    "Dropout": movement.passes,
    "Gather": movement.gather,
    "Gemm": matrix.gemm,
    "GlobalAveragePool": pooling.global_average,
    "Identity": movement.passes,
    "MatMul": matrix.matmul,
    "Mean": arithmetic.addition,
    "Mul": arithmetic.multiplication,
    "Neg": arithmetic.multiplication,
    "Pad": movement.pad,
    "Slice": movement.slicing,
    "Split": movement.split,
    "Sub": arithmetic.addition,
    "Sum": arithmetic.addition,
}

_IMAGE_OPERATORS = frozenset(
    {"AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool"}
)


def own_view(graph: Graph, node: onnx.NodeProto) -> View | None:
    """The view that an operator imposes on its tensors; None for one that takes any."""
    if node.op_type == "Gemm":
        return View.image(2)
    if node.op_type == "MatMul" and len(node.input) == 2:
        by_right = graph.is_constant(node.input[1])
        rank = graph.type(node.input[0 if by_right else 1]).rank
        if rank is None or rank < 2 or by_right == graph.is_constant(node.input[0]):
            return None
        return View.matrix(rank - 1 if by_right else rank - 2, rank)
    if node.op_type in ("Conv", "ConvTranspose"):
        shape = graph.constant_shape(node.input[1])
        return None if shape is None else View.image(len(shape))
    if node.op_type in _IMAGE_OPERATORS:
        rank = graph.type(node.input[0]).rank or graph.type(node.output[0]).rank
        return None if rank is None or rank < 2 else View.image(rank)
    return None
