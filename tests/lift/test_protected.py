"""Scales that ONNX Runtime fuses with what is around them stay; those beside them fold."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.lift.building import Builder
from tests.lift.comparing import optimized

D = 5
SIZES = ({"n": 2, "m": 5}, {"n": 1, "m": 3})


def normalized(b: Builder, x: str, root: str = "Sqrt", through: bool = False) -> str:
    """(x - mean) / root(variance + epsilon), over the last axis."""
    axes = [b.constant([-1])] if b.opset >= 18 else []
    given = {} if axes else {"axes": [-1]}
    centred = b.op("Sub", x, b.op("ReduceMean", x, *axes, **given))
    variance = b.op("ReduceMean", b.op("Mul", centred, centred), *axes, **given)
    shifted = b.op("Add", variance, b.constant(1e-3))
    power = [b.constant(0.5)] if root == "Pow" else []
    y = b.op("Div", centred, b.op(root, shifted, *power))
    return b.op("Cast", y, to=TensorProto.FLOAT) if through else y


@pytest.mark.parametrize("root", ["Sqrt", "Pow"])
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_refuses_scale_and_shift_of_a_layer_normalization(root, through, left):
    b = Builder()
    y = normalized(b, b.input("n", "m", D), root, through)
    for op in ("Mul", "Add"):
        y = b.op(op, *((b.random(D), y) if left else (y, b.random(D))))
    model = b.model(b.op("MatMul", y, b.random(D, 7)))
    folded = optimized(model, *SIZES)
    assert folded.ops["Mul"] == 2
    assert folded.ops["Add"] == 2
    assert "Mul: the scale of a LayerNormalization that the runtime fuses" in folded.reasons
    assert "Add: the shift of a LayerNormalization that the runtime fuses" in folded.reasons


@pytest.mark.parametrize("op", ["Div", "Mul"])
@pytest.mark.parametrize("root", ["Exp", "Sqrt", ""])
def test_folds_scale_and_shift_behind_another_quotient(op, root):
    """Neither a product with a root, nor a quotient by something else, is normalized."""
    b = Builder()
    x, z = b.input("n", "m", D), b.input("n", "m", D, name="z")
    if (op, root) == ("Div", "Sqrt"):
        root = "Abs"
    divisor = b.op(root, b.op("Abs", z)) if root else z
    y = b.op("Mul", b.op(op, x, divisor), b.random(D))
    y = b.op("MatMul", b.op("Add", y, b.random(D)), b.random(D, 7))
    folded = optimized(b.model(y), feeds=[positive(2, 3), positive(1, 5)])
    assert folded.ops["MatMul"] == 1
    assert folded.ops["Mul"] == (op == "Mul")
    assert folded.ops["Add"] <= 1
    assert "LayerNormalization" not in folded.reasons


def positive(*shape: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {n: rng.uniform(0.5, 1.5, (*shape, D)).astype(np.float32) for n in ("x", "z")}


@pytest.mark.parametrize("form", ["half last", "half first", "tanh"])
def test_refuses_the_half_of_a_gelu(form):
    b = Builder()
    x = b.op("MatMul", b.input("n", "m", D), b.random(D, D))
    if form == "tanh":
        bent = b.op("Tanh", b.op("Mul", x, b.constant(0.8)))
    else:
        bent = b.op("Erf", b.op("Div", x, b.constant(1.4142135)))
    bent = b.op("Add", bent, b.constant(1.0))
    if form == "half first":
        y = b.op("Mul", b.op("Mul", x, b.constant(0.5)), bent)
    else:
        y = b.op("Mul", b.op("Mul", x, bent), b.constant(0.5))
    folded = optimized(b.model(b.op("MatMul", y, b.random(D, 7))), *SIZES)
    assert folded.ops["Mul"] >= 2 - (form == "half first")
    assert "Mul: part of a GELU that the runtime fuses" in folded.reasons


def test_folds_the_half_of_something_else():
    b = Builder()
    x = b.op("MatMul", b.input("n", "m", D), b.random(D, D))
    y = b.op("Mul", b.op("Mul", x, b.op("Sigmoid", x)), b.constant(0.5))
    folded = optimized(b.model(b.op("MatMul", y, b.random(D, 7))), *SIZES)
    assert folded.ops == {"MatMul": 2, "Sigmoid": 1, "Mul": 1}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("half", "one", "bend"),
    [
        (0.7, 1.0, "Erf"),
        (0.5, 2.0, "Erf"),
        (0.5, 1.0, "Sigmoid"),
        (0.5, 1.0, ""),
        (np.full(D, 0.5), 1.0, "Tanh"),
    ],
)
def test_folds_what_is_nearly_the_half_of_a_gelu(half, one, bend, first):
    b = Builder()
    x = b.op("MatMul", b.input("n", "m", D), b.random(D, D))
    bent = b.op(bend, x) if bend else b.input("n", "m", D, name="z")
    gate = b.op("Add", bent, b.constant(one))
    if first:
        y = b.op("Mul", b.op("Mul", b.op("Relu", x), b.constant(half)), gate)
    else:
        y = b.op("Mul", b.op("Mul", x, gate), b.constant(half))
    folded = optimized(b.model(b.op("MatMul", y, b.random(D, 7))), *SIZES)
    assert folded.ops["Mul"] == 1
    assert "GELU" not in folded.reasons


def test_refuses_the_half_of_a_gelu_and_folds_the_scale_behind_it():
    b = Builder()
    x = b.op("MatMul", b.input("n", "m", D), b.random(D, D))
    gate = b.op("Add", b.op("Erf", b.op("Div", x, b.constant(1.4142135))), b.constant(1.0))
    half = b.op("Mul", b.op("Mul", x, gate), b.constant(0.5))
    y = b.op("Mul", half, b.random(D))
    folded = optimized(b.model(b.op("MatMul", y, b.random(D, 7))), *SIZES)
    assert folded.ops["Mul"] == 2
    assert "Mul: part of a GELU that the runtime fuses" in folded.reasons


def test_folds_what_is_added_to_something_else_than_a_scale():
    b = Builder()
    y = b.op("Neg", normalized(b, b.input("n", "m", D)))
    folded = optimized(b.model(b.op("MatMul", b.op("Add", y, b.random(D)), b.random(D, 7))), *SIZES)
    assert folded.ops["Neg"] == 0
    assert "LayerNormalization" not in folded.reasons
