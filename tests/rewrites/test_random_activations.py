"""Random elementwise nodes on a tensor, between layers or alone, some of them known activations."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

import onnxfuse
from tests.lift.building import Builder, same
from tests.lift.comparing import distance, feeds_for, run
from tests.lift.random_checking import allowed
from tests.lift.random_truth import truth
from tests.rewrites import ways as written

C = 4
EPSILON = 2.0**-23
SIZES = ({"n": 1, "h": 4, "w": 5}, {"n": 2, "h": 3, "w": 2})
CALM = {"deadline": None, "suppress_health_check": list(HealthCheck)}
NUMBERS = st.sampled_from([-3.0, -1.0, -0.5, 0.1, 1 / 6, 0.5, 1.0, 2.0, 3.0, 6.0])
UNARY = ("Relu", "Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu", "Neg", "Softplus", "Erf")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")
KNOWN = [way for way, _, oldest in written.WRITTEN if oldest <= 9]


@st.composite
def models(draw: Callable) -> ModelProto:
    """A layer or none, up to eight nodes that may share what they read, and a layer or none."""
    b = Builder(draw(st.sampled_from([9, 13, 17, 20, 22])), seed=draw(st.integers(0, 99)))
    x = b.input("n", C, "h", "w")
    if draw(st.booleans()):
        x = b.conv(x, C, C, pads=same((3, 3)))
    made = [x]
    for _ in range(draw(st.integers(1, 8))):
        one, other = (made[-1 - draw(st.integers(0, min(2, len(made) - 1)))] for _ in range(2))
        made.append(_node(draw, b, one, other))
    outputs = [made[-1]]
    if draw(st.booleans()):
        outputs[0] = b.conv(made[-1], C, 3, pads=same((3, 3)))
    others = [name for name in made[1:-1] if draw(st.integers(0, 7)) == 0]
    return b.model(*outputs, *dict.fromkeys(others))


def _node(draw: Callable, b: Builder, one: str, other: str) -> str:
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return b.op(draw(st.sampled_from(UNARY)), one)
    if kind == 1:
        return b.op(draw(st.sampled_from(BINARY)), one, other)
    if kind == 2:
        low, high = sorted([draw(NUMBERS), draw(NUMBERS)])
        return written.clip(b, one, low, high)
    if kind == 3:
        return draw(st.sampled_from(KNOWN))(b, one)
    number = b.constant(draw(NUMBERS))
    op = draw(st.sampled_from((*BINARY, "Div")))
    is_first = op != "Div" and draw(st.booleans())
    return b.op(op, *((number, one) if is_first else (one, number)))


def check(model: ModelProto) -> None:
    """Valid, settled and, in float64, no further off than roundings of the numbers in it explain.

    ONNX Runtime's own kernels may be rougher for one activation than for the steps it replaces.
    """
    before = model.SerializeToString()
    fused = onnxfuse.optimize(model).model
    assert model.SerializeToString() == before
    onnx.checker.check_model(fused, full_check=True)
    assert onnxfuse.optimize(fused).model.SerializeToString() == fused.SerializeToString()
    for number, sizes in enumerate(SIZES):
        feeds = feeds_for(model, sizes, seed=number)
        bounds = allowed(model, fused, feeds, EPSILON)
        found = map(distance, truth(fused, feeds), truth(model, feeds))
        for value, bound in zip(found, bounds, strict=True):
            assert value <= bound
        run(fused, feeds)


@given(models())
@settings(max_examples=20, derandomize=True, **CALM)
def test_random_activations_compute_the_same(model):
    check(model)


@pytest.mark.nightly
@given(models())
@settings(max_examples=500, **CALM)
def test_many_random_activations_compute_the_same(model):
    check(model)
