"""Conv and ConvTranspose: padding, strides, dilations, groups, and what folds into them."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from onnx import numpy_helper

from tests.lift.building import Builder, same
from tests.lift.comparing import left_alone, optimized, refusal

SIZES = ({"n": 2, "h": 5, "w": 5}, {"n": 1, "h": 8, "w": 6}, {"n": 1, "h": 7, "w": 10})
C = 4


def group_of(node):
    return next((a.i for a in node.attribute if a.name == "group"), 1)


@pytest.mark.parametrize("group", [1, 2, C])
@pytest.mark.parametrize("bias", [True, False])
def test_folds_batch_norm_into_conv(group, bias):
    b = Builder(seed=group)
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, 8, (3, 2), bias, group, pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2])
    folded = optimized(b.model(b.batch_norm(y, 8)), *SIZES)
    assert folded.ops == {"Conv": 1}
    assert group_of(folded.node("Conv")) == group


@pytest.mark.parametrize("kernel", [(1, 2), (2, 4), (3, 3), (5, 2)])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("size", [(7, 7), (8, 9), None])
def test_folds_batch_norm_behind_every_auto_pad(kernel, mode, strides, size):
    b = Builder()
    x = b.input(2, C, *(size or ("h", "w")))
    y = b.conv(x, C, 6, kernel, auto_pad=mode, strides=list(strides))
    sizes = [{}] if size else SIZES
    folded = optimized(b.model(b.batch_norm(y, 6)), *sizes)
    assert folded.ops == {"Conv": 1}, folded.reasons


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_keeps_auto_pad_of_dynamic_strided_conv(mode):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, 6, (3, 4), group=2, auto_pad=mode, strides=[2, 3])
    y = b.op("Mul", b.batch_norm(y, 6), b.random(6, 1, 1))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 1}
    assert any(a.s == mode.encode() for a in folded.node("Conv").attribute if a.name == "auto_pad")


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("size", [7, 8])
def test_folds_strided_auto_pad_branches_of_static_size(mode, size):
    b = Builder()
    x = b.input("n", C, size, size)
    parts = [b.conv(x, C, C, kernel, auto_pad=mode, strides=[2, 2]) for kernel in ((3, 3), (2, 2))]
    point = b.conv(x, C, C, (1, 1), strides=[2, 2])
    folded = optimized(b.model(b.op("Sum", *parts, point)), {"n": 1}, {"n": 3})
    assert folded.ops == {"Conv": 1}, folded.reasons


def test_folds_dynamic_strided_auto_pad_branches_with_equal_windows():
    b = Builder()
    x = b.input("n", C, "h", "w")
    parts = [
        b.conv(x, C, C, (3, 3), group=g, auto_pad="SAME_UPPER", strides=[2, 2]) for g in (1, 2)
    ]
    folded = optimized(b.model(b.op("Add", *parts)), *SIZES)
    assert folded.ops == {"Conv": 1}, folded.reasons


def test_refuses_dynamic_strided_auto_pad_branches_with_other_kernels():
    b = Builder()
    x = b.input("n", C, "h", "w")
    parts = [
        b.conv(x, C, C, kernel, auto_pad="SAME_UPPER", strides=[2, 2])
        for kernel in ((3, 3), (2, 2))
    ]
    folded = optimized(b.model(b.op("Add", *parts)), *SIZES)
    assert folded.ops == {"Conv": 2, "Add": 1}


def test_refuses_dynamic_strided_auto_pad_beside_explicit_pads():
    b = Builder()
    x = b.input("n", C, "h", "w")
    auto = b.conv(x, C, C, (3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    fixed = b.conv(x, C, C, (3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    folded = optimized(b.model(b.op("Add", auto, fixed)), *SIZES)
    assert folded.ops == {"Conv": 2, "Add": 1}


@pytest.mark.parametrize(("rank", "dilation"), [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1)])
def test_folds_auto_pad_with_dilation(rank, dilation):
    b = Builder()
    x = b.input("n", C, *(f"s{i}" for i in range(rank)))
    wide = b.conv(x, C, C, (2,) * rank, auto_pad="SAME_LOWER", dilations=[dilation] * rank, group=2)
    sizes = [
        {"n": 1, "s0": 1, "s1": 2, "s2": 3},
        {"n": 2, "s0": 5, "s1": 6, "s2": 4},
    ]
    model = b.model(b.op("Add", wide, x))  # ONNX Runtime has no SAME with dilation
    folded = optimized(model, *sizes, original_runs=dilation == 1)
    assert folded.ops == {"Conv": 1}


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 1, 2, 3], [2, 2, 0, 0]])
def test_folds_branches_whose_windows_start_apart(pads):
    """Even and odd kernels with equal sums of padding: the anchor decides, not the middle."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    total = (pads[0] + pads[2], pads[1] + pads[3])
    first = b.conv(x, C, C, (total[0] + 1, total[1] + 1), pads=pads)
    folded = optimized(b.model(b.op("Add", first, b.conv(x, C, C, (1, 1)))), *SIZES)
    assert folded.ops == {"Conv": 1}


def test_folds_even_kernels_that_are_off_by_one():
    b = Builder()
    x = b.input("n", C, "h", "w")
    upper = b.conv(x, C, C, (2, 2), pads=[0, 0, 1, 1])
    lower = b.conv(x, C, C, (2, 2), pads=[1, 1, 0, 0])
    folded = optimized(b.model(b.op("Sub", upper, lower)), *SIZES)
    assert folded.ops == {"Conv": 1}


def test_refuses_strided_branches_of_dynamic_size_with_other_overhang():
    """With stride 2 the sizes of 3x3 pad 1 and 2x2 pad 0 are equal at even sizes only."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    wide = b.conv(x, C, C, (3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    small = b.conv(x, C, C, (2, 2), strides=[2, 2])
    folded = optimized(b.model(b.op("Add", wide, small)), {"n": 1, "h": 6, "w": 8})
    assert folded.ops == {"Conv": 2, "Add": 1}
    assert "at some input sizes only" in folded.reasons


def test_folds_strided_branches_of_static_size_with_other_overhang():
    b = Builder()
    x = b.input("n", C, 6, 8)
    wide = b.conv(x, C, C, (3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    small = b.conv(x, C, C, (2, 2), strides=[2, 2])
    folded = optimized(b.model(b.op("Add", wide, small)), {"n": 2})
    assert folded.ops == {"Conv": 1}


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_folds_strided_sequence(first, second, dilation):
    b = Builder()
    x = b.input("n", 2, "h", "w")
    inner = b.conv(x, 2, 6, (1, 2), bias=True, strides=[first] * 2)
    y = b.conv(inner, 6, 2, (2, 2), strides=[second] * 2, dilations=[dilation] * 2)
    sizes = ({"n": 1, "h": 9, "w": 12}, {"n": 2, "h": 10, "w": 11})
    optimized(b.model(y), *sizes)


def test_folds_group_sequence():
    b = Builder()
    x = b.input("n", 6, "h", "w")
    depthwise = b.conv(x, 6, 6, (3, 3), group=6, pads=[1, 1, 1, 1])
    y = b.conv(depthwise, 6, 6, (1, 1), group=6)
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 1}
    assert group_of(folded.node("Conv")) == 6


def test_refuses_depthwise_then_wide_pointwise_for_its_cost():
    b = Builder()
    x = b.input("n", 64, 28, 28)
    y = b.conv(b.conv(x, 64, 64, (3, 3), group=64, pads=[1] * 4), 64, 64, (1, 1))
    folded = optimized(b.model(y), {"n": 1})
    assert folded.ops == {"Conv": 2}


def test_refuses_conv_with_computed_weight():
    b = Builder()
    x = b.input("n", C, "h", "w")
    weight = b.input(C, C, 3, 3, name="weight")
    y = b.batch_norm(b.op("Conv", x, weight, b.random(C)), C)
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 1, "BatchNormalization": 1}
    assert "weight is not constant" in folded.reasons


def test_refuses_conv_with_computed_bias():
    b = Builder()
    x = b.input("n", C, "h", "w")
    bias = b.input(6, name="bias")
    y = b.batch_norm(b.op("Conv", x, b.random(6, C, 3, 3), bias), 6)
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 1, "BatchNormalization": 1}
    assert "bias is not constant" in folded.reasons


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_folds_pointwise_then_itself(rank):
    """One weight used by two Convs in a row."""
    b = Builder()
    x = b.input("n", C, *"abc"[:rank])
    weight, bias = b.random(C, C, *(1,) * rank), b.random(C)
    y = b.op("Conv", b.op("Conv", x, weight, bias), weight, bias)
    folded = optimized(b.model(y), {"n": 2, "a": 3, "b": 4, "c": 2})
    assert folded.ops == {"Conv": 1}


# ConvTranspose ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2, C])
@pytest.mark.parametrize("outputs", [C, 2 * C])
@pytest.mark.parametrize("bias", [True, False])
def test_folds_channel_affine_into_conv_transpose(rank, group, outputs, bias):
    b = Builder(seed=rank)
    x = b.input("n", C, *"hwd"[:rank])
    weight = b.random(C, outputs // group, *(3, 2, 2)[:rank])
    extra = [b.random(outputs)] if bias else []
    strides, ones = [2, 3, 2][:rank], (1,) * rank
    y = b.op("ConvTranspose", x, weight, *extra, group=group, strides=strides)
    y = b.op("Add", b.op("Mul", b.batch_norm(y, outputs), b.random(outputs, *ones)), y_bias(b))
    folded = optimized(
        b.model(y), {"n": 2, "h": 4, "w": 4, "d": 3}, {"n": 1, "h": 1, "w": 5, "d": 2}
    )
    assert folded.ops == {"ConvTranspose": 1}, folded.reasons
    assert group_of(folded.node("ConvTranspose")) == group


def y_bias(b: Builder) -> str:
    return b.constant(0.375)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 0, 0, 1], "output_padding": [1, 0]},
        {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
        {"output_padding": [1, 1], "kernel_shape": [3, 3]},
    ],
)
@pytest.mark.parametrize("group", [1, 2])
def test_keeps_attributes_of_conv_transpose(attributes, group):
    b = Builder()
    x = b.input("n", C, "h", "w")
    weight = b.random(C, 6 // group, 3, 3)
    y = b.op("ConvTranspose", x, weight, group=group, strides=[2, 2], **attributes)
    folded = optimized(b.model(b.batch_norm(y, 6)), {"n": 2, "h": 4, "w": 4}, SIZES[2])
    assert folded.ops == {"ConvTranspose": 1}, folded.reasons


def test_keeps_output_shape_of_conv_transpose():
    b = Builder()
    x = b.input("n", C, 5, 6)
    y = b.op("ConvTranspose", x, b.random(C, 3, 3, 3), strides=[2, 2], output_shape=[10, 13])
    folded = optimized(b.model(b.batch_norm(y, 3)), {"n": 2})
    assert folded.ops == {"ConvTranspose": 1}, folded.reasons


def test_folds_scale_in_front_of_conv_transpose():
    b = Builder()
    x = b.input("n", C, "h", "w")
    scaled = b.op("Mul", x, b.random(C, 1, 1))
    y = b.op("ConvTranspose", scaled, b.random(C, 3, 2, 2), b.random(6), group=2, strides=[2, 2])
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"ConvTranspose": 1}


def test_refuses_shift_in_front_of_conv_transpose():
    b = Builder()
    x = b.input("n", C, "h", "w")
    shifted = b.op("Add", x, b.random(C, 1, 1))
    y = b.op("ConvTranspose", shifted, b.random(C, 3, 3, 3), pads=[1, 1, 1, 1])
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"ConvTranspose": 1, "Add": 1}


def test_folds_parallel_conv_transposes():
    b = Builder()
    x = b.input("n", C, "h", "w")
    parts = [
        b.op("ConvTranspose", x, b.random(C, C // g, 2, 2), group=g, strides=[2, 2]) for g in (1, 2)
    ]
    folded = optimized(b.model(b.op("Sub", *parts)), *SIZES)
    assert folded.ops == {"ConvTranspose": 1}, folded.reasons


def test_refuses_sum_of_conv_transpose_and_input():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("ConvTranspose", x, b.random(C, C, 1, 1))
    folded = optimized(b.model(b.op("Add", y, x)), *SIZES)
    assert folded.ops == {"ConvTranspose": 1, "Add": 1}


def test_scales_conv_transpose_along_its_output_channels():
    """C_in == C_out: the scale belongs to the second axis of the weight."""
    b = Builder()
    x = b.input(1, 3, 3, 3)
    weight, scale = b.values(3, 3, 3, 3), b.values(3, 1, 1)
    y = b.op("ConvTranspose", x, b.constant(weight))
    folded = optimized(b.model(b.op("Mul", y, b.constant(scale))))
    stored = next(
        numpy_helper.to_array(t) for t in folded.model.graph.initializer if len(t.dims) == 4
    )
    np.testing.assert_allclose(stored, weight * scale[None], rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("pads", list(itertools.product((0, 1, 2), repeat=2)))
def test_matches_for_any_padding_of_a_sum(rank, pads):
    b = Builder()
    x = b.input("n", 3, *"abc"[:rank])
    begin, end = pads
    kernel = begin + end + 1
    y = b.conv(x, 3, 3, (kernel,) * rank, pads=[begin] * rank + [end] * rank)
    y = b.op("Add", y, b.conv(x, 3, 3, (3,) * rank, pads=same((3,) * rank)))
    folded = optimized(
        b.model(y), {"n": 1, "a": 2, "b": 3, "c": 1}, {"n": 1, "a": 5, "b": 4, "c": 3}
    )
    if rank < 3:
        assert folded.ops == {"Conv": 1}


def test_refuses_what_is_not_pointwise_in_front_of_conv_transpose():
    b = Builder()
    y = b.conv(b.input("n", C, "h", "w"), C, C, (2, 3), bias=False)
    folded = optimized(b.model(b.op("ConvTranspose", y, b.random(C, C, 2, 2))), *SIZES)
    assert folded.ops == {"Conv": 1, "ConvTranspose": 1}
    assert "only a pointwise map folds into the ConvTranspose behind it" in folded.reasons


@pytest.mark.parametrize(("op", "kernel"), [("ConvTranspose", (1, 1)), ("Conv", (3, 2))])
def test_refuses_what_is_not_pointwise_behind_conv_transpose(op, kernel):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("ConvTranspose", x, b.random(C, C, 2, 2), b.random(C))
    folded = optimized(b.model(b.op(op, y, b.random(C, C, *kernel), b.random(C))), *SIZES)
    assert folded.ops == Counter(["ConvTranspose", op])
    assert "only a pointwise map folds into the ConvTranspose in front of it" in folded.reasons


def test_refuses_conv_transpose_of_one_channel_that_broadcasts():
    b = Builder()
    x = b.input("n", C, "h", "w")
    one = b.op("ConvTranspose", x, b.random(C, 1, 1, 1))
    folded = optimized(b.model(b.op("Add", one, b.conv(x, C, C, (1, 1)))), *SIZES)
    assert folded.ops == {"ConvTranspose": 1, "Conv": 1, "Add": 1}
    assert f"a sum of 1 and {C} channels" in folded.reasons


@pytest.mark.parametrize(
    ("shape", "attributes", "reason"),
    [
        ((6, C), {}, "its weight has shape [6, 4], and it has 1 groups"),
        ((0, C, 3, 3), {}, "its weight has shape [0, 4, 3, 3]"),
        ((6, C, 3, 3), {"group": 0}, "and it has 0 groups"),
        ((6, 1, 3, 3), {"group": 4}, "and it has 4 groups"),
        ((6, C, 3, 3), {"strides": [2]}, "its attributes do not fit"),
        ((6, C, 3, 3), {"strides": [2, 0]}, "its attributes do not fit"),
        ((6, C, 3, 3), {"dilations": [2, 2, 2]}, "its attributes do not fit"),
        ((6, C, 3, 3), {"pads": [1, 1]}, "its attributes do not fit"),
    ],
)
def test_refuses_weights_and_attributes_that_do_not_fit(shape, attributes, reason):
    b = Builder()
    x = b.input("n", C, *"hw"[: len(shape) - 2])
    y = b.op("Conv", x, b.random(*shape), **attributes)
    model = b.model(b.op("Mul", y, b.constant(0.7)))
    left_alone(model)
    assert reason in refusal(model, "Conv", len(shape))


def test_refuses_bias_that_does_not_fit():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Conv", x, b.random(6, C, 3, 3), b.random(3))
    model = b.model(b.batch_norm(y, 6))
    left_alone(model)
    assert refusal(model, "Conv") == "its bias has shape [3], and it has 6 channels"
