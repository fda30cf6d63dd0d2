"""Whole models with data movement that is no convolution, or not the one around it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.probe.building import (
    BATCHES,
    MANY,
    SIZES,
    C,
    H,
    W,
    cut,
    flat_windows,
    im2col,
    padded,
    pointwise,
    reshaped,
    rim,
    slices,
    stays,
)


@pytest.mark.parametrize("gap", [1e-3, 1e-5])
def test_refuses_rim_that_is_off_the_bias(gap):
    b = Builder()
    x = b.input(2, C, H, W)
    y, bias = pointwise(b, x)
    y = b.conv(rim(b, y, (2, C, H, W), bias + gap), C, C)
    stays(optimized(b.model(y)), "outside its border the inner map is", Conv=2)


def test_refuses_rim_that_is_off_the_bias_in_one_channel():
    b = Builder()
    x = b.input(2, C, H, W)
    y, bias = pointwise(b, x)
    y = b.conv(rim(b, y, (2, C, H, W), bias + 1e-3 * (np.arange(C) == 2)), C, C)
    stays(optimized(b.model(y)), "outside its border the inner map is", Conv=2)


@pytest.mark.parametrize("sides", [[(0, 0), (0, -1), (1, 0)], [(0, 0)], [(1, 0), (1, -1)]])
def test_refuses_rim_that_is_not_all_overwritten(sides):
    b = Builder()
    x = b.input(2, C, H, W)
    y, bias = pointwise(b, x)
    y = b.conv(rim(b, y, (2, C, H, W), bias, sides), C, C)
    folded = optimized(b.model(y))
    stays(folded, "its border is not padded", Conv=2, ScatterND=1)


@pytest.mark.parametrize("reduction", ["max", "min", "mul"])
def test_refuses_scatter_that_is_not_affine(reduction):
    b = Builder(18)
    x = b.input(2, C, H, W)
    y, bias = pointwise(b, x)
    y = b.conv(rim(b, y, (2, C, H, W), bias, reduction=reduction), C, C)
    assert optimized(b.model(y)).ops["ScatterND"] == 1


def test_refuses_cast_to_a_narrower_type_inside():
    b = Builder()
    x = b.op("Cast", b.input("n", C, H, W), to=TensorProto.FLOAT16)
    x = b.op("Cast", padded(b, x, [1, 1], [1, 1]), to=TensorProto.FLOAT)
    taps = slices(b, x, (H, W), (3, 3), (1, 1), (1, 1))
    y = b.op("Sum", *(b.op("Mul", tap, b.random(C, 1, 1)) for tap in taps))
    folded = optimized(b.model(y), *BATCHES)
    assert folded.ops["Cast"] == 2


def test_refuses_mask_inside_the_image():
    b = Builder()
    x = b.input("n", C, H, W)
    mask = np.ones((H, W))
    mask[4, 5] = 0
    y = b.conv(b.op("Mul", x, b.constant(mask)), C, C, pads=[1] * 4)
    stays(optimized(b.model(y), *BATCHES), "depends on the position", Mul=1, Conv=1)


def test_refuses_mask_of_the_image_before_slices():
    b = Builder()
    x = b.input("n", C, H, W)
    mask = np.ones((H, W), dtype=bool)
    mask[2, 7] = False
    x = b.op("Where", b.constant(mask, elem_type=TensorProto.BOOL), x, b.constant(0.0))
    stays(optimized(b.model(im2col(b, x, (H, W))), *BATCHES), "depends on the position", Where=1)


@pytest.mark.parametrize("axis", [2, 3])
def test_refuses_flip_by_a_slice(axis):
    b = Builder()
    x = b.input("n", C, H, W)
    y = cut(b, x, (axis,), (-1,), (-MANY,), (-1,))
    stays(optimized(b.model(b.conv(y, C, C)), *BATCHES), "it runs backwards", Slice=1, Conv=1)


@pytest.mark.parametrize(("axis", "size"), [(2, H), (3, W)])
def test_refuses_flip_by_a_gather(axis, size):
    b = Builder()
    x = b.input("n", C, H, W)
    y = b.op("Gather", x, b.constant(np.arange(size)[::-1]), axis=axis)
    stays(optimized(b.model(b.conv(y, C, C)), *BATCHES), "it runs backwards", Gather=1, Conv=1)


@pytest.mark.parametrize("by", [1, 3])
@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("size", [(H, W), ("h", "w")])
def test_refuses_roll(axis, by, size):
    b = Builder()
    x = b.input("n", C, *size)
    parts = cut(b, x, (axis,), (-by,), (MANY,)), cut(b, x, (axis,), (0,), (-by,))
    y = b.conv(b.op("Concat", *parts, axis=axis), C, C)
    sizes = SIZES if "h" in size else BATCHES
    stays(optimized(b.model(y), *sizes), "a roll", Concat=1, Conv=1)


@pytest.mark.parametrize("mode", ["reflect", "edge"])
@pytest.mark.parametrize("size", [(H, W), ("h", "w")])
def test_refuses_padding_with_values_of_the_image(mode, size):
    b = Builder()
    x = b.input("n", C, *size)
    y = b.op("Pad", x, b.constant([0, 0, 1, 1] * 2), mode=mode)
    sizes = SIZES if "h" in size else BATCHES
    folded = optimized(b.model(b.conv(y, C, C)), *sizes)
    stays(folded, "not padded with one value per channel", Pad=1, Conv=1)


def test_refuses_circular_padding():
    b = Builder()
    x = b.input("n", C, H, W)
    for axis in (2, 3):
        last, first = cut(b, x, (axis,), (-1,), (MANY,)), cut(b, x, (axis,), (0,), (1,))
        x = b.op("Concat", last, x, first, axis=axis)
    folded = optimized(b.model(b.conv(x, C, C)), *BATCHES)
    stays(folded, "not padded with one value per channel", Concat=2, Conv=1)


def test_refuses_repeated_pixels():
    b = Builder()
    x = b.input("n", C, H, W)
    y = b.op("Unsqueeze", x, b.constant([3]))
    y = reshaped(b, b.op("Concat", y, y, axis=3), -1, C, 2 * H, W)
    stays(optimized(b.model(b.conv(y, C, C)), *BATCHES), "it widens axis 2", Concat=1, Conv=1)


def test_refuses_resize():
    b = Builder()
    x = b.input("n", C, H, W)
    y = b.op("Resize", x, "", b.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest")
    assert optimized(b.model(b.conv(y, C, C)), *BATCHES).ops == {"Resize": 1, "Conv": 1}


def test_refuses_mean_that_leaves_the_padding_out():
    b = Builder()
    x = b.input("n", C, H, W)
    given = {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 0}
    y = b.conv(b.op("AveragePool", x, **given), C, C)
    folded = optimized(b.model(y), *BATCHES)
    stays(folded, "AveragePool: ", AveragePool=1, Conv=1)


def test_refuses_sum_over_the_number_of_pixels_in_the_window():
    """The same mean, written by hand."""
    b = Builder()
    x = padded(b, b.input("n", C, H, W), [1, 1], [1, 1])
    total = b.op("Sum", *slices(b, x, (H, W), (3, 3), (1, 1), (1, 1)))
    ones = np.pad(np.ones((H, W)), 1)
    count = np.lib.stride_tricks.sliding_window_view(ones, (3, 3)).sum(axis=(2, 3))
    y = b.op("Relu", b.op("Div", total, b.constant(count)))
    stays(optimized(b.model(y), *BATCHES), "depends on the position", Div=1)


def test_refuses_batch_among_the_channels():
    b = Builder()
    x = b.input(3, C, H, W)
    y = b.op("Transpose", reshaped(b, x, C, 3, H, W), perm=[1, 0, 2, 3])
    folded = optimized(b.model(b.conv(y, C, C)))
    assert folded.ops == {"Reshape": 1, "Transpose": 1, "Conv": 1}, folded.reasons


def test_refuses_reversed_batch():
    b = Builder()
    x = b.input(3, C, H, W)
    y = b.op("Gather", x, b.constant([2, 1, 0]), axis=0)
    assert optimized(b.model(b.conv(y, C, C))).ops == {"Gather": 1, "Conv": 1}


def test_refuses_swapped_axes_of_a_square_image():
    b = Builder()
    x = b.input("n", C, H, H)
    y = b.op("Transpose", x, perm=[0, 1, 3, 2])
    folded = optimized(b.model(b.conv(y, C, C)), *BATCHES)
    assert folded.ops == {"Transpose": 1, "Conv": 1}


def test_refuses_rim_of_values_that_are_not_finite():
    b = Builder()
    x = b.input(2, C, H, W)
    y = rim(b, b.op("Relu", x), (2, C, H, W), np.full(C, -np.inf))
    y = b.op("MaxPool", y, kernel_shape=[3, 3])
    assert optimized(b.model(y)).ops["ScatterND"] == 1


@pytest.mark.parametrize("tiny", [1e-6, 1e-9, 1e-12, 1e-15])
def test_keeps_channels_that_are_small_beside_others(tiny):
    """What follows makes them large again."""
    b = Builder()
    x = padded(b, b.input("n", C, H, W), [1, 1], [1, 1])
    flat = reshaped(b, x, -1, C, (H + 2) * (W + 2))
    windows = b.op("Gather", flat, b.constant(flat_windows(W + 2)), axis=2)
    scale = np.where(np.arange(C) == 1, tiny, 1.0)
    y = b.op("Mul", windows, b.constant(b.values(C, 9, 1) * scale.reshape(C, 1, 1)))
    y = b.op("ReduceSum", y, b.constant([2]), keepdims=0)
    y = b.op("Relu", reshaped(b, y, -1, C, H, W))
    optimized(b.model(b.op("Mul", y, b.constant(1 / scale.reshape(C, 1, 1)))), *BATCHES)


@pytest.mark.parametrize("tiny", [1e-3, 1e-9, 1e-13])
def test_keeps_a_rim_that_is_small_beside_biases(tiny):
    b = Builder()
    x = b.input(2, C, H, W)
    values = np.array([0.0, 0.0, 0.0, tiny])
    y = b.op("Relu", rim(b, b.op("Relu", x), (2, C, H, W), values))
    y = b.op("Add", y, b.constant(np.array([1.0, 2.0, 3.0, 0.0]).reshape(C, 1, 1)))
    optimized(b.model(b.op("Relu", y)))


def test_refuses_float64_without_a_convolution():
    """The runtime has no Conv of that type: the model would not load any more."""
    b = Builder(17, TensorProto.DOUBLE)
    model = b.model(im2col(b, b.input("n", C, H, W), (H, W)))
    stays(optimized(model, *BATCHES), "no Conv in float64", MatMul=1)


@pytest.mark.parametrize("value", [-1e4, -1e12, float(np.finfo(np.float32).min)])
def test_refuses_padding_that_takes_digits_from_its_input(value):
    """A mask beside such a border is lost where differences are measured by the largest value."""
    b = Builder()
    mask = np.ones((H, W, 1))
    mask[3, 2] = 0
    y = b.op("Transpose", b.input(1, C, H, W), perm=[0, 2, 3, 1])
    y = b.op("Mul", y, b.constant(mask))
    side = b.constant(np.full((1, H, 1, C), value))
    y = b.op("Transpose", b.op("Concat", side, y, side, axis=2), perm=[0, 3, 1, 2])
    folded = optimized(b.model(b.op("MaxPool", y, kernel_shape=[3, 3])))
    assert (folded.ops["Mul"], folded.ops["Conv"]) == (1, 0)


# A constant that broadcasts over a symbolic axis: at an extent of 1 it looks like a convolution.

BROADCAST = ({"n": 2, "h": 4, "w": 4}, {"n": 1, "h": 3, "w": 1})


@pytest.mark.parametrize("op", ["Mul", "Add"])
@pytest.mark.parametrize("shape", [(4,), (1, 1, 4), (1, 1, 1, 4)])
def test_refuses_a_constant_over_a_symbolic_width(op, shape):
    b = Builder()
    x = b.batch_norm(b.op("Relu", b.input("n", C, "h", "w")), C)
    folded = optimized(b.model(b.op("Relu", b.op(op, x, b.random(*shape)))), *BROADCAST)
    assert folded.ops[op] >= 1
    assert folded.ops["Conv"] == 0


def test_refuses_a_constant_over_a_symbolic_batch():
    b = Builder()
    x = b.batch_norm(b.op("Relu", b.input("n", C, "h", "w")), C)
    y = b.op("Mul", x, b.random(3, 1, 1, 1))
    folded = optimized(b.model(b.op("Relu", y)), {"n": 3, "h": 4, "w": 5}, {"n": 1, "h": 3, "w": 2})
    assert folded.ops["Mul"] == 1


def test_refuses_a_constant_over_a_symbolic_width_that_was_padded():
    b = Builder()
    x = b.batch_norm(b.op("Relu", b.input("n", C, "h", "w")), C)
    y = padded(b, x, (1, 1), (1, 1))
    folded = optimized(
        b.model(b.op("Relu", b.op("Mul", y, b.random(1, 1, 6)))), {"n": 1, "h": 3, "w": 4}
    )
    assert folded.ops["Mul"] == 1


def test_refuses_a_shuffle_whose_kernel_would_be_as_wide_as_the_image():
    b = Builder()
    y = b.op("Relu", b.conv(b.input(1, 4, 80, 80), 4, 48, pads=[1, 1, 1, 1]))
    y = b.op("Transpose", reshaped(b, y, 0, 12, 4, 6400), perm=[0, 1, 3, 2])
    y = b.op("Transpose", reshaped(b, y, 0, 3, 4, 80, 320), perm=[0, 1, 3, 2, 4])
    stays(optimized(b.model(reshaped(b, y, 0, 3, 320, 320))), "it widens axis 2", Conv=1)
