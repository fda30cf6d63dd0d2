"""Operators of other domains that are named like ONNX's own are not taken for them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import run

C = 4


def unchanged(b: Builder, name: str, body: list[NodeProto], *outputs: str, **feeds: object) -> None:
    """With a local function `name` of a and b, making c, the model computes what it did."""
    standard = helper.make_opsetid("", b.opset)
    model = b.model(*outputs)
    (node,) = (node for node in model.graph.node if node.op_type == f"my.{name}")
    node.op_type, node.domain = name, "my"
    given = ["a", "b"][: len(node.input)]
    function = helper.make_function("my", name, given, ["c"], body, [standard])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("my", 1))
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    optimized = onnxfuse.optimize(model).model
    for found, expected in zip(run(optimized, feeds), run(model, feeds), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", ["Add", "Sum"])
@pytest.mark.parametrize("outermost", [False, True])
def test_a_product_called_a_sum_is_no_branch(name, outermost):
    b = Builder()
    x = b.input("n", C, "h", "w")
    branches = [b.op("Relu", x), b.conv(x, C, C, (1, 1)), b.conv(x, C, C, (3, 3), pads=[1] * 4)]
    operators = ["Add", f"my.{name}"] if outermost else [f"my.{name}", "Add"]
    y = b.op(operators[1], b.op(operators[0], *branches[:2]), branches[2])
    product = [helper.make_node("Mul", ["a", "b"], ["c"])]
    unchanged(b, name, product, y, x=image(1, C, 5, 6))


def test_what_is_called_a_shape_tells_no_sizes():
    b = Builder()
    shape = b.op("my.Shape", b.input(2, C, 5, 6))
    squares = [helper.make_node("Shape", ["a"], ["s"]), helper.make_node("Mul", ["s", "s"], ["c"])]
    y = b.op("Gather", shape, b.constant([1, 2]))
    unchanged(b, "Shape", squares, b.op("Cast", y, to=TensorProto.FLOAT), x=image(2, C, 5, 6))


def test_what_is_called_a_convolution_tells_no_channels():
    b = Builder()
    x = b.input("n", "c", "h", "w")
    p = b.op("my.Conv", x, b.random(3, 3, 1, 1))
    last = b.op("Slice", x, b.constant([-2]), b.constant([99]), b.constant([1]))
    relu = [helper.make_node("Relu", ["a"], ["c"])]
    unchanged(b, "Conv", relu, b.conv(last, 2, C, (1, 1)), p, x=image(1, C, 5, 6))


def test_what_is_called_a_matrix_product_has_no_rank():
    b = Builder()
    x, shape = b.input("n"), b.input("r", name="shape", elem_type=TensorProto.INT64)
    p = b.op("my.MatMul", b.op("Reshape", x, shape), b.random(3, 3))
    y = b.op("Relu", b.op("Mul", p, b.constant([1.0])))
    total = [helper.make_node("ReduceSum", ["a"], ["c"], keepdims=0)]
    unchanged(b, "MatMul", total, y, x=image(6), shape=np.array([2, 3]))
