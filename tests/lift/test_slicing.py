"""Slice, over space and over the channels."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.lift.building import Builder
from tests.lift.comparing import optimized, refusal

C = 4
SIZES = ({"n": 1, "h": 6, "w": 6}, {"n": 2, "h": 7, "w": 9})
EVEN = ({"n": 1, "h": 6, "w": 6}, {"n": 2, "h": 8, "w": 4})
MANY = np.iinfo(np.int64).max


def cut(b: Builder, x: str, axes, starts, ends, steps=None) -> str:
    if b.opset < 10:
        return b.op("Slice", x, axes=list(axes), starts=list(starts), ends=list(ends))
    extra = [] if steps is None else [b.constant(list(steps))]
    bounds = [b.constant(list(v)) for v in (starts, ends, axes)]
    return b.op("Slice", x, *bounds, *extra)


@pytest.mark.parametrize("opset", [7, 9, 10, 13])
def test_folds_crop_behind_conv(opset):
    b = Builder(opset)
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, (3, 3), pads=[2, 2, 2, 2])
    y = cut(b, y, (2, 3), (1, 2), (MANY, MANY))
    y = b.op("Add", y, y)
    assert optimized(b.model(y), *SIZES).ops["Slice"] <= 1


@pytest.mark.parametrize(
    ("starts", "ends", "steps"),
    [((0, 1), (MANY, MANY), (2, 2)), ((-4, 1), (MANY, -1), (1, 2)), ((1, 0), (5, 99), (3, 1))],
)
@pytest.mark.parametrize("size", [(6, 7), None])
def test_matches_for_spatial_slices(starts, ends, steps, size):
    b = Builder()
    x = b.input("n", C, *(size or ("h", "w")))
    t = cut(b, x, (2, 3), starts, ends, steps)
    y = b.op("Add", b.conv(t, C, C, (1, 1)), b.conv(t, C, C, (1, 1), group=2))
    sizes = ({"n": 1}, {"n": 2}) if size else SIZES
    assert optimized(b.model(y), *sizes).ops["Conv"] == 1


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize(("start", "end"), [(1, 5), (-4, MANY), (0, -2), (2, MANY)])
def test_matches_for_slices_of_the_known_axis_of_a_half_known_size(axis, start, end):
    """One axis is static, so that the bounds are known, and the other is not."""
    b = Builder()
    x = b.input("n", C, *((7, "w") if axis == 2 else ("h", 7)))
    t = cut(b, x, (axis,), (start,), (end,))
    y = b.op("Add", b.conv(t, C, C, (1, 1)), b.conv(t, C, C, (1, 1), group=2))
    assert optimized(b.model(y), *SIZES).ops["Conv"] == 1


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
@pytest.mark.parametrize(("start", "end", "step"), [(1, 5, 2), (-5, -1, 2), (0, 5, 3), (2, 4, 3)])
@pytest.mark.parametrize("size", [6, 7, 8])
def test_folds_strided_slice_with_a_bound_behind(size, start, end, step, kernel):
    """What the stride leaves over in front of the bound is no room for one more position."""
    b = Builder()
    y = b.conv(b.input(1, C, size, size), C, C, kernel)
    y = cut(b, y, (2,), (start,), (end,), (step,))
    assert optimized(b.model(b.op("Relu", y))).ops == {"Conv": 1, "Relu": 1}


def test_refuses_backward_slice():
    b = Builder()
    x = b.input("n", C, 6, 6)
    y = cut(b, x, (3,), (-1,), (-MANY,), (-1,))
    model = b.model(b.batch_norm(b.conv(y, C, C, (1, 1)), C))
    assert optimized(model, {"n": 2}).ops == {"Slice": 1, "Conv": 1}
    assert refusal(model, "Slice") == "it runs backwards, which is not a convolution"


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(0, 3, 1), (1, MANY, 2), (-3, -1, 1), (5, -99, -2), (-1, 1, -1), (-99, 99, 1)],
)
@pytest.mark.parametrize("group", [1, 3])
def test_folds_slice_of_channels(start, end, step, group):
    b = Builder()
    x = b.input("n", 6, "h", "w")
    y = b.conv(x, 6, 6, (3, 3), group=group)
    y = cut(b, y, (1,), (start,), (end,), (step,))
    count = len(range(6)[slice(start, None if end < -6 else end, step)])
    folded = optimized(b.model(b.batch_norm(y, count)), *SIZES)
    assert folded.ops == {"Conv": 1} or group > 1  # where groups are torn apart, cost decides


def test_folds_slice_with_negative_axis():
    b = Builder()
    x = b.input("n", 6, "h", "w")
    y = cut(b, b.conv(x, 6, 6, (3, 3)), (-3,), (1,), (4,))
    assert optimized(b.model(b.batch_norm(y, 3)), *SIZES).ops == {"Conv": 1}


@pytest.mark.parametrize("known", [True, False])
def test_space_to_depth_focus(known):
    """YOLOv5's Focus: four strided slices, joined, then a Conv. Exact at even sizes alone."""
    b = Builder()
    x = b.input("n", 3, *((6, 8) if known else ("h", "w")))
    parts = []
    for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
        part = cut(b, x, (2,), (row,), (MANY,), (2,))
        parts.append(cut(b, part, (3,), (column,), (MANY,), (2,)))
    y = b.conv(b.op("Concat", *parts, axis=1), 12, 8, (3, 3), pads=[1] * 4)
    folded = optimized(b.model(y), *(({"n": 1}, {"n": 2}) if known else EVEN))
    assert (folded.ops.keys() == {"Conv"}) == known, folded.reasons


@pytest.mark.parametrize("which", ["starts", "ends", "axes", "steps"])
def test_refuses_slice_with_computed_bounds(which):
    b = Builder()
    x = b.input("n", C, "h", "w")
    given = {"starts": [1], "ends": [MANY], "axes": [2], "steps": [2]}
    names = [
        b.input(1, name=role, elem_type=TensorProto.INT64) if role == which else b.constant(value)
        for role, value in given.items()
    ]
    y = b.op("Slice", b.conv(x, C, C, (1, 1)), *names)
    values = np.random.default_rng(5).standard_normal((2, C, 5, 6)).astype(np.float32)
    feeds = {"x": values, which: np.array(given[which])}
    model = b.model(b.batch_norm(y, C))
    folded = optimized(model, feeds=[feeds])
    assert folded.ops == {"Conv": 1, "Slice": 1, "BatchNormalization": 1}
    what = "bounds are" if which in ("starts", "ends") else "axes or steps are"
    assert refusal(model, "Slice") == f"its {what} not constant"


@pytest.mark.parametrize(
    ("axes", "starts", "ends", "reason"),
    [
        ((0,), (1,), (MANY,), "it slices the batch"),
        ((2,), (0,), (5,), "its bounds depend on a size that is not known"),
        ((2,), (-3,), (MANY,), "its bounds depend on a size that is not known"),
    ],
)
def test_refuses_slice_of_something_else(axes, starts, ends, reason):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = cut(b, b.conv(x, C, C, (1, 1)), axes, starts, ends)
    model = b.model(b.batch_norm(y, C))
    folded = optimized(model, {"n": 2, "h": 7, "w": 5}, {"n": 3, "h": 5, "w": 6})
    assert folded.ops == {"Conv": 1, "Slice": 1, "BatchNormalization": 1}
    assert reason in refusal(model, "Slice")


@pytest.mark.parametrize(("start", "end"), [(-3, 4), (0, 4), (-4, 4), (-3, -1), (-9, MANY)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
def test_matches_for_slices_that_keep_everything_at_one_size_alone(start, end, kernel):
    """[-3:4] is the whole of three rows, a part of four, and nothing of nine."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = cut(b, b.conv(x, C, C, (1, 1)), (2,), (start,), (end,))
    y = b.op("Add", b.conv(t, C, C, kernel, pads=[k // 2 for k in kernel] * 2), t)
    sizes = [{"n": 1, "h": h, "w": 5} for h in (3, 4, 6)]
    assert optimized(b.model(b.op("Relu", y)), *sizes).ops["Slice"] == 1


@pytest.mark.parametrize(("start", "end"), [(0, 7), (-7, 7), (-9, 99), (0, MANY), (3, 7)])
def test_matches_for_slices_that_end_at_a_known_size(start, end):
    b = Builder()
    x = b.input("n", C, 7, 6)
    t = cut(b, b.conv(x, C, C, (1, 1)), (2,), (start,), (end,))
    y = b.op("Add", b.conv(t, C, C, (1, 1), group=2), t)
    assert optimized(b.model(b.op("Relu", y)), {"n": 1}, {"n": 3}).ops == {"Conv": 1, "Relu": 1}


def test_refuses_slice_that_keeps_nothing():
    b = Builder()
    x = b.input("n", C, 6, 6)
    y = cut(b, b.conv(x, C, C, (1, 1)), (2,), (5,), (2,))
    model = b.model(b.op("Mul", y, b.random(C, 1, 1)))
    assert optimized(model, {"n": 2}).ops == {"Conv": 1, "Slice": 1, "Mul": 1}
    assert refusal(model, "Slice") == "it keeps nothing"


@pytest.mark.parametrize("start", [3, 31, 40, 100, 100_000])
def test_a_crop_over_an_unknown_size_becomes_no_large_kernel(start):
    b = Builder()
    x = b.op("Slice", b.input("n", 8, "h", "w"), *map(b.constant, ([start], [1 << 40], [2])))
    folded = optimized(
        b.model(b.conv(b.conv(x, 8, 8, (1, 1)), 8, 8, (1, 1))), {"n": 1, "h": start + 3, "w": 2}
    )
    assert folded.ops == {"Slice": 1, "Conv": 1}
    assert folded.weight(0).size + folded.weight(1).size <= 8 * 8 + 8
