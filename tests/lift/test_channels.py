"""Split, Concat, Gather and channel shuffle."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.handmade import build
from tests.lift.building import Builder
from tests.lift.comparing import left_alone, optimized, refusal

C = 4
SIZES = ({"n": 1, "h": 6, "w": 6}, {"n": 2, "h": 7, "w": 9})


# Split, Concat, Gather ----------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [7, 11, 13, 18])
@pytest.mark.parametrize("sizes", [None, (2, 4), (3, 3)])
@pytest.mark.parametrize("axis", [1, -3])
def test_folds_split_convs_concat_to_one_grouped_conv(opset, sizes, axis):
    if axis < 0 and opset < 11:
        pytest.skip("negative axes came with opset 11")
    b = Builder(opset)
    x = b.input("n", 6, "h", "w")
    x = b.op("Relu", x)
    given = {"axis": axis}
    extra = []
    if sizes is None and opset >= 18:
        given["num_outputs"] = 2
    elif sizes is not None and opset < 13:
        given["split"] = list(sizes)
    elif sizes is not None:
        extra = [b.constant(list(sizes))]
    parts = b.ops("Split", x, *extra, outputs=2, **given)
    counts = sizes or (3, 3)
    outs = [b.conv(p, n, n, (3, 3), pads=[1] * 4) for p, n in zip(parts, counts, strict=True)]
    folded = optimized(b.model(b.op("Concat", *outs, axis=axis)), *SIZES)
    assert folded.ops == {"Relu": 1, "Conv": 1}
    groups = next(a.i for a in folded.node("Conv").attribute if a.name == "group")
    assert groups == {(3, 3): 2, (2, 4): 1}[counts]


def test_folds_uneven_split():
    b = Builder(18)
    x = b.input("n", 7, "h", "w")
    y = b.conv(x, 7, 7, (3, 3))
    parts = b.ops("Split", y, outputs=3, axis=1, num_outputs=3)
    norms = [b.batch_norm(p, n) for p, n in zip(parts, (3, 3, 1), strict=True)]
    y = b.op("Concat", *reversed(norms), axis=1)
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_keeps_split_whose_parts_go_different_ways():
    """One half is folded into a Conv, the other half is read as it is."""
    b = Builder()
    x = b.op("Relu", b.input("n", 6, "h", "w"))
    left, right = b.ops("Split", x, outputs=["left", "right"], axis=1)
    y = b.batch_norm(b.conv(left, 3, 3, (3, 3), pads=[1] * 4), 3)
    y = b.op("Concat", y, b.op("Sigmoid", right), axis=1)
    folded = optimized(b.model(y, "left"), *SIZES)
    assert folded.ops["Conv"] == 1
    assert "BatchNormalization" not in folded.ops


def test_folds_partial_convolution():
    """FasterNet: a Conv over some channels, the others as they are."""
    b = Builder()
    x = b.op("Relu", b.input("n", 8, 5, 5))
    left, right = b.ops("Split", x, b.constant([2, 6]), outputs=2, axis=1)
    y = b.op("Concat", b.conv(left, 2, 2, (3, 3), pads=[1] * 4), right, axis=1)
    y = b.batch_norm(b.conv(y, 8, 8, (1, 1)), 8)
    folded = optimized(b.model(y), {"n": 1}, {"n": 2})
    assert "BatchNormalization" not in folded.ops


@pytest.mark.parametrize("indices", [[3, 0, 2, 1], [0, 0, 1], [-1, -4], [2]])
def test_folds_gather_of_channels(indices):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Gather", b.conv(x, C, C, (3, 3)), b.constant(indices), axis=1)
    assert optimized(b.model(b.batch_norm(y, len(indices))), *SIZES).ops == {"Conv": 1}


def test_refuses_gather_along_space_or_by_scalar():
    b = Builder()
    x = b.input("n", C, 4, 4)
    y = b.op("Gather", b.conv(x, C, C, (1, 1)), b.constant([3, 0, 2, 1]), axis=2)
    z = b.op("Gather", b.conv(x, C, C, (3, 3), pads=[1] * 4), b.constant(np.int64(2)), axis=1)
    folded = optimized(b.model(y, z), {"n": 2})
    assert folded.ops == {"Conv": 2, "Gather": 2}


def test_folds_concat_of_input_and_convs():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Concat", x, b.conv(x, C, 2, (3, 3), pads=[1] * 4), x, axis=1)
    y = b.conv(y, 2 * C + 2, 3, (1, 1))
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_refuses_concat_along_space():
    b = Builder()
    x = b.input("n", C, 4, 4)
    y = b.op("Concat", b.conv(x, C, C, (1, 1)), b.conv(x, C, C, (3, 3), pads=[1] * 4), axis=2)
    assert optimized(b.model(y), {"n": 2}).ops == {"Conv": 2, "Concat": 1}


def test_folds_concat_back_into_what_was_split():
    """Concat(Split(x)) is x."""
    b = Builder()
    x = b.op("Relu", b.input("n", 6, "h", "w"))
    parts = b.ops("Split", x, outputs=2, axis=1)
    y = b.op("Concat", *parts, axis=1)
    y = b.op("Sigmoid", b.conv(y, 6, 6, (1, 1)))
    assert optimized(b.model(y), *SIZES).ops == {"Relu": 1, "Conv": 1, "Sigmoid": 1}


# Channel shuffle ----------------------------------------------------------------------------------


def shuffled(b: Builder, x: str, groups: int, channels: int, first, last) -> str:
    wide = b.op("Reshape", x, first)
    turned = b.op("Transpose", wide, perm=[0, 2, 1, 3, 4])
    return b.op("Reshape", turned, last)


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("batch", ["n", 2])
@pytest.mark.parametrize("form", ["zeros", "sizes", "free"])
def test_folds_static_channel_shuffle(groups, batch, form):
    b = Builder()
    x = b.input(batch, 6, 4, 5)
    y = b.conv(x, 6, 6, (3, 3), group=groups, pads=[1] * 4)
    lead = {"zeros": 0, "sizes": batch if batch == 2 else -1, "free": -1}[form]
    first = b.constant([lead, groups, 6 // groups, 4, 5])
    last = b.constant([lead, 6, 4, 5])
    y = b.batch_norm(shuffled(b, y, groups, 6, first, last), 6)
    assert optimized(b.model(y), *([{"n": 1}, {"n": 3}] if batch == "n" else [])).ops == {"Conv": 1}


@pytest.mark.parametrize("batch", ["n", 2])
@pytest.mark.parametrize("of", ["its own input", "the model's input"])
def test_matches_for_symbolic_channel_shuffle(batch, of):
    """Batch, height and width are read with Shape, as exporters write it."""
    b = Builder()
    x = b.input(batch, 6, "h", "w")
    y = b.conv(x, 6, 6, (3, 3), group=2, pads=[1] * 4)
    shape = b.op("Shape", y if of == "its own input" else x)
    lead, height, width = (b.op("Gather", shape, b.constant([axis]), axis=0) for axis in (0, 2, 3))
    first = b.op("Concat", lead, b.constant([2]), b.constant([3]), height, width, axis=0)
    last = b.op("Concat", lead, b.constant([6]), height, width, axis=0)
    y = b.batch_norm(shuffled(b, y, 2, 6, first, last), 6)
    assert "BatchNormalization" not in optimized(b.model(y), *SIZES).ops


@pytest.mark.parametrize("batch", ["n", 2])
def test_folds_channel_shuffle_with_symbolic_sizes(batch):
    """Shapes of the exporter's own making: every size by name."""
    b = Builder()
    x = b.input(batch, 6, "h", "w")
    y = b.conv(x, 6, 6, (3, 3), group=2, pads=[1] * 4)
    shape = b.op("Shape", x)
    lead = b.op("Gather", shape, b.constant([0]), axis=0)
    space = b.op("Slice", shape, b.constant([2]), b.constant([4]))
    first = b.op("Concat", lead, b.constant([2, 3]), space, axis=0)
    last = b.op("Concat", lead, b.constant([6]), space, axis=0)
    y = b.batch_norm(shuffled(b, y, 2, 6, first, last), 6)
    assert optimized(b.model(y), *SIZES).ops.keys() == {"Conv"}


@pytest.mark.parametrize("batch", ["n", 2])
def test_matches_for_channel_shuffle_of_half_known_size(batch):
    b = Builder()
    x = b.input(batch, 6, 4, "w")
    y = b.conv(x, 6, 6, (3, 3), group=2, pads=[1] * 4)
    first, last = b.constant([0, 2, 3, 4, -1]), b.constant([0, 6, 4, -1])
    y = b.batch_norm(shuffled(b, y, 2, 6, first, last), 6)
    assert "BatchNormalization" not in optimized(b.model(y), *SIZES).ops


@pytest.mark.parametrize("batch", [1, 2])
def test_matches_for_channel_shuffle_with_fixed_batch(batch):
    b = Builder()
    x = b.input(batch, 6, "h", "w")
    y = b.conv(x, 6, 6, (3, 3), group=2, pads=[1] * 4)
    shape = b.op("Shape", y)
    space = b.op("Slice", shape, b.constant([2]), b.constant([4]))
    first = b.op("Concat", b.constant([batch, 2, 3]), space, axis=0)
    last = b.op("Concat", b.constant([batch, 6]), space, axis=0)
    y = b.batch_norm(shuffled(b, y, 2, 6, first, last), 6)
    assert "BatchNormalization" not in optimized(b.model(y), *SIZES).ops


@pytest.mark.parametrize("batch", ["n", 2])
def test_folds_shuffle_of_a_matrix(batch):
    b = Builder()
    x = b.input(batch, 5)
    y = b.op("Gemm", x, b.random(5, 6), b.random(6))
    y = b.op("Reshape", y, b.constant([-1, 2, 3]))
    y = b.op("Transpose", y, perm=[0, 2, 1])
    y = b.op("Reshape", y, b.constant([-1, 6]))
    sizes = [{"n": 1}, {"n": 4}] if batch == "n" else []
    assert optimized(b.model(b.batch_norm(y, 6)), *sizes).ops == {"Gemm": 1}


def test_matches_for_shuffle_that_moves_nothing():
    """One channel per group: the order stays, and still the Reshapes hold for one size alone."""
    b = Builder()
    x = b.op("Relu", b.input(1, 2, 6, 7))
    y = shuffled(b, x, 2, 2, b.constant([1, 2, 1, 6, 7]), b.constant([1, 2, 6, 7]))
    y = b.op("Mean", y, x, x)
    optimized(b.model(y, b.batch_norm(y, 2)))


@pytest.mark.parametrize("perm", [[0, 1, 2, 4, 3], [0, 3, 2, 1, 4], [2, 1, 0, 3, 4]])
def test_refuses_shuffle_that_moves_pixels(perm):
    """All extents are equal, so that the shapes alone do not tell."""
    b = Builder()
    x = b.input(2, 4, 2, 2)
    y = b.conv(x, 4, 4, (1, 1))
    y = b.op("Reshape", y, b.constant([2, 2, 2, 2, 2]))
    y = b.op("Reshape", b.op("Transpose", y, perm=perm), b.constant([2, 4, 2, 2]))
    folded = optimized(b.model(b.batch_norm(y, 4)))
    assert folded.ops["Transpose"] == 1


def test_refuses_pixel_shuffle():
    b = Builder()
    x = b.input(2, 4, 2, 2)
    y = b.conv(x, 4, 4, (1, 1))
    y = b.op("Reshape", y, b.constant([2, 1, 2, 2, 2, 2]))
    y = b.op("Transpose", y, perm=[0, 1, 4, 2, 5, 3])
    y = b.op("Reshape", y, b.constant([2, 1, 4, 4]))
    folded = optimized(b.model(b.batch_norm(y, 1)))
    assert folded.ops["Transpose"] == 1


# What must not fold -------------------------------------------------------------------------------


UNKNOWN = {
    "AveragePool": lambda b, x: b.op("AveragePool", x, kernel_shape=[2, 3]),
    "Gather": lambda b, x: b.op("Gather", x, b.constant([3, 1]), axis=1),
    "GlobalAveragePool": lambda b, x: b.op("GlobalAveragePool", x),
    "Mul": lambda b, x: b.op("Mul", x, b.constant(0.7)),
    "Neg": lambda b, x: b.op("Neg", x),
    "Pad": lambda b, x: b.op("Pad", x, b.constant([0, 0, 1, 2] * 2)),
    "Slice": lambda b, x: b.op("Slice", x, *(b.constant([v]) for v in (1, 3, 1))),
    "Slice of rows": lambda b, x: b.op("Slice", x, *(b.constant([v]) for v in (1, 2**40, 2))),
    "Split": lambda b, x: b.ops("Split", x, axis=1, outputs=2)[1],
}


@pytest.mark.parametrize("rule", UNKNOWN)
def test_refuses_unknown_number_of_channels(rule):
    b = Builder()
    model = b.model(b.op("MaxPool", UNKNOWN[rule](b, b.input("n", "c", 6, 7)), kernel_shape=[1, 1]))
    op = rule.split()[0]
    assert optimized(model, {"n": 1, "c": 4}, {"n": 2, "c": 6}).ops == {op: 1, "MaxPool": 1}
    assert "not known" in refusal(model, op)


def test_refuses_split_and_gather_along_space():
    b = Builder()
    x = b.input("n", C, C, C)
    y = b.conv(x, C, C, (1, 1))
    parts = b.ops("Split", y, axis=2, outputs=2)
    turned = b.op("Gather", y, b.constant([2, 0, 3, 1]), axis=2)
    model = b.model(*(b.batch_norm(part, C) for part in (*parts, turned)))
    folded = optimized(model, {"n": 2})
    assert folded.ops["Split"] == folded.ops["Gather"] == 1
    assert refusal(model, "Split").startswith("it does not split the channels")
    assert refusal(model, "Gather").startswith("it does not gather channels")


def test_refuses_equal_parts_that_are_not_equal():
    """Only since opset 18 the last may be smaller."""
    b = Builder(13)
    y = b.conv(b.input("n", 7, "h", "w"), 7, 7)
    b.ops("Split", y, outputs=["first", "second"], axis=1)
    outputs = [helper.make_tensor_value_info("first", TensorProto.FLOAT, ("n", 4, None, None))]
    model = build(b.nodes, b.inputs, outputs, b.initializers, [])
    left_alone(model)
    assert refusal(model, "Split") == "2 equal parts of 7 channels do not exist"


@pytest.mark.parametrize(("op", "value"), [("Split", [1, 3]), ("Gather", [2, 0, 3])])
def test_refuses_computed_choice_of_channels(op, value):
    b = Builder()
    x = b.input("n", C, C, C)
    chosen = b.input(len(value), name="chosen", elem_type=TensorProto.INT64)
    y = b.conv(x, C, C, (1, 1))
    last = b.ops(op, y, chosen, axis=1, outputs=len(value) if op == "Split" else 1)[-1]
    y = b.batch_norm(last, 3, output="y")
    known = helper.make_tensor_value_info(last, TensorProto.FLOAT, ("n", 3, C, C))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 3, C, C))]
    model = build(b.nodes, b.inputs, outputs, b.initializers, [known])
    values = np.random.default_rng(5).standard_normal((2, C, C, C)).astype(np.float32)
    folded = optimized(model, feeds=[{"x": values, "chosen": np.array(value)}])
    assert folded.ops == {"Conv": 1, op: 1, "BatchNormalization": 1}
    assert refusal(model, op).endswith("are not constant")


def test_refuses_concat_with_a_constant():
    b = Builder()
    x = b.input(1, C, C, C)
    y = b.op("Concat", b.conv(x, C, C, (1, 1)), b.random(1, C, C, C), axis=1)
    model = b.model(b.batch_norm(y, 2 * C))
    assert optimized(model).ops == {"Conv": 1, "Concat": 1, "BatchNormalization": 1}
    assert refusal(model, "Concat") == "it joins constants"


def test_refuses_concat_with_a_conv_transpose():
    b = Builder()
    x = b.input("n", C, "h", "w")
    wide = b.op("ConvTranspose", x, b.random(C, C, 1, 1))
    y = b.op("Concat", b.conv(x, C, C, (1, 1)), wide, axis=1)
    folded = optimized(b.model(b.op("Relu", y)), *SIZES)
    assert folded.ops == {"Conv": 1, "ConvTranspose": 1, "Concat": 1, "Relu": 1}
    assert "Concat: it joins a branch whose window is not interpreted" in folded.reasons
