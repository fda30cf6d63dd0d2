"""Adding a tensor to what a gate leaves of it moves to the gate."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import optimized

SIZES = ({"n": 1, "h": 5, "w": 6}, {"n": 3, "h": 4, "w": 2})
C = 4


def gate(b: Builder, x: str) -> str:
    """One number per channel and image."""
    return b.op("Tanh", b.op("GlobalMaxPool", x))


def start(b: Builder, name: str = "x") -> str:
    return b.op("Relu", b.input("n", C, "h", "w", name=name))


@pytest.mark.parametrize("gate_first", [False, True])
@pytest.mark.parametrize("product_first", [False, True])
@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("opset", [7, 13, 24])
def test_the_sum_moves_to_the_gate(opset, op, product_first, gate_first):
    b = Builder(opset)
    x = start(b)
    g = gate(b, x)
    product = b.op("Mul", *((g, x) if gate_first else (x, g)))
    y = b.op(op, *((product, x) if product_first else (x, product)))
    folded = optimized(b.model(y), *SIZES)
    total = folded.node(op)
    assert len(folded.model.graph.initializer) == 1
    assert folded.ops == {"Relu": 1, "GlobalMaxPool": 1, "Tanh": 1, op: 1, "Mul": 1}
    (fold,) = folded.report.folds
    assert fold.certificate.error < 1e-14
    assert total.output[0] in folded.node("Mul").input
    sign = "-" if op == "Sub" else "+"
    assert fold.formula == f"y = x * ({f'g {sign} 1' if product_first else f'1 {sign} g'})"


def test_squeeze_and_excitation_with_a_residual_becomes_a_clipped_convolution_and_a_product():
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    squeezed = b.op("Relu", b.conv(b.op("GlobalAveragePool", x), C, 2, (1, 1)))
    g = b.op("HardSigmoid", b.conv(squeezed, 2, C, (1, 1)), alpha=0.2, beta=0.5)
    y = b.op("Add", x, b.op("Mul", x, g))
    folded = optimized(b.model(b.op("Relu", y)), *SIZES)
    expected = {"Relu": 3, "GlobalAveragePool": 1, "Conv": 2, "Clip": 1, "Mul": 1}
    assert folded.ops == expected


@pytest.mark.parametrize("shape", [(C, 1, 1), ("n", 1, "h", "w"), (1,), ()])
def test_any_smaller_gate_will_do(shape):
    b = Builder(17, TensorProto.DOUBLE)
    x, g = start(b), b.op("Sigmoid", b.input(*shape, name="g"))
    folded = optimized(b.model(b.op("Add", x, b.op("Mul", x, g))), *SIZES)
    (fold,) = folded.report.folds
    assert fold.source == x


def kept(b: Builder, *outputs: str, **options: object) -> None:
    folded = optimized(b.model(*outputs), *SIZES, **options)
    assert not folded.report.folds


def test_refuses_a_gate_as_large_as_the_tensor():
    b = Builder()
    x, z = start(b), start(b, "z")
    kept(b, b.op("Add", x, b.op("Mul", x, z)))


def test_refuses_a_gate_that_widens_the_tensor():
    b = Builder()
    x = b.op("Relu", b.input("n", C, 1, 1))
    kept(b, b.op("Add", x, b.op("Mul", x, start(b, "z"))))
    b = Builder()
    x, z = b.op("Relu", b.input("h", "w")), start(b, "z")
    kept(b, b.op("Add", x, b.op("Mul", x, z)))


def test_refuses_a_gate_of_unknown_size():
    b = Builder()
    x, z = start(b), b.op("Relu", b.input("n", C, 1, "v", name="z"))
    y = b.op("Add", x, b.op("Mul", x, z))
    folded = optimized(
        b.model(y), {"n": 2, "h": 3, "w": 4, "v": 4}, {"n": 1, "h": 3, "w": 4, "v": 1}
    )
    assert not folded.report.folds


@pytest.mark.parametrize("how", ["output", "read", "kept"])
def test_refuses_a_product_that_somebody_else_needs(how):
    b = Builder()
    x = start(b)
    product = b.op("Mul", x, gate(b, x))
    y = b.op("Add", x, product)
    others = {"output": [product], "read": [b.op("Relu", product)], "kept": []}[how]
    kept(b, y, *others, keep=[product] if how == "kept" else [])


def test_refuses_a_product_that_a_body_reads():
    b = Builder()
    x = start(b)
    product = b.op("Mul", x, gate(b, x))
    y = b.op("Add", x, product)
    bodies = {}
    for name in ("then_branch", "else_branch"):
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        node = helper.make_node("Relu", [product], [f"{name}_out"])
        bodies[name] = helper.make_graph([node], name, [], [out])
    b.input(name="c", elem_type=TensorProto.BOOL)
    result = onnxfuse.optimize(b.model(y, b.op("If", "c", **bodies)))
    assert not result.report.folds


def test_refuses_a_gate_of_another_tensor():
    b = Builder()
    x, z = start(b), start(b, "z")
    kept(b, b.op("Add", z, b.op("Mul", x, gate(b, x))))


def test_refuses_a_square():
    b = Builder()
    x = start(b)
    kept(b, b.op("Add", x, b.op("Mul", x, x)))


def test_refuses_what_is_constant():
    """A gate per channel folds as a scale; a constant tensor takes no gate."""
    b = Builder()
    x, g = start(b), b.op("Sigmoid", b.input(1, C, 1, 1, name="g"))
    constant = b.random(1, C, 3, 3)
    y = b.op("Add", constant, b.op("Mul", constant, g))
    kept(b, y, x)
    b = Builder()
    x = start(b)
    folded = optimized(b.model(b.op("Add", x, b.op("Mul", x, b.random(C, 1, 1)))), *SIZES)
    assert "Sigmoid" not in folded.ops


def test_refuses_integers_and_other_domains():
    b = Builder(17, TensorProto.INT64)
    x, z = b.input("n", C, "h", "w"), b.input("n", C, 1, 1, name="z")
    model = b.model(b.op("Add", x, b.op("Mul", x, z)))
    assert not onnxfuse.optimize(model).report.folds
    for op in ("Add", "Mul"):
        b = Builder()
        x = start(b)
        y = b.op("Add", x, b.op("Mul", x, gate(b, x)))
        model = b.model(y)
        model.opset_import.append(helper.make_opsetid("custom", 1))
        for node in model.graph.node:
            node.domain = "custom" if node.op_type == op else ""
            shape = ["n", C, "h", "w"]
            if node.domain and op == "Mul":
                info = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape)
                model.graph.value_info.append(info)
        assert not onnxfuse.optimize(model).report.folds


@pytest.mark.parametrize("op", ["Mul", "Div", "Max"])
def test_refuses_what_is_no_sum(op):
    b = Builder()
    x = start(b)
    kept(b, b.op(op, x, b.op("Mul", x, gate(b, x))))


@pytest.mark.parametrize("unknown", ["x", "g"])
def test_refuses_an_unknown_rank(unknown):
    b = Builder()
    b.input("n", C, "h", "w")
    b.input("n", C, 1, 1, name="g")
    model = b.model(b.op("Add", "x", b.op("Mul", "x", "g")))
    for info in (*model.graph.output, *(i for i in model.graph.input if i.name == unknown)):
        info.type.tensor_type.ClearField("shape")
    assert not onnxfuse.optimize(model).report.folds


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_refuses_operators_that_are_skipped(op):
    b = Builder()
    x = start(b)
    kept(b, b.op("Add", x, b.op("Mul", x, gate(b, x))), skip=[op])
