"""Data movement at sizes that are not known: convolutions, and what only looks like one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import TensorProto

from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.probe.building import (
    MANY,
    OUT,
    SIZES,
    C,
    H,
    W,
    attribute,
    cut,
    folds_to_one_conv,
    padded,
    reshaped,
    size_of,
)


def stacked_taps(b: Builder, x: str, strides=(1, 1)) -> str:
    """The nine taps of a 3x3 window, by Slices whose ends depend on no size: (N, C, 9, H, W)."""
    wide = padded(b, x, [1, 1], [1, 1])
    taps = [
        cut(b, wide, (2, 3), (i, j), (i - 2 or MANY, j - 2 or MANY), strides)
        for i, j in itertools.product(range(3), repeat=2)
    ]
    return b.op("Concat", *(b.op("Unsqueeze", tap, b.constant([2])) for tap in taps), axis=2)


def dynamic_im2col(b: Builder, x: str, strides=(1, 1)) -> str:
    """Slices to the end, and sizes by Shape, Gather, Add and Concat; at any size."""
    sizes = [
        b.op("Div", size_of(b, x, axis, stride - 1), b.constant([stride]))
        for axis, stride in zip((2, 3), strides, strict=True)
    ]
    batch, pixels = size_of(b, x, 0), b.op("Mul", *sizes)
    stacked = stacked_taps(b, x, strides)
    y = b.op("MatMul", b.random(OUT, C * 9), reshaped(b, stacked, batch, C * 9, pixels))
    return reshaped(b, b.op("Add", y, b.random(OUT, 1)), batch, OUT, *sizes)


@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (2, 3)])
def test_folds_at_symbolic_sizes(strides):
    b = Builder()
    y = dynamic_im2col(b, b.input("n", C, "h", "w"), strides)
    conv = folds_to_one_conv(optimized(b.model(y), *SIZES, {"n": 2, "h": 1, "w": 1}))
    assert tuple(attribute(conv, "strides") or (1, 1)) == strides


def test_folds_at_one_symbolic_size():
    b = Builder()
    y = dynamic_im2col(b, b.input(2, C, H, "w"))
    folds_to_one_conv(optimized(b.model(y), {"w": 3}, {"w": 40}))


def test_folds_where_another_tensor_gives_the_size():
    """The sizes are those of the model's input, and not of what the stretch starts from."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = b.op("Relu", b.conv(x, C, C, (3, 3), pads=[1] * 4))
    batch, height, width = (size_of(b, x, axis) for axis in (0, 2, 3))
    stacked = stacked_taps(b, t)
    columns = reshaped(b, stacked, batch, C * 9, b.op("Mul", height, width))
    y = reshaped(b, b.op("MatMul", b.random(OUT, C * 9), columns), batch, OUT, height, width)
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 2, "Relu": 1}, folded.reasons


def test_folds_where_the_batch_alone_is_symbolic():
    b = Builder()
    x = b.input("n", C, H, W)
    t = b.op("Relu", b.conv(x, C, C, (3, 3), pads=[1] * 4))
    batch, stacked = size_of(b, x, 0), stacked_taps(b, t)
    columns = reshaped(b, stacked, batch, C * 9, H * W)
    y = reshaped(b, b.op("MatMul", b.random(OUT, C * 9), columns), batch, OUT, H, W)
    folded = optimized(b.model(y), {"n": 1}, {"n": 2}, {"n": 30})
    assert folded.ops == {"Conv": 2, "Relu": 1}, folded.reasons


def test_refuses_images_chosen_from_a_symbolic_batch():
    b = Builder()
    x = b.op("Relu", b.input("n", C, H, W))
    chosen = b.op("Gather", x, b.constant([0, 1, 2]), axis=0)
    y = reshaped(b, b.op("Mul", chosen, b.random(C, 1, 1)), size_of(b, x, 0), C, H, W)
    folded = optimized(b.model(b.op("Relu", y)), {"n": 3})
    assert folded.ops["Gather"] == 1


def test_folds_weights_that_the_graph_assembles():
    """1 / (C * 9) of each window, the number by Shape; and rows joined to one matrix."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    count = b.op("Mul", size_of(b, x, 1), b.constant([9]))
    mean = b.op("Div", b.constant([1.0]), b.op("Cast", count, to=b.elem_type))
    row = b.op("Expand", mean, b.op("Concat", b.constant([1]), count, axis=0))
    weight = b.op("Concat", row, b.random(OUT - 1, C * 9), axis=0)
    stacked = stacked_taps(b, x)
    batch, height, width = (size_of(b, x, axis) for axis in (0, 2, 3))
    columns = reshaped(b, stacked, batch, C * 9, b.op("Mul", height, width))
    y = reshaped(b, b.op("MatMul", weight, columns), batch, OUT, height, width)
    folds_to_one_conv(optimized(b.model(y), *SIZES))


# Sizes beyond those that were tried -------------------------------------------------------------


def by_div(b: Builder, size: str, number: int) -> str:
    return b.op("Div", size, b.constant([number]))


def by_mod(b: Builder, size: str, number: int) -> str:
    return b.op("Sub", size, b.op("Mod", size, b.constant([number])))


def by_floor(b: Builder, size: str, number: int) -> str:
    part = b.op("Mul", b.op("Cast", size, to=b.elem_type), b.constant([1.01 / number]))
    return b.op("Cast", b.op("Floor", part), to=TensorProto.INT64)


def by_cast(b: Builder, size: str, number: int) -> str:
    part = b.op("Mul", b.op("Cast", size, to=b.elem_type), b.constant([1.01 / number]))
    return b.op("Cast", part, to=TensorProto.INT64)


def by_greater(b: Builder, size: str, number: int) -> str:
    return b.op("Cast", b.op("Greater", size, b.constant([number - 1])), to=TensorProto.INT64)


def by_greater_float(b: Builder, size: str, number: int) -> str:
    wide = b.op("Cast", size, to=b.elem_type)
    return b.op("Cast", b.op("Greater", wide, b.constant([number - 0.5])), to=TensorProto.INT64)


def by_greater_of_a_part(b: Builder, size: str, number: int) -> str:
    part = b.op("Div", size, b.constant([4]))
    found = b.op("Greater", part, b.constant([number // 4 - 1]))
    return b.op("Cast", found, to=TensorProto.INT64)


def by_equal(b: Builder, size: str, number: int) -> str:
    """At one size alone, the one that is compared."""
    found = b.op("Equal", size, b.constant([number + 100 if number > 99 else number + 1]))
    return b.op("Where", found, b.constant([1]), b.constant([0]))


def by_max(b: Builder, size: str, number: int) -> str:
    return b.op("Max", b.op("Sub", size, b.constant([number])), b.constant([0]))


def by_abs(b: Builder, size: str, number: int) -> str:
    beyond = b.op("Sub", size, b.constant([number]))
    return b.op("Div", b.op("Add", beyond, b.op("Abs", beyond)), b.constant([2]))


def by_table(b: Builder, size: str, number: int) -> str:
    return b.op("Gather", b.constant((np.arange(1000) >= number).astype(np.int64)), size)


DECIDING = [
    *(by_div, by_mod, by_floor, by_cast, by_greater, by_greater_float, by_greater_of_a_part),
    *(by_equal, by_max, by_abs, by_table),
]
"""0 below a number, and at least 1 from there on; by_equal is at one size."""


def rows(b: Builder, x: str) -> str:
    """0, 1, 2 ... for each row of x, of shape (H, 1)."""
    height = b.op("Squeeze", size_of(b, x, 2), b.constant([0]))
    numbers = b.op("Range", b.constant(0), height, b.constant(1))
    return b.op("Unsqueeze", numbers, b.constant([1]))


FAR = ({"n": 1, "h": 600, "w": 3}, {"n": 9, "h": 8, "w": 600})


def holds_far_out(b: Builder, y: str) -> None:
    optimized(b.model(b.op("Relu", b.conv(y, C, C, (1, 1)))), *SIZES, *FAR)


@pytest.mark.parametrize(("axis", "number"), [(0, 8), (2, 500)])
@pytest.mark.parametrize("deciding", DECIDING)
def test_matches_where_a_large_size_changes_a_bound(deciding, axis, number):
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    begin = b.op("Min", deciding(b, size_of(b, x, axis), number), b.constant([1]))
    holds_far_out(b, b.op("Slice", x, begin, b.constant([MANY]), b.constant([2])))


@pytest.mark.parametrize("deciding", DECIDING)
def test_matches_where_a_large_size_changes_the_padding(deciding):
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    width = b.op("Min", deciding(b, size_of(b, x, 2), 500), b.constant([1]))
    parts = [b.constant([0, 0]), width, b.constant([0] * 5)]
    holds_far_out(b, b.op("Pad", x, b.op("Concat", *parts, axis=0)))


@pytest.mark.parametrize(("start", "end"), [(0, 500), (-500, MANY)])
@pytest.mark.parametrize("opset", [9, 17])
def test_matches_where_a_slice_ends_far_out(opset, start, end):
    b = Builder(opset)
    x = b.op("Relu", b.input("n", C, "h", "w"))
    if opset < 10:
        y = b.op("Slice", x, axes=[2], starts=[start], ends=[end])
    else:
        y = cut(b, x, [2], [start], [end])
    holds_far_out(b, y)


def test_matches_where_a_slice_ends_at_a_number_that_is_computed():
    """H + (500 - H)."""
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    height = size_of(b, x, 2)
    end = b.op("Add", height, b.op("Sub", b.constant([500]), height))
    holds_far_out(b, b.op("Slice", x, b.constant([0]), end, b.constant([2])))


@pytest.mark.parametrize("deciding", ["Less", "Div", "Gather", "Slice", "Equal"])
def test_matches_where_rows_far_out_are_masked(deciding):
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    table = b.constant((np.arange(1000) < 500).astype(float).reshape(-1, 1))
    if deciding == "Less":
        mask = b.op("Cast", b.op("Less", rows(b, x), b.constant(500)), to=b.elem_type)
    elif deciding == "Equal":
        mask = b.op("Cast", b.op("Equal", rows(b, x), b.constant(500)), to=b.elem_type)
        mask = b.op("Sub", b.constant(1.0), mask)
    elif deciding == "Div":
        past = b.op("Cast", b.op("Div", rows(b, x), b.constant(500)), to=b.elem_type)
        mask = b.op("Sub", b.constant(1.0), past)
    elif deciding == "Gather":
        mask = b.op("Gather", table, b.op("Squeeze", rows(b, x), b.constant([1])))
    else:
        mask = b.op("Slice", table, b.constant([0]), size_of(b, x, 2), b.constant([0]))
    holds_far_out(b, b.op("Mul", x, mask))


def test_matches_where_images_far_down_the_batch_are_masked():
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    count = b.op("Squeeze", size_of(b, x, 0), b.constant([0]))
    numbers = b.op("Range", b.constant(0), count, b.constant(1))
    mask = b.op("Cast", b.op("Less", numbers, b.constant(7)), to=b.elem_type)
    holds_far_out(b, b.op("Mul", x, b.op("Unsqueeze", mask, b.constant([1, 2, 3]))))


def test_folds_one_size_frozen_into_constants():
    """The model says that any size will do, and its Reshape that one will."""
    b = Builder()
    x = b.input(2, C, "h", "w")
    columns = reshaped(b, stacked_taps(b, x), 2, C * 9, H * W)
    y = reshaped(b, b.op("MatMul", b.random(OUT, C * 9), columns), 2, OUT, H, W)
    folds_to_one_conv(optimized(b.model(y), {"h": H, "w": W}))


# --- sizes at which it would show: odd ones, small ones, and those of another tensor ---

AROUND = [{"n": 2, "h": 7, "w": 10}, {"n": 1, "h": 64, "w": 33}, {"n": 1, "h": 1, "w": 2}]


def moved(b: Builder, x: str) -> str:
    """The same tensor, through Transposes that no rule lifts."""
    return b.op("Transpose", b.op("Transpose", x, perm=[0, 1, 3, 2]), perm=[0, 1, 3, 2])


def test_matches_where_a_size_is_rounded_down_to_even():
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    even = b.op("Mul", b.op("Div", size_of(b, x, 3), b.constant([2])), b.constant([2]))
    y = b.op("Slice", moved(b, x), b.constant([0]), even, b.constant([3]))
    optimized(b.model(b.op("Relu", b.conv(y, C, C, (1, 1)))), *AROUND[:2])


def test_matches_where_small_images_are_padded_to_a_least_width():
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    missing = b.op("Max", b.op("Sub", b.constant([16]), size_of(b, x, 3)), b.constant([0]))
    widths = b.op("Concat", b.constant([0] * 7), missing, axis=0)
    y = b.op("Pad", moved(b, x), widths)
    optimized(b.model(b.op("Relu", b.conv(y, C, C, (1, 1)))), *AROUND)


@pytest.mark.parametrize("smaller", [False, True])
def test_matches_where_an_image_is_cropped_to_the_size_of_another(smaller):
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    other = b.input("n", 1, "k", "l", name="other")
    y = b.op("Slice", moved(b, x), b.constant([0]), size_of(b, other, 3), b.constant([3]))
    y = b.op("Relu", b.conv(y, C, C, (1, 1)))
    sizes = {"n": 2, "h": 9, "w": 12, "k": 5, "l": 7 if smaller else 20}
    optimized(b.model(y, b.op("Neg", other)), sizes)


def test_matches_where_a_batch_is_cut():
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    y = b.op("Slice", moved(b, x), b.constant([0]), b.constant([4]), b.constant([0]))
    optimized(b.model(b.op("Relu", b.conv(y, C, C, (1, 1)))), {"n": 9, "h": 6, "w": 5})


def test_reports_no_reason_for_what_folds_in_a_later_pass():
    """Inference does not follow Div: what is behind the first is known once that is a Conv."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    half = b.op("Div", size_of(b, x, 2, 1), b.constant([2]))
    batch, width = size_of(b, x, 0), size_of(b, x, 3)
    y, channels = x, C
    for strides in ((2, 1), (1, 1)):
        y = b.op("Relu", b.conv(y, channels, C, (1, 1)))
        columns = reshaped(b, stacked_taps(b, y, strides), batch, C * 9, b.op("Mul", half, width))
        y = reshaped(b, b.op("MatMul", b.random(OUT, C * 9), columns), batch, OUT, half, width)
        channels = OUT
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops["MatMul"] == 0
    assert "no size" not in folded.reasons
