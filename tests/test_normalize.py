"""Nodes that pass their input through go, where that is exact."""

import numpy as np
import pytest
from onnx import TensorProto, helper

import onnxfuse
from tests.lift.building import Builder


def operators(b, y):
    return [n.op_type for n in onnxfuse.optimize(b.model(y)).model.graph.node]


@pytest.mark.parametrize(
    ("op", "neutral"), [("Mul", 1.0), ("Div", 1.0), ("Add", 0.0), ("Sub", 0.0)]
)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_neutral_constants_go(op, neutral, shape):
    b = Builder()
    x = b.op("Relu", b.input("n", 7))
    y = b.op(op, x, b.constant(np.full(shape, neutral)))
    assert operators(b, b.op("Exp", y)) == ["Relu", "Exp"]


@pytest.mark.parametrize(("op", "value"), [("Mul", 0.0), ("Div", 2.0), ("Add", 1.0), ("Sub", 1e-9)])
def test_other_constants_stay(op, value):
    b = Builder()
    x = b.op("Relu", b.input("n", 7))
    assert operators(b, b.op("Exp", b.op(op, x, b.constant(value)))) == ["Relu", op, "Exp"]


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.COMPLEX64])
def test_text_and_complex_numbers_are_left_alone(kind):
    value = [b"a"] if kind == TensorProto.STRING else [1 + 2j]
    nodes = [helper.make_node("Add", ["x", "k"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    constant = helper.make_tensor("k", kind, [], value)
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert list(onnxfuse.optimize(model).model.graph.node) == nodes


@pytest.mark.parametrize(("op", "neutral"), [("Div", 1.0), ("Sub", 0.0)])
def test_the_constant_in_front_stays(op, neutral):
    b = Builder()
    x = b.op("Relu", b.input("n", 7))
    assert op in operators(b, b.op("Exp", b.op(op, b.constant(neutral), x)))


def test_a_constant_that_adds_dimensions_stays():
    b = Builder()
    x = b.op("Relu", b.input("n", 7))
    assert "Mul" in operators(b, b.op("Exp", b.op("Mul", x, b.constant(np.ones((1, 1, 1))))))


def test_integers_stay():
    b = Builder()
    x = b.input("n", 7, elem_type=TensorProto.INT64)
    y = b.op("Abs", b.op("Mul", x, b.constant([1])))
    model = b.model(y, types={y: TensorProto.INT64})
    assert [n.op_type for n in onnxfuse.optimize(model).model.graph.node] == ["Mul", "Abs"]


def test_an_unknown_rank_is_bounded_by_what_makes_the_tensor():
    b = Builder()
    x = b.input("n", 4, 6)
    target = b.input(None, name="target", elem_type=TensorProto.INT64)
    free = b.op("Reshape", x, target)
    y = b.op("Mul", b.op("MatMul", free, b.random(6, 5)), b.constant([1.0]))
    assert operators(b, b.op("Exp", y)) == ["Reshape", "MatMul", "Exp"]
    z = b.op("Exp", b.op("Mul", free, b.constant([1.0])))
    assert operators(b, z) == ["Reshape", "Mul", "Exp"]


def test_skipped_operators_stay():
    b = Builder()
    x = b.op("Relu", b.input("n", 7))
    model = b.model(b.op("Exp", b.op("Mul", x, b.constant(1.0))))
    result = onnxfuse.optimize(model, skip=["Mul"])
    assert [n.op_type for n in result.model.graph.node] == ["Relu", "Mul", "Exp"]
