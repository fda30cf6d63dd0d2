"""Add, Sub, Mul, Div, Neg, Sum and Mean: with constants of every shape, and with each other."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import left_alone, optimized, refusal

C = 4
SIZES = ({"n": 1, "h": 6, "w": 6}, {"n": 3, "h": 3, "w": 8})
SHAPES = {
    "scalar": (),
    "one": (1,),
    "width": (C,),
    "height": (C, 1),
    "plane": (C, C),
    "channel": (C, 1, 1),
    "channel4": (1, C, 1, 1),
    "all": (1, C, C, C),
    "row": (1, 1, 1, C),
    "column": (1, 1, C, 1),
    "batch": (C, 1, 1, 1),
    "ones": (1, 1, 1, 1),
}
PER_CHANNEL = {"scalar", "one", "channel", "channel4", "ones"}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("group", [1, 2, C])
@pytest.mark.parametrize("left", [False, True])
def test_classifies_constants_by_their_axes(kind, op, group, left):
    """N == C == H == W: only the position of an axis tells what it is."""
    b = Builder(seed=len(kind))
    x = b.input(C, C, C, C)
    y = b.conv(x, C, C, (3, 3), group=group, pads=[1] * 4)
    constant = b.random(*SHAPES[kind])
    pair = (constant, y) if left else (y, constant)
    folded = optimized(b.model(b.op(op, *pair)), truth_runs=op != "Div")
    folds = kind in PER_CHANNEL and not (op == "Div" and left)
    assert folded.ops == ({"Conv": 1} if folds else {"Conv": 1, op: 1}), folded.reasons


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("op", "padding"), [("Add", 0), ("Sub", 0), ("Mul", 1), ("Div", 1)])
@pytest.mark.parametrize("group", [1, 2, C])
def test_classifies_constants_in_front_of_conv(kind, op, padding, group):
    b = Builder(seed=len(kind))
    x = b.op(op, b.input(C, C, C, C), b.random(*SHAPES[kind]))
    y = b.conv(x, C, C, (3, 3), group=group, pads=[padding] * 4)
    folded = optimized(b.model(y))
    assert folded.ops == ({"Conv": 1} if kind in PER_CHANNEL else {"Conv": 1, op: 1})


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_classifies_constants_against_symbolic_sizes(kind, op):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, (1, 1))
    size = {"n": C, "h": C, "w": C}
    folded = optimized(b.model(b.op(op, y, b.random(*SHAPES[kind]))), size)
    assert "Conv" in folded.ops
    assert (folded.ops.total() == 1) == (kind in PER_CHANNEL)


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_refuses_constant_that_adds_a_dimension(op):
    b = Builder()
    x = b.input(1, C, C, C)
    y = b.conv(x, C, C, (1, 1))
    folded = optimized(b.model(b.op(op, y, b.random(2, 1, C, 1, 1))))
    assert folded.ops == {"Conv": 1, op: 1}


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("left", [False, True])
def test_matches_where_a_constant_widens_one_channel(op, left):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, 1, (1, 1))
    constant = b.random(1, C, 1, 1)
    y = b.op(op, *((constant, y) if left else (y, constant)))
    optimized(b.model(b.batch_norm(y, C)), *SIZES)


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_matches_where_a_constant_widens_the_input(op):
    b = Builder()
    x = b.input("n", 1, "h", "w")
    y = b.op(op, x, b.random(C, 1, 1))
    optimized(b.model(b.conv(y, C, C, (3, 3))), *SIZES)


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_refuses_constant_that_widens_space(op):
    """A tensor of size 1 by 1 plus one of shape [C, 3, 1]."""
    b = Builder()
    x = b.input("n", C, 1, 1)
    y = b.op(op, b.conv(x, C, C, (1, 1)), b.random(C, 3, 1))
    folded = optimized(b.model(y), {"n": 2})
    assert folded.ops == {"Conv": 1, op: 1}


def test_folds_neg_and_chains_of_scalars():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Neg", b.conv(x, C, C, (3, 3)))
    y = b.op("Sub", b.constant(0.7), b.op("Mul", y, b.constant(1.7)))
    y = b.op("Div", b.op("Sub", y, b.random(C, 1, 1)), b.random(C, 1, 1))
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


@pytest.mark.parametrize("op", ["Sum", "Mean"])
def test_folds_sum_and_mean_of_branches_and_constants(op):
    b = Builder()
    x = b.input("n", C, "h", "w")
    pads = [1, 1, 1, 1]
    parts = [b.conv(x, C, C, (3, 3), pads=pads), x, b.constant(0.7), b.random(C, 1, 1)]
    y = b.op(op, *parts, b.conv(x, C, C, (1, 1), group=2))
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_folds_difference_of_branches():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Sub", x, b.conv(x, C, C, (3, 3), pads=[1] * 4))
    y = b.op("Sub", b.conv(x, C, C, (1, 1)), y)
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_folds_tensor_plus_itself():
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = b.conv(x, C, C, (3, 3))
    y = b.op("Add", t, t)
    y = b.op("Sum", y, y, t)
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_folds_input_plus_itself_in_front_of_conv():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.conv(b.op("Add", x, x), C, C, (3, 3), pads=[1] * 4)
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_folds_tensor_minus_itself():
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = b.conv(x, C, C, (3, 3))
    y = b.op("Add", b.op("Sub", t, t), t)
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_matches_where_everything_cancels():
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = b.conv(x, C, C, (3, 3), pads=[1] * 4)
    y = b.op("Sub", t, t)
    optimized(b.model(b.op("Add", y, b.constant(0.5))), *SIZES)


def test_folds_broadcast_of_one_channel_branch():
    b = Builder()
    x = b.input("n", C, "h", "w")
    gate = b.conv(x, C, 1, (1, 1))
    wide = b.conv(x, C, C, (3, 3), pads=[1] * 4)
    assert optimized(b.model(b.op("Add", wide, gate)), *SIZES).ops == {"Conv": 1}
    b.op("Sub", gate, wide, output="y")
    assert optimized(b.model("y"), *SIZES).ops == {"Conv": 1}


def test_refuses_product_of_two_branches():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Mul", b.conv(x, C, C, (1, 1)), b.conv(x, C, C, (3, 3), pads=[1] * 4))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 2, "Mul": 1}
    assert "both computed" in folded.reasons


def test_refuses_sum_over_two_inputs():
    b = Builder()
    x, z = b.input("n", C, "h", "w"), b.input("n", C, "h", "w", name="z")
    y = b.op("Add", b.conv(x, C, C, (1, 1)), b.conv(z, C, C, (1, 1)))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 2, "Add": 1}


def test_refuses_branch_of_size_one_that_broadcasts_over_space():
    b = Builder()
    x = b.input("n", C, 3, 3)
    pooled = b.conv(x, C, C, (3, 3))
    folded = optimized(b.model(b.op("Add", pooled, b.conv(x, C, C, (1, 1)))), {"n": 2})
    assert folded.ops == {"Conv": 2, "Add": 1}


def test_refuses_division_by_zero():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Div", b.conv(x, C, C, (1, 1)), b.constant([[[2.5]], [[0.0]], [[1.5]], [[-0.5]]]))
    model = b.model(y)
    assert optimized(model, *SIZES).ops == {"Conv": 1, "Div": 1}
    assert refusal(model, "Div") == "a division by zero"


def test_folds_scale_by_zero():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Mul", b.conv(x, C, C, (3, 3)), b.constant([[[2.5]], [[0.0]], [[1.5]], [[-0.5]]]))
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


# Forward ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [1, 2, C])
@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_folds_scale_forward_into_padded_conv(group, op):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op(op, b.op("Relu", x), b.random(C, 1, 1))
    y = b.conv(y, C, 8, (3, 3), group=group, pads=[1] * 4)
    assert optimized(b.model(y), *SIZES).ops == {"Relu": 1, "Conv": 1}


@pytest.mark.parametrize("group", [1, 2, C])
def test_folds_shift_forward_into_unpadded_conv(group):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Sub", b.random(C, 1, 1), b.op("Relu", x))
    y = b.conv(y, C, 8, (3, 3), group=group, strides=[2, 2])
    assert optimized(b.model(y), *SIZES).ops == {"Relu": 1, "Conv": 1}


def test_refuses_shift_in_front_of_padded_conv():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.conv(b.op("Add", x, b.random(C, 1, 1)), C, 8, (3, 3), pads=[1] * 4)
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 1, "Add": 1}


def test_folds_shift_forward_where_padding_is_never_read():
    """Stride 2 on an even size: the padded row behind is never reached."""
    b = Builder()
    x = b.input("n", C, 6, 8)
    y = b.op("Add", x, b.random(C, 1, 1))
    y = b.conv(y, C, 8, (2, 2), pads=[0, 0, 1, 1], strides=[2, 2])
    assert optimized(b.model(y), {"n": 2}).ops == {"Conv": 1}


def test_folds_image_normalization_forward():
    """(x / 255 - mean) / std in front of an unpadded stem."""
    b = Builder()
    x = b.input("n", 3, "h", "w")
    y = b.op("Div", x, b.constant(255.0))
    y = b.op("Div", b.op("Sub", y, b.random(3, 1, 1)), b.positive(3, 1, 1))
    y = b.conv(y, 3, 8, (3, 3), strides=[2, 2])
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_folds_scale_forward_into_each_of_two_convs():
    b = Builder()
    x = b.input("n", C, "h", "w")
    scaled = b.op("Mul", x, b.random(C, 1, 1))
    left = b.op("Relu", b.conv(scaled, C, C, (3, 3), pads=[1] * 4))
    right = b.op("Relu", b.conv(scaled, C, C, (1, 1)))
    assert optimized(b.model(left, right), *SIZES).ops == {"Conv": 2, "Relu": 2}


def test_keeps_scale_that_someone_else_reads():
    b = Builder()
    x = b.input("n", C, "h", "w")
    scaled = b.op("Mul", x, b.random(C, 1, 1))
    y = b.conv(scaled, C, C, (3, 3), pads=[1] * 4)
    folded = optimized(b.model(b.op("Mul", y, b.op("Sigmoid", scaled))), *SIZES)
    assert folded.ops == {"Conv": 1, "Sigmoid": 1, "Mul": 2}


def test_folds_layer_scale_of_residual_block():
    """x + gamma * (W x + b), as in ConvNeXt."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Mul", b.random(C, 1, 1), b.conv(x, C, C, (1, 1)))
    assert optimized(b.model(b.op("Add", x, y)), *SIZES).ops == {"Conv": 1}


@pytest.mark.parametrize("other", [2.0, np.nextafter(np.float32(4), 5)])
def test_merges_no_nearly_equal_constants(other):
    b = Builder()
    x = b.input("n", C, "h", "w")
    first = b.op("Relu", b.op("Mul", b.conv(x, C, C, (1, 1)), b.constant(4.0)))
    shift = b.op("Add", b.op("Abs", first), b.constant(4.0))
    second = b.op("Relu", b.op("Mul", shift, b.constant(other)))
    folded = optimized(b.model(first, b.op("Add", second, b.constant(other))), *SIZES)
    assert float(other) in {float(v) for t in folded.model.graph.initializer for v in value_of(t)}


def value_of(tensor: onnx.TensorProto) -> np.ndarray:
    return np.ravel(onnx.numpy_helper.to_array(tensor))


def test_keeps_negative_zero():
    """1 / (x * -0.0) tells the sign of a zero."""
    b = Builder()
    x = b.input(1, C, 2, 2)
    y = b.op("Mul", b.op("Abs", x), b.constant(-0.0))
    z = b.op("Mul", b.op("Abs", x), b.constant(0.0))
    one = b.constant(1.5)
    optimized(b.model(b.op("Div", one, y), b.op("Div", one, z)))


@pytest.mark.parametrize(
    ("op", "reason"),
    [("Add", "its inputs differ in rank"), ("Mul", "its constant adds dimensions")],
)
def test_refuses_constant_of_higher_rank_in_front_of_conv(op, reason):
    b = Builder()
    x = b.input(C, C, C)
    y = b.conv(b.op(op, x, b.random(1, C, 1, 1)), C, 6, (3, 3))
    folded = optimized(b.model(y))
    assert folded.ops == {op: 1, "Conv": 1}
    assert f"{op}: {reason}" in folded.reasons


def test_refuses_scale_of_channels_that_may_broadcast():
    """One channel or four: the constant tells only how many come out."""
    b = Builder()
    x = b.input("n", "c", 6, 5)
    model = b.model(b.conv(b.op("Mul", x, b.random(C, 1, 1)), C, 6, (3, 3)))
    assert optimized(model, {"n": 2, "c": 1}, {"n": 1, "c": 4}).ops == {"Mul": 1, "Conv": 1}
    assert refusal(model, "Mul") == "the number of its channels is not known"


def test_refuses_sum_of_channels_that_do_not_broadcast():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Add", b.conv(x, C, 2, (1, 1)), b.conv(x, C, 3, (3, 3), pads=[1] * 4))
    model = b.model(y)
    left_alone(model)
    reasons = [r.reason for r in onnxfuse.optimize(model).report.refusals]
    assert any(reason.startswith("a sum of ") for reason in reasons), reasons
