"""Activations written out in steps are recognised, however they are written; nothing else is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper

import onnxfuse
from onnxfuse.rewrites import activations
from onnxfuse.rewrites.activations import Step
from onnxfuse.rewrites.proving import NOT_EXACT_ENOUGH
from tests.lift.building import Builder, same
from tests.lift.comparing import optimized
from tests.rewrites.checking import SIZES, C, body_of_relu, refused
from tests.rewrites.ways import (
    HARD_SWISHES,
    WRITTEN,
    clip,
    hard_swish_by_min_and_max,
    hard_swish_divided,
    hard_swish_of_a_scaled_input,
    leaky_by_max,
    relu6_by_min,
    scaled,
    shifted,
)

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


@pytest.mark.parametrize(("root", "is_gelu"), [(math.sqrt(2), True), (1.412, False)])
def test_numbers_are_those_of_a_gelu_up_to_their_rounding_to_float16(root, is_gelu):
    b = Builder(20, TensorProto.FLOAT16)
    x = b.input("n", C, "h", "w")
    gate = shifted(b, b.op("Erf", b.op("Div", x, b.constant(root))), 1)
    ops = optimized(b.model(scaled(b, b.op("Mul", x, gate), 0.5)), *SIZES, original_runs=False).ops
    assert ("Gelu" in ops) == is_gelu


@pytest.mark.parametrize("beta", [0.6, 0.500001, math.nan])
def test_what_is_not_as_exact_is_left_alone(monkeypatch, beta):
    rough = Step("HardSigmoid", attributes={"alpha": 1 / 6, "beta": beta})
    monkeypatch.setattr(activations, "_gate", lambda low, high: rough)
    b = Builder()
    report = refused(b, hard_swish_divided(b, b.input("n", C, "h", "w")))
    assert NOT_EXACT_ENOUGH in {refusal.reason for refusal in report.refusals}
