"""Whole models with convolutions that are written as data movement."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.probe.building import (
    BATCHES,
    OUT,
    SIZES,
    C,
    H,
    W,
    attribute,
    cut,
    flat_windows,
    folds_to_one_conv,
    im2col,
    padded,
    pointwise,
    reshaped,
    rim,
    slices,
)

# The rim overwritten ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(H, W), (2, 3), (1, 1)])
def test_folds_rim_overwritten_with_the_bias(size):
    """Padding with b after x W + b is padding x with zeros."""
    b = Builder()
    x = b.input(2, C, *size)
    y, bias = pointwise(b, x)
    y = b.conv(rim(b, y, (2, C, *size), bias), C, C)
    conv = folds_to_one_conv(optimized(b.model(y)))
    assert attribute(conv, "pads") == [1, 1, 1, 1]


def test_folds_rim_before_average_pool():
    b = Builder()
    x = b.input(2, C, H, W)
    y, bias = pointwise(b, x)
    y = b.op("AveragePool", rim(b, y, (2, C, H, W), bias), kernel_shape=[3, 3], strides=[2, 2])
    folds_to_one_conv(optimized(b.model(y)))


def test_folds_rim_between_transposes():
    """Rows, then columns, by their number alone; the sizes are symbolic."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    y, bias = pointwise(b, x)
    y = padded(b, y, [1, 1], [1, 1])
    for order in ([2, 0, 3, 1], [2, 1, 0, 3]):  # to (H, N, W, C), and from there to (W, N, H, C)
        y = b.op("Transpose", y, perm=order)
        rows = b.op("Shape", cut(b, y, [0], [0], [2]))
        y = b.op(
            "ScatterND",
            y,
            b.constant([[0], [-1]]),
            b.op("Expand", b.constant(bias), rows),
        )
    y = b.op("Transpose", y, perm=[1, 3, 2, 0])
    folds_to_one_conv(optimized(b.model(b.conv(y, C, C)), *SIZES))


@pytest.mark.parametrize("rank", [1, 3])
def test_folds_rim_in_other_ranks(rank):
    size = (5, 4, 6)[:rank]
    b = Builder()
    x = b.input(1, C, *size)
    y, bias = pointwise(b, x, rank)
    y = b.conv(rim(b, y, (1, C, *size), bias), C, C, (3,) * rank)
    folds_to_one_conv(optimized(b.model(y)))


def test_folds_where_with_a_mask_of_the_rim():
    b = Builder()
    x = b.input("n", C, H, W)
    y, bias = pointwise(b, x)
    mask = np.pad(np.ones((H, W), dtype=bool), 1)
    y = padded(b, y, [1, 1], [1, 1], b.constant(7.5))
    mask = b.constant(mask, elem_type=TensorProto.BOOL)
    y = b.op("Where", mask, y, b.constant(bias.reshape(C, 1, 1)))
    folds_to_one_conv(optimized(b.model(b.conv(y, C, C)), *BATCHES))


def test_folds_rim_that_is_off_the_bias_by_a_rounding():
    """Somebody computed the value in the model's own type."""
    b = Builder()
    x = b.input(2, C, H, W)
    y, bias = pointwise(b, x)
    y = b.conv(rim(b, y, (2, C, H, W), bias * (1 + 2.0**-23 * np.array([1, -1, 0, 1]))), C, C)
    folds_to_one_conv(optimized(b.model(y)))


def test_folds_rim_with_a_value_of_its_own_where_no_layer_stands_before_it():
    """A Conv reads zeros beyond its border: the value moves to its input's shift."""
    b = Builder()
    x = b.input(2, C, H, W)
    values = b.values(C)
    y = b.conv(rim(b, b.op("Relu", x), (2, C, H, W), values), C, C)
    folded = optimized(b.model(y))
    assert folded.ops["ScatterND"] == 0, folded.reasons
    assert folded.ops["Conv"] == 1


def test_folds_scatter_that_adds_to_zeros():
    b = Builder(18)
    x = b.input(2, C, H, W)
    y, bias = pointwise(b, x)
    y = b.conv(rim(b, y, (2, C, H, W), bias / 2, reduction="add"), C, C)
    y = b.op("Relu", y)
    assert optimized(b.model(y)).ops["ScatterND"] == 0


# The columns multiplied ---------------------------------------------------------------------------

GEOMETRY = {
    "plain": {},
    "kernel": {"kernel": (2, 5)},
    "strides": {"strides": (2, 3)},
    "dilations": {"dilations": (3, 2), "pads": (3, 2, 3, 2)},
    "valid": {"pads": (0,) * 4},
    "asymmetric": {"pads": (2, 0, 1, 3)},
    "groups": {"groups": 2},
    "all": {
        **{"kernel": (3, 2), "strides": (2, 1), "dilations": (1, 3), "pads": (1, 2, 0, 3)},
        **{"groups": 2, "bias": False},
    },
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_folds_slices_and_a_product(name):
    b = Builder()
    y = im2col(b, b.input("n", C, H, W), (H, W), **GEOMETRY[name])
    conv = folds_to_one_conv(optimized(b.model(y), *BATCHES))
    given = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "pads": [1, 1, 1, 1]}
    given |= {"group" if k == "groups" else k: v for k, v in GEOMETRY[name].items()}
    assert attribute(conv, "group") == given["group"]
    assert tuple(attribute(conv, "strides") or (1, 1)) == tuple(given["strides"])
    assert tuple(attribute(conv, "dilations") or (1, 1)) == tuple(given["dilations"])


@pytest.mark.parametrize("size", [(17,), (5, 6), (4, 3, 5)])
def test_folds_slices_in_every_rank(size):
    rank = len(size)
    b = Builder()
    x = b.input("n", C, *size)
    y = im2col(b, x, size, (3, 2, 2)[:rank], (2, 1, 1)[:rank], pads=(1,) * (2 * rank))
    folds_to_one_conv(optimized(b.model(y), *BATCHES))


@pytest.mark.parametrize("batched", [True, False])
def test_folds_gather_nd(batched):
    """Windows by advanced indexing: the pixels first, and the batch among what is left."""
    b = Builder()
    x = padded(b, b.input("n" if batched else 1, C, H, W), [1, 1], [1, 1])
    pixels = np.stack(np.meshgrid(np.arange(H), np.arange(W), indexing="ij"), axis=-1)
    taps = np.stack(np.meshgrid(np.arange(3), np.arange(3), indexing="ij"), axis=-1)
    where = taps.reshape(9, 1, 2) + pixels.reshape(1, H * W, 2)
    columns = b.op("GatherND", b.op("Transpose", x, perm=[2, 3, 0, 1]), b.constant(where))
    columns = b.op("Transpose", columns, perm=[2, 3, 0, 1])  # (9, P, N, C) -> (N, C, 9, P)
    y = b.op("MatMul", b.random(OUT, C * 9), reshaped(b, columns, -1, C * 9, H * W))
    y = reshaped(b, y, -1, OUT, H, W)
    folds_to_one_conv(optimized(b.model(y), *(BATCHES if batched else ({},))))


def test_folds_gather_on_a_flattened_axis():
    b = Builder()
    x = padded(b, b.input("n", C, H, W), [1, 1], [1, 1])
    flat = reshaped(b, x, -1, C, (H + 2) * (W + 2))
    columns = b.op("Gather", flat, b.constant(flat_windows(W + 2)), axis=2)
    y = b.op("MatMul", b.random(OUT, C * 9), reshaped(b, columns, -1, C * 9, H * W))
    folds_to_one_conv(optimized(b.model(reshaped(b, y, -1, OUT, H, W)), *BATCHES))


def test_folds_einsum_over_windows():
    b = Builder()
    x = padded(b, b.input("n", C, H, W), [1, 1], [1, 1])
    flat = reshaped(b, x, -1, C, (H + 2) * (W + 2))
    windows = b.op("Gather", flat, b.constant(flat_windows(W + 2)), axis=2)
    y = b.op("Einsum", b.random(OUT, C, 9), windows, equation="oct,nctp->nop")
    folds_to_one_conv(optimized(b.model(reshaped(b, y, -1, OUT, H, W)), *BATCHES))


def test_folds_product_from_the_right():
    b = Builder()
    x = padded(b, b.input("n", C, H, W), [1, 1], [1, 1])
    flat = reshaped(b, x, -1, C, (H + 2) * (W + 2))
    columns = b.op("Gather", flat, b.constant(flat_windows(W + 2)), axis=2)
    columns = b.op("Transpose", reshaped(b, columns, -1, C * 9, H * W), perm=[0, 2, 1])
    y = b.op("Add", b.op("MatMul", columns, b.random(C * 9, OUT)), b.random(OUT))
    y = reshaped(b, b.op("Transpose", y, perm=[0, 2, 1]), -1, OUT, H, W)
    folds_to_one_conv(optimized(b.model(y), *BATCHES))


def test_folds_taps_scaled_and_summed():
    """A depthwise convolution, one Mul for each tap."""
    b = Builder()
    x = padded(b, b.input("n", C, H, W), [1, 1], [1, 1])
    taps = slices(b, x, (H, W), (3, 3), (1, 1), (1, 1))
    y = b.op("Sum", *(b.op("Mul", tap, b.random(C, 1, 1)) for tap in taps))
    conv = folds_to_one_conv(optimized(b.model(y), *BATCHES))
    assert attribute(conv, "group") == C


def test_folds_taps_scaled_and_summed_before_a_conv():
    b = Builder()
    x = padded(b, b.input("n", C, H, W), [1, 1], [1, 1])
    taps = slices(b, x, (H, W), (3, 3), (1, 1), (1, 1))
    y = b.op("Sum", *(b.op("Mul", tap, b.random(C, 1, 1)) for tap in taps))
    folds_to_one_conv(optimized(b.model(b.conv(y, C, OUT, (1, 1))), *BATCHES))


def test_folds_patches_into_a_strided_conv():
    """Reshape to patches, Transpose, MatMul: the patch embedding of a vision transformer."""
    b = Builder()
    x = b.input("n", 3, 12, 20)
    y = reshaped(b, x, -1, 3, 3, 4, 5, 4)
    y = reshaped(b, b.op("Transpose", y, perm=[0, 2, 4, 1, 3, 5]), -1, 3 * 5, 48)
    y = b.op("Add", b.op("MatMul", y, b.random(48, OUT)), b.random(OUT))
    y = reshaped(b, b.op("Transpose", y, perm=[0, 2, 1]), -1, OUT, 3, 5)
    conv = folds_to_one_conv(optimized(b.model(y), *BATCHES))
    assert attribute(conv, "strides") == [4, 4]


# Types and surroundings ---------------------------------------------------------------------------


def test_folds_float16():
    b = Builder(17, TensorProto.FLOAT16)
    y = im2col(b, b.input("n", C, H, W), (H, W))
    folded = optimized(b.model(y), *BATCHES)
    folds_to_one_conv(folded)
    assert {t.data_type for t in folded.model.graph.initializer} == {TensorProto.FLOAT16}


def test_folds_rim_in_float16():
    b = Builder(17, TensorProto.FLOAT16)
    x = b.input(2, C, H, W)
    y, bias = pointwise(b, x)
    folds_to_one_conv(optimized(b.model(b.conv(rim(b, y, (2, C, H, W), bias), C, C))))


def test_folds_cast_to_a_wider_type_inside():
    b = Builder(17, TensorProto.FLOAT16)
    x = b.op("Cast", b.input("n", C, H, W), to=TensorProto.FLOAT)
    b.elem_type = TensorProto.FLOAT
    y = im2col(b, x, (H, W))
    b.elem_type = TensorProto.FLOAT16
    y = b.op("Cast", y, to=TensorProto.FLOAT16)
    assert optimized(b.model(y), *BATCHES).ops["Conv"] == 1


def test_folds_two_in_series():
    b = Builder()
    x = b.input("n", C, H, W)
    y = b.op("Relu", im2col(b, x, (H, W)))
    y = im2col(b, y, (H, W), channels=OUT)
    folded = optimized(b.model(y), *BATCHES)
    assert folded.ops == {"Conv": 2, "Relu": 1}, folded.reasons


def test_folds_two_in_series_with_nothing_between():
    b = Builder()
    x = b.input("n", C, H, W)
    y = im2col(b, x, (H, W))
    folded = optimized(b.model(im2col(b, y, (H, W), channels=OUT)), *BATCHES)
    assert folded.ops == {"Conv": 2}, folded.reasons


def test_folds_into_the_layers_around_it():
    b = Builder()
    x = b.input("n", C, H, W)
    y = b.batch_norm(im2col(b, b.op("Mul", x, b.random(C, 1, 1)), (H, W)), OUT)
    folds_to_one_conv(optimized(b.model(y), *BATCHES))


def test_folds_into_a_sum_of_branches():
    b = Builder()
    x = b.input("n", C, H, W)
    y = b.op("Add", im2col(b, x, (H, W)), b.conv(x, C, OUT, (1, 1)))
    folds_to_one_conv(optimized(b.model(y), *BATCHES))


def test_keeps_a_tensor_inside_that_is_an_output():
    b = Builder()
    x = padded(b, b.input("n", C, H, W), [1, 1], [1, 1])
    flat = reshaped(b, x, -1, C, (H + 2) * (W + 2))
    columns = b.op("Gather", flat, b.constant(flat_windows(W + 2)), axis=2)
    y = b.op("MatMul", b.random(OUT, C * 9), reshaped(b, columns, -1, C * 9, H * W))
    folded = optimized(b.model(reshaped(b, y, -1, OUT, H, W), columns), *BATCHES)
    assert folded.ops["Gather"] == 1


def test_keeps_the_padded_tensor_where_somebody_else_reads_it():
    b = Builder()
    x = b.input(2, C, H, W)
    y, bias = pointwise(b, x)
    wide = rim(b, y, (2, C, H, W), bias)
    optimized(b.model(b.conv(wide, C, C), b.op("Relu", wide)))


def test_keeps_a_tensor_inside_that_is_asked_for():
    b = Builder()
    x = b.input(2, C, H, W)
    y, bias = pointwise(b, x)
    y = rim(b, y, (2, C, H, W), bias)
    folded = optimized(b.model(b.conv(y, C, C)), keep=[y])
    assert y in {name for node in folded.model.graph.node for name in node.output}
