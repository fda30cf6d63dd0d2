"""Multi-branch blocks in one, two and three spatial dimensions."""

from __future__ import annotations

import pytest

from tests.lift.building import Builder, same
from tests.lift.comparing import optimized

RANKS = pytest.mark.parametrize("rank", [1, 2, 3])
SIZES = (
    {"n": 1, "s0": 1, "s1": 2, "s2": 1},
    {"n": 2, "s0": 4, "s1": 4, "s2": 4},
    {"n": 1, "s0": 7, "s1": 8, "s2": 5},
)
C = 4


def image(b: Builder, rank: int, channels: int = C) -> str:
    return b.input("n", channels, *(f"s{i}" for i in range(rank)))


def only_conv(model, *sizes):
    folded = optimized(model, *(sizes or SIZES))
    assert folded.ops == {"Conv": 1}, folded.reasons
    return folded


@RANKS
@pytest.mark.parametrize("padding", ["pads", "SAME_UPPER", "SAME_LOWER"])
def test_folds_three_branch_residual_block(rank, padding):
    b = Builder()
    x = image(b, rank)
    pad = {"pads": same((3,) * rank)} if padding == "pads" else {"auto_pad": padding}
    wide = b.conv(x, C, C, (3,) * rank, **pad)
    point = b.conv(x, C, C, (1,) * rank, **({} if padding == "pads" else pad))
    y = b.op("Add", b.op("Add", wide, point), x)
    assert only_conv(b.model(y)).node("Conv").output[0] == y


@RANKS
@pytest.mark.parametrize("group", [1, 2, C])
@pytest.mark.parametrize("stride", [1, 2])
def test_folds_block_with_batch_norms(rank, group, stride):
    b = Builder(seed=rank)
    x = image(b, rank)
    strides = [stride] * rank
    kernel = (3,) * rank
    wide = b.conv(x, C, C, kernel, bias=False, group=group, pads=same(kernel), strides=strides)
    point = b.conv(x, C, C, (1,) * rank, bias=False, group=group, strides=strides)
    y = b.op("Add", b.batch_norm(wide, C), b.batch_norm(point, C))
    if stride == 1:
        y = b.op("Add", y, b.batch_norm(x, C))
    folded = optimized(b.model(b.op("Relu", y, output="y")), *SIZES)
    assert folded.ops == {"Conv": 1, "Relu": 1}, folded.reasons
    conv = folded.node("Conv")
    assert next(a.i for a in conv.attribute if a.name == "group") == group


def test_folds_asymmetric_kernels():
    b = Builder()
    x = image(b, 2)
    square = b.batch_norm(b.conv(x, C, 6, (3, 3), bias=False, pads=[1, 1, 1, 1]), 6)
    row = b.batch_norm(b.conv(x, C, 6, (1, 3), bias=False, pads=[0, 1, 0, 1]), 6)
    column = b.batch_norm(b.conv(x, C, 6, (3, 1), bias=False, pads=[1, 0, 1, 0]), 6)
    point = b.conv(x, C, 6, (1, 1))
    only_conv(b.model(b.op("Sum", square, row, column, point)))


def test_folds_asymmetric_kernels_in_three_dimensions():
    b = Builder()
    x = b.input("n", C, 3, 4, 5)
    kernels = [(1, 1, 1), (1, 1, 3), (1, 3, 1), (3, 1, 1)]
    y = b.op("Sum", *(b.conv(x, C, C, k, pads=same(k)) for k in kernels))
    only_conv(b.model(y), {"n": 1}, {"n": 3})


def test_folds_asymmetric_kernels_in_one_dimension():
    b = Builder()
    x = image(b, 1)
    parts = [b.conv(x, C, C, (k,), pads=same((k,))) for k in (1, 3, 7)]
    only_conv(b.model(b.op("Sum", *parts)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_folds_plane_of_asymmetric_kernels_in_three_dimensions(axis):
    b = Builder()
    x = image(b, 3)
    flat = [list(k) for k in ((1, 1), (1, 3), (3, 1))]
    for kernel in flat:
        kernel.insert(axis, 1)
    only_conv(b.model(b.op("Sum", *(b.conv(x, C, C, k, pads=same(k)) for k in flat))))


@RANKS
@pytest.mark.parametrize("stride", [1, 2])
def test_folds_pointwise_then_padded_conv_without_bias(rank, stride):
    b = Builder()
    x = image(b, rank)
    kernel = (3,) * rank
    point = b.conv(x, C, 5, (1,) * rank, bias=False)
    strides = [stride] * rank
    y = b.conv(point, 5, C, kernel, pads=same(kernel), strides=strides)
    only_conv(b.model(y))


@RANKS
def test_folds_pointwise_with_bias_then_unpadded_conv(rank):
    b = Builder()
    x = image(b, rank)
    y = b.conv(b.conv(x, C, 5, (1,) * rank), 5, C, (3,) * rank)
    sizes = ({"n": 1, "s0": 3, "s1": 3, "s2": 3}, {"n": 2, "s0": 4, "s1": 7, "s2": 5})
    only_conv(b.model(y), *sizes)


@RANKS
def test_refuses_biased_pointwise_before_padded_conv(rank):
    b = Builder()
    x = image(b, rank)
    kernel = (3,) * rank
    y = b.conv(b.conv(x, C, 5, (1,) * rank), 5, C, kernel, pads=same(kernel))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops["Conv"] == 2
    assert "outside its border" in folded.reasons


@RANKS
def test_folds_biased_pointwise_padded_with_its_bias(rank):
    b = Builder()
    x = image(b, rank)
    point = b.op("Conv", x, b.random(C, C, *(1,) * rank), b.constant([0.75] * C))
    widths = b.constant([0, 0, *[1] * rank] * 2)
    padded = b.op("Pad", point, widths, b.constant(0.75))
    only_conv(b.model(b.conv(padded, C, C, (3,) * rank)))


@RANKS
@pytest.mark.parametrize("stride", [1, 2])
def test_folds_average_pool_branch(rank, stride):
    b = Builder()
    x = image(b, rank)
    kernel, strides = (3,) * rank, [stride] * rank
    wide = b.conv(x, C, C, kernel, pads=same(kernel), strides=strides)
    pool = b.op(
        "AveragePool",
        b.conv(x, C, C, (1,) * rank, bias=False),
        kernel_shape=kernel,
        pads=same(kernel),
        strides=strides,
        count_include_pad=1,
    )
    only_conv(b.model(b.op("Add", b.batch_norm(pool, C), wide)))


@RANKS
def test_folds_concat_of_two_convs(rank):
    b = Builder()
    x = image(b, rank)
    kernel = (3,) * rank
    y = b.op(
        "Concat", b.conv(x, C, 3, kernel, pads=same(kernel)), b.conv(x, C, 5, (1,) * rank), axis=1
    )
    only_conv(b.model(y))


@RANKS
def test_folds_concat_of_two_convs_and_their_norm(rank):
    b = Builder()
    x = image(b, rank)
    joined = b.op(
        "Concat", b.conv(x, C, 3, (3,) * rank), b.conv(x, C, 5, (3,) * rank, False), axis=1
    )
    only_conv(
        b.model(b.batch_norm(joined, 8)),
        {"n": 1, "s0": 3, "s1": 3, "s2": 3},
        {"n": 2, "s0": 8, "s1": 5, "s2": 4},
    )


@RANKS
def test_folds_dilated_reparameterization_block(rank):
    """UniRepLKNet: a large depthwise kernel beside dilated small ones."""
    b = Builder()
    x = image(b, rank)
    branches = [b.conv(x, C, C, (9,) * rank, bias=False, group=C, pads=[4] * 2 * rank)]
    for kernel, dilation in ((5, 1), (5, 2), (3, 3), (3, 4)):
        reach = (kernel - 1) * dilation // 2
        branches.append(
            b.conv(
                x,
                C,
                C,
                (kernel,) * rank,
                bias=False,
                group=C,
                pads=[reach] * 2 * rank,
                dilations=[dilation] * rank,
            )
        )
    y = b.op("Sum", *(b.batch_norm(branch, C) for branch in branches))
    folded = only_conv(b.model(y), SIZES[0], SIZES[1])
    weight = max((folded.weight(i) for i in range(2)), key=lambda w: w.ndim)
    assert weight.shape == (C, 1, *(9,) * rank)


@pytest.mark.parametrize("rank", [1, 2])
def test_folds_dilated_branches_alone_on_their_common_grid(rank):
    b = Builder()
    x = image(b, rank)
    parts = [
        b.conv(x, C, C, (3,) * rank, group=C, pads=[d] * 2 * rank, dilations=[d] * rank)
        for d in (2, 4)
    ]
    folded = only_conv(b.model(b.op("Add", *parts)))
    dilations = next(a.ints for a in folded.node("Conv").attribute if a.name == "dilations")
    assert list(dilations) == [2] * rank


@RANKS
def test_folds_qarepvgg_block(rank):
    """Conv-BN, plus a pointwise Conv without one, plus x, and a BN behind the sum."""
    b = Builder()
    x = image(b, rank)
    kernel = (3,) * rank
    wide = b.batch_norm(b.conv(x, C, C, kernel, False, pads=same(kernel)), C)
    summed = b.op("Add", b.op("Add", wide, b.conv(x, C, C, (1,) * rank, False)), x)
    only_conv(b.model(b.batch_norm(summed, C)))


@RANKS
def test_folds_repconv_neck_with_two_outputs(rank):
    """RepConv whose sum before the activation is an output of the model too."""
    b = Builder()
    x = image(b, rank)
    kernel = (3,) * rank
    wide = b.batch_norm(b.conv(x, C, C, kernel, False, pads=same(kernel)), C)
    point = b.batch_norm(b.conv(x, C, C, (1,) * rank, False), C)
    total = b.op("Add", b.op("Add", wide, point), b.batch_norm(x, C), output="total")
    silu = b.op("Mul", total, b.op("Sigmoid", total), output="silu")
    folded = optimized(b.model(total, silu), *SIZES)
    assert folded.ops == {"Conv": 1, "Sigmoid": 1, "Mul": 1}, folded.reasons


@pytest.mark.parametrize("rank", [1, 2])
def test_two_heads_of_one_block_share_a_conv_or_get_one_each(rank):
    b = Builder()
    x = image(b, rank)
    kernel = (3,) * rank
    first = b.batch_norm(b.conv(x, C, C, kernel, False, pads=same(kernel)), C)
    second = b.op("Add", first, b.conv(x, C, C, (1,) * rank), output="sum")
    norm = b.batch_norm(first, C, output="norm")
    folded = optimized(b.model(second, norm), *SIZES)
    assert folded.ops["Conv"] == 2, folded.reasons
    assert folded.ops.total() <= 4


@pytest.mark.parametrize("size", [3, 4])
def test_folds_where_every_extent_is_equal(size):
    b = Builder()
    x = b.input(size, size, size, size)
    wide = b.batch_norm(b.conv(x, size, size, (3, 3), pads=[1] * 4), size)
    y = b.op("Sum", wide, b.conv(x, size, size, (1, 1)), x)
    assert optimized(b.model(y)).ops == {"Conv": 1}


def test_folds_diverse_branch_block():
    """DBB: 3x3, 1x1, 1x1 -> 3x3 (no bias in between), 1x1 -> average pool."""
    b = Builder()
    x = image(b, 2)
    pads = [1, 1, 1, 1]
    branches = [
        b.batch_norm(b.conv(x, C, 6, (3, 3), False, pads=pads), 6),
        b.batch_norm(b.conv(x, C, 6, (1, 1), False), 6),
        b.batch_norm(b.conv(b.conv(x, C, C, (1, 1), False), C, 6, (3, 3), False, pads=pads), 6),
        b.batch_norm(
            b.op(
                "AveragePool",
                b.conv(x, C, 6, (1, 1), False),
                kernel_shape=[3, 3],
                pads=pads,
                count_include_pad=1,
            ),
            6,
        ),
    ]
    only_conv(b.model(b.op("Sum", *branches)))


def test_refuses_difference_of_strides():
    b = Builder()
    x = b.input(1, C, 1, 1)
    y = b.op("Add", b.conv(x, C, C, (1, 1), strides=[2, 2]), b.conv(x, C, C, (1, 1)))
    optimized(b.model(y))
