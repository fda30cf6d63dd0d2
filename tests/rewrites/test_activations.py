"""Activations written out in steps are recognised, however they are written; nothing else is."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxfuse
from onnxfuse.rewrites import activations
from onnxfuse.rewrites.activations import Step
from tests.lift.building import Builder, same
from tests.lift.comparing import optimized, run, truth

SIZES = ({"n": 1, "h": 5, "w": 6}, {"n": 2, "h": 3, "w": 4})
C = 6


def clip(b: Builder, x: str, low: float | None, high: float | None) -> str:
    if b.opset < 11:
        given = {"min": low, "max": high}
        return b.op("Clip", x, **{k: float(v) for k, v in given.items() if v is not None})
    bounds = ["" if v is None else b.constant(float(v)) for v in (low, high)]
    return b.op("Clip", x, *(bounds if high is not None else bounds[:1]))


def shifted(b: Builder, x: str, by: float) -> str:
    return b.op("Add", x, b.constant(float(by)))


def scaled(b: Builder, x: str, by: float) -> str:
    return b.op("Mul", x, b.constant(float(by)))


# Ways to write them ------------------------------------------------------------------------------


def hard_swish_divided(b, x):
    return b.op("Div", b.op("Mul", x, clip(b, shifted(b, x, 3), 0, 6)), b.constant(6.0))


def hard_swish_gate_first(b, x):
    gate = scaled(b, clip(b, b.op("Add", b.constant(3.0), x), 0, 6), 1 / 6)
    return b.op("Mul", gate, x)


def hard_swish_by_relu6(b, x):
    relu = b.op("Relu", shifted(b, x, 3))
    return b.op("Mul", x, b.op("Div", clip(b, relu, None, 6), b.constant([[[6.0]]])))


def hard_swish_by_min_and_max(b, x):
    inner = b.op("Max", b.op("Sub", x, b.constant(-3.0)), b.constant(0.0))
    return b.op("Mul", b.op("Mul", x, b.op("Min", b.constant(6.0), inner)), b.constant(1 / 6))


def hard_swish_before_its_shift(b, x):
    gate = shifted(b, clip(b, scaled(b, x, 1 / 6), -0.5, 0.5), 0.5)
    return b.op("Mul", x, gate)


def hard_swish_of_a_scaled_input(b, x):
    """hard_swish(2 x): the same gate, steeper."""
    return hard_swish_divided(b, scaled(b, x, 2))


HARD_SWISHES = [
    hard_swish_divided,
    hard_swish_gate_first,
    hard_swish_by_relu6,
    hard_swish_by_min_and_max,
    hard_swish_before_its_shift,
]


def silu_by_exp(b, x):
    return b.op("Div", x, shifted(b, b.op("Exp", b.op("Neg", x)), 1))


def silu_by_reciprocal(b, x):
    return b.op("Mul", b.op("Reciprocal", shifted(b, b.op("Exp", scaled(b, x, -1)), 1)), x)


def mish_in_steps(b, x):
    return b.op("Mul", x, b.op("Tanh", b.op("Log", shifted(b, b.op("Exp", x), 1))))


def mish_by_softplus(b, x):
    return b.op("Mul", x, b.op("Tanh", b.op("Softplus", x)))


def gelu_halved_first(b, x):
    gate = shifted(b, b.op("Erf", b.op("Div", x, b.constant(math.sqrt(2)))), 1)
    return b.op("Mul", scaled(b, x, 0.5), gate)


def gelu_halved_last(b, x):
    gate = shifted(b, b.op("Erf", scaled(b, x, math.sqrt(0.5))), 1)
    return scaled(b, b.op("Mul", x, gate), 0.5)


def gelu_by_distribution(b, x):
    half = scaled(b, b.op("Erf", scaled(b, x, math.sqrt(0.5))), 0.5)
    return b.op("Mul", x, shifted(b, half, 0.5))


def gelu_by_tanh(b, x):
    cubic = scaled(b, b.op("Pow", x, b.constant(3.0)), 0.044715)
    gate = b.op("Tanh", scaled(b, b.op("Add", x, cubic), math.sqrt(2 / math.pi)))
    return b.op("Mul", scaled(b, x, 0.5), shifted(b, gate, 1))


def gelu_by_tanh_factored(b, x):
    square = scaled(b, b.op("Mul", x, x), 0.044715 * math.sqrt(2 / math.pi))
    inner = b.op("Mul", x, shifted(b, square, math.sqrt(2 / math.pi)))
    return b.op("Mul", shifted(b, b.op("Tanh", inner), 1), scaled(b, x, 0.5))


def relu6_by_min(b, x):
    return b.op("Min", b.op("Relu", x), b.constant(6.0))


def relu6_in_two(b, x):
    return clip(b, clip(b, x, None, 6), 0, None)


def leaky_by_max(b, x):
    return b.op("Max", scaled(b, x, 0.1), x)


def leaky_by_two_relus(b, x):
    return b.op("Sub", b.op("Relu", x), scaled(b, b.op("Relu", b.op("Neg", x)), 0.1))


def hard_sigmoid_divided(b, x):
    return b.op("Div", clip(b, shifted(b, x, 3), 0, 6), b.constant(6.0))


WRITTEN = [(way, ["HardSigmoid", "Mul"], 7) for way in HARD_SWISHES]
WRITTEN += [(way, ["Mul", "Sigmoid"], 7) for way in (silu_by_exp, silu_by_reciprocal)]
WRITTEN += [(way, ["Mul", "Softplus", "Tanh"], 7) for way in (mish_in_steps,)]
WRITTEN += [(way, ["Mish"], 18) for way in (mish_in_steps, mish_by_softplus)]
WRITTEN += [(way, ["Gelu"], 20) for way in (gelu_halved_first, gelu_halved_last)]
WRITTEN += [(way, ["Gelu"], 20) for way in (gelu_by_distribution, gelu_by_tanh)]
WRITTEN += [(gelu_by_tanh_factored, ["Gelu"], 20)]
WRITTEN += [(way, ["Clip"], 8) for way in (relu6_by_min, relu6_in_two)]
WRITTEN += [(way, ["LeakyRelu"], 8) for way in (leaky_by_max, leaky_by_two_relus)]
WRITTEN += [(hard_sigmoid_divided, ["HardSigmoid"], 7)]
OPSETS = (7, 9, 10, 11, 13, 18, 20, 22, 24)
BROADCAST_SINCE_8 = (hard_swish_by_min_and_max, relu6_by_min, leaky_by_max)  # Min and Max


def in_opsets() -> list:
    """Every way in every opset that has what it takes and what it becomes."""
    return [
        pytest.param(way, expected, opset, id=f"{way.__name__}-{expected[0]}-{opset}")
        for way, expected, oldest in WRITTEN
        for opset in OPSETS
        if opset >= (8 if way in BROADCAST_SINCE_8 else oldest)
        and not (expected[-1] == "Tanh" and opset >= 18)
    ]


@pytest.mark.parametrize(("way", "expected", "opset"), in_opsets())
def test_is_recognised(way, expected, opset):
    b = Builder(opset)
    y = way(b, b.op("MaxPool", b.input("n", C, "h", "w"), kernel_shape=[1, 1]))
    folded = optimized(b.model(b.op("MaxPool", y, kernel_shape=[1, 1])), *SIZES)
    assert sorted(folded.ops.elements()) == sorted([*expected, "MaxPool", "MaxPool"])
    (fold,) = folded.report.folds
    assert fold.certificate.error <= fold.certificate.allowed < 5e-7


@pytest.mark.parametrize("way", [*HARD_SWISHES, hard_swish_of_a_scaled_input])
def test_a_hard_swish_between_convolutions_takes_two_nodes(way):
    b = Builder()
    y = way(b, b.conv(b.input("n", 3, "h", "w"), 3, C, pads=same((3, 3))))
    folded = optimized(b.model(b.conv(y, C, 4, pads=same((3, 3)))), *SIZES)
    assert folded.ops == {"Conv": 2, "HardSigmoid": 1, "Mul": 1}


def test_a_hard_swish_without_its_sixth_leaves_a_scale_to_the_next_layer():
    b = Builder()
    x = b.conv(b.input("n", 3, "h", "w"), 3, C, pads=same((3, 3)))
    y = b.op("Mul", x, clip(b, shifted(b, x, 3), 0, 6))
    folded = optimized(b.model(b.conv(y, C, 4, pads=same((3, 3)))), *SIZES)
    assert folded.ops == {"Conv": 2, "HardSigmoid": 1, "Mul": 1}


def test_a_hard_swish_without_its_sixth_stays_where_nobody_takes_the_scale():
    b = Builder()
    x = b.conv(b.input("n", 3, "h", "w"), 3, C, pads=same((3, 3)))
    y = b.op("Mul", x, clip(b, shifted(b, x, 3), 0, 6))
    folded = optimized(b.model(b.op("MaxPool", y, kernel_shape=[2, 2])), *SIZES)
    assert folded.ops == {"Conv": 1, "Add": 1, "Clip": 1, "Mul": 1, "MaxPool": 1}


def test_a_shift_behind_a_hard_sigmoid_goes_into_the_layer_in_front():
    """1 + hard_sigmoid(conv(x)) is a clipped convolution."""
    b = Builder()
    y = b.op("HardSigmoid", b.conv(b.input("n", 3, "h", "w"), 3, C), alpha=0.2, beta=0.5)
    folded = optimized(b.model(b.op("MaxPool", shifted(b, y, 1), kernel_shape=[1, 1])), *SIZES)
    assert folded.ops == {"Conv": 1, "Clip": 1, "MaxPool": 1}


def test_a_shift_behind_stays_where_the_layer_in_front_is_seen():
    b = Builder()
    x = b.conv(b.input("n", 3, "h", "w"), 3, C)
    y = b.op("MaxPool", shifted(b, b.op("HardSigmoid", x), 1), kernel_shape=[1, 1])
    folded = optimized(b.model(y, x), *SIZES)
    assert folded.ops == {"Conv": 1, "HardSigmoid": 1, "Add": 1, "MaxPool": 1}


def test_a_scale_behind_counts_where_the_activation_is_seen():
    b = Builder()
    x = b.conv(b.input("n", 3, "h", "w"), 3, C, pads=same((3, 3)))
    y = b.op("Mul", x, clip(b, shifted(b, x, 3), 0, 6))
    folded = optimized(b.model(b.conv(y, C, 4, pads=same((3, 3))), y), *SIZES)
    assert folded.ops == {"Conv": 2, "Add": 1, "Clip": 1, "Mul": 1}


def test_a_tensor_inside_that_somebody_reads_is_kept():
    b = Builder()
    x = b.op("MaxPool", b.input("n", C, "h", "w"), kernel_shape=[1, 1])
    gate = clip(b, shifted(b, x, 3), 0, 6)
    y = b.op("Div", b.op("Mul", x, gate), b.constant(6.0))
    folded = optimized(b.model(y, gate), *SIZES)
    assert gate in [name for node in folded.model.graph.node for name in node.output]
    folded = optimized(b.model(y), *SIZES, keep=[gate])
    assert gate in [name for node in folded.model.graph.node for name in node.output]


def test_the_name_of_an_output_stays():
    b = Builder()
    y = hard_swish_divided(b, b.input("n", C, "h", "w"))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"HardSigmoid": 1, "Mul": 1}


def test_activations_in_bodies_are_recognised():
    inner = Builder(prefix="inner_")
    y = hard_swish_divided(inner, "x")
    body = helper.make_graph(
        inner.nodes,
        "body",
        [],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)],
        inner.initializers,
    )
    b = Builder()
    b.input("n", C, "h", "w")
    b.input(name="c", elem_type=TensorProto.BOOL)
    x = np.linspace(-9, 9, C * 20, dtype=np.float32).reshape(1, C, 4, 5)
    feeds = [{"x": x, "c": np.asarray(choice)} for choice in (True, False)]
    model = b.model(b.op("If", "c", then_branch=body, else_branch=body_of_relu()))
    folded = optimized(model, feeds=feeds)
    assert folded.ops == {"If": 1, "HardSigmoid": 1, "Mul": 1, "Relu": 1}


def body_of_relu() -> onnx.GraphProto:
    out = helper.make_tensor_value_info("other", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Relu", ["x"], ["other"])], "other", [], [out])


def test_float16_is_recognised():
    b = Builder(17, TensorProto.FLOAT16)
    y = hard_swish_divided(b, b.input("n", C, "h", "w"))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"HardSigmoid": 1, "Mul": 1}


def test_the_worst_certificate_is_the_one_nearest_to_what_it_may_be():
    b = Builder()
    y = hard_swish_divided(b, b.op("Relu", b.conv(b.input("n", 3, "h", "w"), 3, C)))
    norm = b.batch_norm(b.conv(y, C, 4), 4)
    report = onnxfuse.optimize(b.model(b.op("Relu", norm))).report
    assert len({fold.certificate.allowed for fold in report.folds}) == 2
    ratios = [fold.certificate.error / fold.certificate.allowed for fold in report.folds]
    assert report.worst.error / report.worst.allowed == max(ratios)
    assert onnxfuse.optimize(b.model(b.op("Relu", y))).report.worst.allowed > 1e-8


def test_an_activation_that_computes_something_else_is_an_error(monkeypatch):
    wrong = Step("HardSigmoid", attributes={"alpha": 1 / 6, "beta": 0.6})
    monkeypatch.setattr(activations, "_gate", lambda low, high: wrong)
    b = Builder()
    model = b.model(hard_swish_divided(b, b.input("n", C, "h", "w")))
    with pytest.raises(onnxfuse.CertificateError, match=r"hard-swish for 't_.*differs"):
        onnxfuse.optimize(model)


@pytest.mark.parametrize(("root", "is_gelu"), [(math.sqrt(2), True), (1.412, False)])
def test_numbers_are_those_of_a_gelu_up_to_their_rounding_to_float16(root, is_gelu):
    b = Builder(20, TensorProto.FLOAT16)
    x = b.input("n", C, "h", "w")
    gate = shifted(b, b.op("Erf", b.op("Div", x, b.constant(root))), 1)
    ops = optimized(b.model(scaled(b, b.op("Mul", x, gate), 0.5)), *SIZES, original_runs=False).ops
    assert ("Gelu" in ops) == is_gelu


def test_what_is_not_exact_enough_is_left_alone(monkeypatch):
    """Where large terms cancel, roundings may be all the difference there is."""
    rough = Step("HardSigmoid", attributes={"alpha": 1 / 6, "beta": 0.50001})
    monkeypatch.setattr(activations, "_gate", lambda low, high: rough)
    b = Builder()
    refused(b, hard_swish_divided(b, b.input("n", C, "h", "w")))


# Refused -----------------------------------------------------------------------------------------


def refused(b: Builder, y: str, **options: object) -> None:
    model = b.model(y)
    before = sorted(node.op_type for node in model.graph.node)
    result = onnxfuse.optimize(model, **options)
    assert sorted(node.op_type for node in result.model.graph.node) == before


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_refuses_types_that_the_runtime_has_no_such_operators_in(kind):
    b = Builder(22, kind)
    refused(b, hard_swish_divided(b, b.input("n", C, "h", "w")))


@pytest.mark.parametrize("shape", [(C, 1, 1), (1, 1, 1, 1, 1), (4,)])
def test_refuses_numbers_that_differ_from_channel_to_channel_or_add_dimensions(shape):
    b = Builder()
    x = b.input("n", C, "h", 4)
    gate = clip(b, b.op("Add", x, b.constant(np.full(shape, 3.0))), 0, 6)
    refused(b, b.op("Div", b.op("Mul", x, gate), b.constant(6.0)))


def test_refuses_a_gate_of_another_tensor():
    b = Builder()
    x, z = b.input("n", C, "h", "w"), b.input("n", C, "h", "w", name="z")
    gate = clip(b, shifted(b, b.op("Neg", b.op("Abs", z)), 3), 0, 6)
    y = b.op("Mul", b.op("Abs", x), gate)
    model = b.model(b.op("Div", y, b.constant(6.0)))
    assert "HardSwish" not in {n.op_type for n in onnxfuse.optimize(model).model.graph.node}
    optimized(model, *SIZES)


@pytest.mark.parametrize("root", [1.5, 1.4141])
def test_refuses_a_gelu_with_another_root(root):
    b = Builder(20)
    x = b.input("n", C, "h", "w")
    gate = shifted(b, b.op("Erf", b.op("Div", x, b.constant(root))), 1)
    refused(b, scaled(b, b.op("Mul", x, gate), 0.5))


@pytest.mark.parametrize("cubic", [0.0447, 0.05])
def test_refuses_a_gelu_with_another_cubic_term(cubic):
    b = Builder(20)
    x = b.input("n", C, "h", "w")
    inner = b.op("Add", x, scaled(b, b.op("Pow", x, b.constant(3.0)), cubic))
    gate = shifted(b, b.op("Tanh", scaled(b, inner, math.sqrt(2 / math.pi))), 1)
    refused(b, b.op("Mul", scaled(b, x, 0.5), gate))


@pytest.mark.parametrize("way", [gelu_halved_first, gelu_halved_last, gelu_by_tanh])
def test_an_expanded_gelu_stays_as_the_runtime_fuses_it_before_there_was_one(way):
    b = Builder(19)
    refused(b, way(b, b.input("n", C, "h", "w")))


def test_refuses_a_gelu_with_something_added():
    b = Builder(20)
    x = b.input("n", C, "h", "w")
    gate = shifted(b, b.op("Erf", scaled(b, x, math.sqrt(0.5))), 1)
    y = scaled(b, b.op("Mul", x, gate), 0.5)
    folded = optimized(
        b.model(b.op("Add", b.op("Add", y, b.op("Erf", x)), b.op("Tanh", x))), *SIZES
    )
    assert folded.ops["Gelu"] == 1  # itself, and no more


def test_refuses_products_that_only_look_alike():
    b = Builder(20)
    x = b.input("n", C, "h", "w")
    refused(b, b.op("Mul", b.op("Sigmoid", x), b.op("Tanh", x)))  # no SiLU
    b = Builder(20)
    x = b.input("n", C, "h", "w")
    gate = shifted(b, b.op("Tanh", scaled(b, x, math.sqrt(0.5))), 1)  # no GELU
    refused(b, scaled(b, b.op("Mul", x, gate), 0.5))


def test_a_function_that_is_always_the_same_is_left_alone():
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    refused(b, shifted(b, b.op("Sub", x, x), 1))


def test_refuses_bounds_that_are_computed():
    for given in range(2):
        b = Builder()
        x = b.op("Relu", b.input())
        bounds = [b.constant(-1.0), b.constant(9.0)]
        bounds[given] = b.op("Neg", x)
        refused(b, b.op("Clip", shifted(b, x, 3), *bounds))


def test_refuses_a_gate_whose_bounds_do_not_fit_its_shift():
    """x * (clip(x + 3, 0, 6) + 1) / 6 is no hard-swish."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    gate = shifted(b, clip(b, shifted(b, x, 3), 0, 6), 1)
    folded = optimized(b.model(scaled(b, b.op("Mul", x, gate), 1 / 6)), *SIZES)
    assert "HardSigmoid" not in folded.ops


def test_refuses_numbers_that_may_be_overridden():
    b = Builder()
    x = b.input("n", C, "h", "w")
    three = b.constant(3.0, "three")
    y = b.op("Div", b.op("Mul", x, clip(b, b.op("Add", x, three), 0, 6)), b.constant(6.0))
    model = b.model(y)
    model.graph.input.append(helper.make_tensor_value_info("three", TensorProto.FLOAT, []))
    ops = [node.op_type for node in onnxfuse.optimize(model).model.graph.node]
    assert sorted(ops) == ["Add", "Clip", "Div", "Mul"]


def test_refuses_operators_that_are_skipped():
    b = Builder()
    refused(b, hard_swish_divided(b, b.input("n", C, "h", "w")), skip=["Mul"])


def test_refuses_operators_of_another_domain():
    b = Builder()
    x = b.input("n", C, "h", "w")
    model = b.model(hard_swish_divided(b, x))
    for node in model.graph.node:
        node.domain = "custom" if node.op_type == "Clip" else ""
        if node.domain:
            shape = ["n", C, "h", "w"]
            info = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape)
            model.graph.value_info.append(info)
    model.opset_import.append(helper.make_opsetid("custom", 1))
    ops = [node.op_type for node in onnxfuse.optimize(model).model.graph.node]
    assert sorted(ops) == ["Add", "Clip", "Div", "Mul"]


def test_what_is_not_a_number_stays_one():
    b = Builder()
    y = hard_swish_divided(b, b.input("n", C, "h", "w"))
    model = b.model(y)
    x = np.zeros((1, C, 1, 3), np.float32)
    x[0, :3, 0, 1] = np.nan, np.inf, -np.inf
    fused = onnxfuse.optimize(model).model
    np.testing.assert_array_equal(run(fused, {"x": x})[0], truth(model, {"x": x})[0])


@pytest.mark.parametrize("bound", [math.inf, 3.4028234663852886e38])
def test_a_bound_that_is_none_is_left_alone(bound):
    b = Builder()
    x = b.input("n", C, "h", "w")
    optimized(b.model(b.op("Clip", b.op("Relu", x), b.constant(0.0), b.constant(bound))), *SIZES)
    b = Builder()
    y = b.op("Clip", shifted(b, b.input("n", C, "h", "w"), 3), b.constant(0.0), b.constant(bound))
    optimized(b.model(scaled(b, y, 0.25)), *SIZES)
