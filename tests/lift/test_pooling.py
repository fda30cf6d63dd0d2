"""AveragePool and GlobalAveragePool as convolutions, where they are."""

from __future__ import annotations

import onnx
import pytest

from tests.lift.building import Builder
from tests.lift.comparing import left_alone, optimized, refusal

C = 4
SIZES = ({"n": 1, "h": 6, "w": 6}, {"n": 2, "h": 7, "w": 4})
BLOCK = {"Conv": 1}


def beside_conv(b: Builder, x: str, kernel, **attributes) -> str:
    """AveragePool(x) + Conv(x), with one window."""
    pool = b.op("AveragePool", x, kernel_shape=list(kernel), **attributes)
    shared = {k: v for k, v in attributes.items() if k in ("pads", "strides", "auto_pad")}
    return b.op("Add", b.conv(x, C, C, kernel, **shared), pool)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)])
@pytest.mark.parametrize("strides", [[1, 1], [2, 1]])
@pytest.mark.parametrize("opset", [7, 10, 11, 17, 22])
def test_folds_pool_without_padding(kernel, strides, opset):
    b = Builder(opset)
    x = b.input("n", C, "h", "w")
    y = beside_conv(b, x, kernel, strides=strides)
    assert optimized(b.model(y), *SIZES).ops == BLOCK


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 2, 1, 0], [2, 0, 0, 1]])
@pytest.mark.parametrize("strides", [[1, 1], [2, 2]])
def test_folds_pool_that_counts_its_padding(pads, strides):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = beside_conv(b, x, (3, 3), pads=pads, strides=strides, count_include_pad=1)
    assert optimized(b.model(y), *SIZES).ops == BLOCK


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 0, 0, 1]])
@pytest.mark.parametrize("explicit", [True, False])
def test_refuses_pool_that_does_not_count_its_padding(pads, explicit):
    b = Builder()
    x = b.input("n", C, "h", "w")
    given = {"count_include_pad": 0} if explicit else {}
    y = beside_conv(b, x, (3, 3), pads=pads, **given)
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 1, "AveragePool": 1, "Add": 1}
    assert "count_include_pad=0" in folded.reasons


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("strides", [[1, 1], [2, 2]])
@pytest.mark.parametrize("size", [6, 7])
def test_matches_for_every_auto_pad(mode, count, strides, size):
    b = Builder()
    x = b.input("n", C, size, size)
    y = b.op(
        "AveragePool",
        b.conv(x, C, C, (1, 1), bias=False),
        kernel_shape=[3, 3],
        auto_pad=mode,
        strides=strides,
        count_include_pad=count,
    )
    folded = optimized(b.model(y), {"n": 1}, {"n": 2}, truth_runs=False)
    assert mode != "VALID" or folded.ops == {"Conv": 1}


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
@pytest.mark.parametrize("counted", [0, 1])
def test_folds_ceil_mode_only_where_it_adds_no_window(ceil_mode, size, pads, counted):
    b = Builder()
    x = b.input("n", C, size, size)
    pool = b.op(
        "AveragePool",
        b.conv(x, C, C, (1, 1), bias=False),
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=pads,
        ceil_mode=ceil_mode,
        count_include_pad=counted,
    )
    folded = optimized(b.model(pool), {"n": 2}, truth_runs=False)
    adds = ceil_mode and (size + 2 * pads[0] - 3) % 2
    stays = adds or (pads[0] and not counted)
    assert folded.ops == ({"Conv": 1, "AveragePool": 1} if stays else {"Conv": 1}), folded.reasons


def test_refuses_ceil_mode_of_unknown_size():
    b = Builder()
    x = b.input("n", C, "h", "w")
    pool = b.op(
        "AveragePool",
        b.conv(x, C, C, (1, 1)),
        kernel_shape=[2, 2],
        strides=[2, 2],
        ceil_mode=1,
    )
    folded = optimized(b.model(pool), *SIZES)
    assert folded.ops == {"Conv": 1, "AveragePool": 1}


def test_folds_ceil_mode_with_stride_one():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = beside_conv(b, x, (3, 3), ceil_mode=1)
    assert optimized(b.model(y), *SIZES).ops == BLOCK


@pytest.mark.parametrize("opset", [19, 22])
def test_folds_dilated_pool(opset):
    b = Builder(opset)
    x = b.input("n", C, "h", "w")
    pool = b.op("AveragePool", x, kernel_shape=[2, 2], dilations=[2, 3])
    wide = b.conv(x, C, C, (2, 2), dilations=[2, 3])
    assert optimized(b.model(b.op("Add", wide, pool)), *SIZES).ops == BLOCK


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_folds_pool_of_every_rank(rank):
    b = Builder()
    x = b.input("n", C, *"abc"[:rank])
    kernel = [3, 2, 2][:rank]
    y = b.batch_norm(b.op("AveragePool", x, kernel_shape=kernel), C)
    y = b.op("Add", y, b.conv(x, C, C, kernel))
    sizes = ({"n": 1, "a": 3, "b": 2, "c": 3}, {"n": 2, "a": 5, "b": 5, "c": 4})
    assert optimized(b.model(y), *sizes).ops == BLOCK


def test_keeps_pool_alone():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    assert optimized(b.model(b.op("Relu", y)), *SIZES).ops == {"AveragePool": 1, "Relu": 1}


def test_folds_global_pool_of_known_size():
    b = Builder()
    x = b.input("n", C, 3, 4)
    y = b.op("Sub", b.conv(x, C, C, (3, 4)), b.op("GlobalAveragePool", x))
    assert optimized(b.model(y), {"n": 2}).ops == BLOCK


def test_refuses_global_pool_of_unknown_size():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.batch_norm(b.op("GlobalAveragePool", b.conv(x, C, 6, (1, 1))), 6)
    folded = optimized(b.model(y), *SIZES)
    assert "GlobalAveragePool" in folded.ops


@pytest.mark.parametrize(("size", "left"), [(8, 0), (9, 1)])
def test_refuses_global_pool_of_a_large_image(size, left):
    b = Builder()
    pooled = b.op("GlobalAveragePool", b.op("Relu", b.input(1, 3, size, size)))
    folded = optimized(b.model(b.conv(pooled, 3, 4, (1, 1))))
    assert folded.ops["GlobalAveragePool"] == left


def test_refuses_input_minus_its_global_mean():
    """The mean has size 1 by 1 and broadcasts: no convolution."""
    b = Builder()
    x = b.input("n", C, 4, 4)
    t = b.conv(x, C, C, (1, 1))
    folded = optimized(b.model(b.op("Sub", t, b.op("GlobalAveragePool", t))), {"n": 2})
    assert folded.ops == {"Conv": 1, "GlobalAveragePool": 1, "Sub": 1}


def test_refuses_max_pool():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("MaxPool", b.conv(x, C, C, (1, 1)), kernel_shape=[2, 2])
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1, "MaxPool": 1}


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(
    ("kernel", "strides", "dilations"), [((2, 3), (1, 1), (2, 2)), ((1, 2), (2, 2), None)]
)
def test_refuses_auto_pad_on_which_runtimes_differ(mode, kernel, strides, dilations):
    b = Builder(19)
    x = b.input("n", C, 7, 7)
    given = {"dilations": list(dilations)} if dilations else {}
    y = b.op(
        "AveragePool",
        b.conv(x, C, C, (1, 1)),
        kernel_shape=list(kernel),
        strides=list(strides),
        auto_pad=mode,
        count_include_pad=1,
        **given,
    )
    folded = optimized(b.model(y), {"n": 2}, truth_runs=False)
    assert folded.ops == {"Conv": 1, "AveragePool": 1}
    assert "runtimes differ on auto_pad" in folded.reasons


def test_refuses_strided_auto_pad_of_unknown_size():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op(
        "AveragePool",
        b.conv(x, C, C, (1, 1)),
        kernel_shape=[2, 3],
        strides=[2, 2],
        auto_pad="SAME_UPPER",
        count_include_pad=1,
    )
    folded = optimized(b.model(y), *SIZES, truth_runs=False)
    assert folded.ops == {"Conv": 1, "AveragePool": 1}
    assert "its padding depends on a size that is not known" in folded.reasons


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2]},
        {"kernel_shape": [2, 2, 2]},
        {"kernel_shape": [2, 2], "strides": [2]},
        {"kernel_shape": [2, 2], "pads": [1, 1]},
        {"kernel_shape": [2, 0]},
    ],
)
def test_refuses_attributes_that_do_not_fit(attributes):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("AveragePool", b.conv(x, C, C, (1, 1)), output="y", **attributes)
    model = b.model(y)
    shape = model.graph.output[0].type.tensor_type.shape
    del shape.dim[:]
    shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_param=name) for name in "nchw")
    left_alone(model)
    assert refusal(model, "AveragePool") == "its attributes do not fit its input"
