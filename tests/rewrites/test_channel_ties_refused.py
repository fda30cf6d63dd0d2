"""Channels that stay on account of what ties them, named after what that lacks."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.lift.building import Builder
from tests.rewrites.idle import DEAD, SIZES, C, behind, conv, dying, folds_of, kept, matrix, start


def test_refuses_a_gate_in_front_of_what_is_not_zero():
    b = Builder()
    x = b.op("Sigmoid", dying(b))
    gate = b.op("Sigmoid", conv(b, b.op("GlobalAveragePool", x), C, C))
    kept(b.model(behind(b, b.op("Mul", x, gate))))


@pytest.mark.parametrize("bent", ["Exp", "Relu", "Clip", "Add", "infinity"])
def test_refuses_zeros_times_what_may_be_infinite(bent):
    b = Builder()
    x = b.op("Relu", dying(b, bias=-1.0))
    gate = conv(b, start(b, name="z"), 6, C)
    if bent == "Clip":
        gate = b.op("Clip", gate, b.constant(0.5))
    elif bent == "Add":
        gate = b.op("Add", b.op("Sigmoid", gate), b.op("Relu", gate))
    elif bent == "infinity":
        gate = b.op("Add", b.op("Sigmoid", gate), b.constant(np.full((C, 1, 1), np.inf)))
    else:
        gate = b.op(bent, gate)
    model = b.model(behind(b, b.op("Mul", x, gate)))
    if bent != "infinity":
        kept(model)
    assert folds_of(model) == 0


def test_refuses_channels_along_different_axes():
    b = Builder()
    x = b.op("Tanh", conv(b, b.input("n", 6, "h", C), 6, C, dead=DEAD))
    z = b.op(
        "Tanh", b.op("MatMul", b.input("n", C, "h", 6, name="z"), b.constant(matrix(b, 6, C, DEAD)))
    )
    kept(b.model(behind(b, b.op("Mul", x, z))), {"n": 2, "h": 3})


def test_refuses_a_sum_with_what_has_channels_of_its_own():
    b = Builder()
    x = b.op("Tanh", b.op("Add", dying(b), b.input("n", C, "h", "w", name="z")))
    kept(b.model(behind(b, x)))


def test_refuses_an_operand_whose_channels_are_not_known():
    b = Builder()
    x = b.op("Tanh", b.op("Add", b.op("Tanh", dying(b)), b.input("n", "c", 1, 1, name="z")))
    kept(b.model(behind(b, x)), *({**sizes, "c": C} for sizes in SIZES))


def test_refuses_constants_that_differ_from_place_to_place():
    """They may be cut, but what they are added to is no constant."""
    b = Builder()
    x = b.op("Tanh", conv(b, b.input("n", 6, C, 7), 6, C, dead=DEAD))
    x = b.op("Tanh", b.op("Mul", x, b.random(1, C, C, 7)))
    kept(b.model(behind(b, x)), {"n": 2})


@pytest.mark.parametrize(
    ("op", "how"),
    [
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [1] * 4, "dilations": [3, 3]}),
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [1] * 4, "dilations": [1, 3]}),
    ],
)
def test_refuses_poolings_that_reach_beyond_the_image(op, how):
    b = Builder(19)
    x = b.op(op, b.op("Sigmoid", dying(b)), **how)
    kept(b.model(behind(b, b.op("Tanh", x))))


@pytest.mark.parametrize("axes", [[1], [1, 2], None])
def test_refuses_means_over_channels(axes):
    b = Builder()
    how = {} if axes is None else {"axes": axes}
    x = b.op("Tanh", dying(b))
    y = b.op("Mul", x, b.op("Softplus", b.op("ReduceMean", x, **how)))
    kept(b.model(behind(b, b.op("Tanh", y))))


def test_refuses_a_mean_that_moves_the_channels():
    b = Builder()
    x = b.op("ReduceMean", b.op("Tanh", dying(b)), axes=[0], keepdims=0)
    kept(b.model(b.op("Tanh", b.op("Mul", x, b.random(C, 1, 1)))))


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_refuses_concats_along_other_axes(axis):
    b = Builder()
    x = b.op("Tanh", dying(b))
    kept(b.model(behind(b, b.op("Tanh", b.op("Concat", x, x, axis=axis)))))


def test_refuses_a_concat_with_what_no_layer_makes():
    b = Builder()
    z = b.op("Tanh", b.input("n", 4, "h", "w", name="z"))
    x = b.op("Concat", b.op("Sigmoid", dying(b)), z, axis=1)
    kept(b.model(behind(b, x, C + 4)))


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_refuses_other_ways_to_flatten(axis):
    b = Builder()
    x = b.op("GlobalAveragePool", b.op("Tanh", conv(b, b.input(2, 6, 5, 5), 6, C, dead=DEAD)))
    rows = {0: 2 * C, 2: 1, 3: 1}[axis]
    y = b.op("Flatten", x, axis=axis)
    kept(b.model(b.op("Gemm", y, b.random(rows, 5), b.random(5))), {})


def test_refuses_to_flatten_images():
    b = Builder()
    x = b.op("Tanh", conv(b, b.input(2, 6, 1, 3), 6, C, dead=DEAD))
    kept(b.model(b.op("Gemm", b.op("Flatten", x), b.random(3 * C, 5))), {})


def test_refuses_to_squeeze_in_front_of_the_channels():
    b = Builder(11)
    x = b.op("Tanh", conv(b, b.input(1, 6, 5, 4), 6, C, dead=DEAD))
    kept(b.model(b.op("Tanh", b.op("Squeeze", x, axes=[0]))), {})


def test_refuses_upsampling_by_sizes_and_of_channels():
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for sizes in ([2, C, 10, 8], [2, 2 * C, 5, 4]):
        b = Builder()
        x = b.op("Tanh", conv(b, b.input(2, 6, 5, 4), 6, C, dead=DEAD))
        x = b.op("Resize", x, "", "", b.constant(sizes), **how)
        kept(b.model(behind(b, b.op("Tanh", x), sizes[1])), {})
    b = Builder()
    x = b.op("Tanh", dying(b))
    scales = b.constant([1.0, 1.0, 2.0, 2.0], elem_type=TensorProto.FLOAT)
    kept(b.model(behind(b, b.op("Resize", x, "", scales, mode="linear"))))


def test_refuses_integers():
    b = Builder()
    x = b.op("Cast", b.op("Cast", dying(b), to=TensorProto.INT32), to=TensorProto.FLOAT)
    kept(b.model(behind(b, b.op("Tanh", x))))


def test_refuses_a_mask_that_is_read():
    b = Builder()
    x, mask = b.ops("Dropout", b.op("Tanh", dying(b)), outputs=2)
    y = b.op("Where", mask, b.constant(1.0), b.constant(2.0))
    kept(b.model(behind(b, x), y))


def test_refuses_a_norm_in_training():
    b = Builder()
    x = b.op("Tanh", dying(b))
    given = [b.random(C), b.random(C), b.random(C), b.positive(C)]
    x, *_ = b.ops("BatchNormalization", x, *given, outputs=3, training_mode=1)
    assert folds_of(b.model(behind(b, b.op("Tanh", x)))) == 0


def test_refuses_a_norm_whose_scale_is_computed():
    b = Builder()
    x = b.op("Tanh", dying(b))
    given = [b.op("Relu", b.input(C, name="z")), b.random(C), b.random(C), b.positive(C)]
    kept(b.model(behind(b, b.op("Tanh", b.op("BatchNormalization", x, *given)))))
