"""Pad, over space and over the channels."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.handmade import build
from tests.lift.building import Builder
from tests.lift.comparing import left_alone, optimized, refusal

C = 4
SIZES = ({"n": 1, "h": 6, "w": 6}, {"n": 2, "h": 7, "w": 9})
MANY = np.iinfo(np.int64).max


def pad(b: Builder, x: str, widths, value: float | None = None) -> str:
    if b.opset < 11:
        given = {} if value is None else {"value": value}
        return b.op("Pad", x, pads=list(widths), **given)
    extra = [] if value is None else [b.constant(value)]
    return b.op("Pad", x, b.constant(list(widths)), *extra)


def cut(b: Builder, x: str, axes, starts, ends, steps=None) -> str:
    if b.opset < 10:
        return b.op("Slice", x, axes=list(axes), starts=list(starts), ends=list(ends))
    extra = [] if steps is None else [b.constant(list(steps))]
    bounds = [b.constant(list(v)) for v in (starts, ends, axes)]
    return b.op("Slice", x, *bounds, *extra)


@pytest.mark.parametrize("opset", [7, 10, 11, 13, 18, 21])
@pytest.mark.parametrize("widths", [(0, 0, 1, 2, 0, 0, 3, 1), (0, 0, 1, 0, 0, 0, 0, 2)])
def test_folds_pad_into_conv(opset, widths):
    b = Builder(opset)
    x = b.input("n", C, "h", "w")
    y = b.conv(pad(b, x, widths), C, C, (3, 3), strides=[2, 1])
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


@pytest.mark.parametrize("opset", [10, 13])
@pytest.mark.parametrize(
    "widths", [(0, 0, -1, -2, 0, 0, -1, 0), (0, 0, -1, 2, 0, 0, 1, -1), (0, 0, 2, 2, 0, 0, -1, -1)]
)
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
@pytest.mark.parametrize("strides", [[1, 1], [2, 3]])
def test_matches_for_negative_pads(opset, widths, pads, strides):
    b = Builder(opset)
    x = b.input("n", C, "h", "w")
    y = b.conv(pad(b, x, widths), C, C, (3, 2), pads=pads, strides=strides)
    optimized(b.model(y), *SIZES)


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("strides", [[1, 1], [2, 2]])
def test_matches_for_negative_pads_of_static_size(size, strides):
    b = Builder()
    x = b.input("n", C, size, size)
    y = pad(b, x, (0, 0, -1, -2, 0, 0, -1, 1))
    y = b.op(
        "Add", b.conv(y, C, C, (1, 1), strides=strides), b.conv(y, C, C, (1, 1), strides=strides)
    )
    assert optimized(b.model(y), {"n": 2}).ops["Conv"] == 1


def test_matches_where_conv_is_cropped_and_padded_again():
    """Pad(-1) then pads=1 is not the identity: the rim is lost."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, (1, 1), bias=False)
    y = pad(b, y, (0, 0, -1, -1, 0, 0, -1, -1))
    y = b.op("Add", b.conv(y, C, C, (3, 3), pads=[1] * 4), b.conv(y, C, C, (1, 1), bias=False))
    optimized(b.model(y), *SIZES)


@pytest.mark.parametrize("value", [0.75, -2.5])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_matches_for_a_value(value, rank):
    b = Builder()
    x = b.input("n", C, *"abc"[:rank])
    y = pad(b, x, (0, 0, *[1] * rank, 0, 0, *[2] * rank), value)
    y = b.op("Sum", *(b.conv(y, C, C, (k,) * rank, dilations=[3 - k] * rank) for k in (2, 2)))
    folded = optimized(
        b.model(y), {"n": 2, "a": 4, "b": 3, "c": 5}, {"n": 1, "a": 1, "b": 2, "c": 1}
    )
    assert folded.ops["Conv"] == 1


def test_folds_value_that_is_the_layers_own():
    """Padding with b after x W + b is padding x with zero."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Add", b.conv(x, C, C, (1, 1), bias=False), b.constant(0.625))
    y = b.conv(pad(b, y, (0, 0, 1, 1, 0, 0, 1, 1), 0.625), C, C, (3, 3))
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


def test_refuses_value_that_is_not_the_layers_own():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, (1, 1))
    y = b.conv(pad(b, y, (0, 0, 1, 1, 0, 0, 1, 1), 0.625), C, C, (3, 3))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops["Conv"] == 2


def test_folds_channel_pad_shortcut():
    """ResNet option A: stride 2 and zero channels on the shortcut, beside a Conv."""
    b = Builder()
    x = b.input("n", C, 6, 6)
    short = cut(b, x, (2, 3), (0, 0), (MANY, MANY), (2, 2))
    short = pad(b, short, (0, 1, 0, 0, 0, 3, 0, 0), 0.5)
    y = b.op("Add", b.conv(x, C, 8, (3, 3), pads=[1] * 4, strides=[2, 2]), short)
    assert optimized(b.model(y), {"n": 2}).ops == {"Conv": 1}


def test_folds_channel_pad_shortcut_of_unknown_size():
    b = Builder()
    x = b.input("n", C, "h", "w")
    short = cut(b, x, (2, 3), (0, 0), (MANY, MANY), (2, 2))
    short = pad(b, short, (0, 2, 0, 0, 0, 2, 0, 0))
    y = b.op("Add", b.conv(x, C, 8, (3, 3), pads=[1] * 4, strides=[2, 2]), short)
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


@pytest.mark.parametrize("added", [(-1, 2), (1, -2), (-1, -1), (2, 1)])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_matches_for_channel_pads(added, value):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, (3, 3), pads=[1] * 4)
    y = pad(b, y, (0, added[0], 0, 0, 0, added[1], 0, 0), value)
    total = C + sum(added)
    assert optimized(b.model(b.batch_norm(y, total)), *SIZES).ops == {"Conv": 1}


def test_folds_pad_over_given_axes():
    b = Builder(18)
    x = b.input("n", C, "h", "w")
    y = b.op("Pad", x, b.constant([1, 2, 0, 1]), b.constant(0.0), b.constant([-1, 2]))
    assert optimized(b.model(b.conv(y, C, C, (3, 3))), *SIZES).ops == {"Conv": 1}


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_refuses_other_pad_modes(mode):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Pad", x, b.constant([0, 0, 1, 1] * 2), mode=mode)
    folded = optimized(b.model(b.conv(y, C, C, (3, 3))), *SIZES)
    assert folded.ops == {"Pad": 1, "Conv": 1}


def test_refuses_pad_of_the_batch():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = pad(b, b.conv(x, C, C, (1, 1)), (1, 0, 0, 0, 0, 0, 0, 0))
    folded = optimized(b.model(b.batch_norm(y, C)), *SIZES)
    assert folded.ops["Pad"] == 1


def test_refuses_pad_with_infinity():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = pad(b, x, (0, 0, 1, 1, 0, 0, 1, 1), -np.inf)
    y = b.op("MaxPool", y, kernel_shape=[3, 3])
    z = b.conv(pad(b, x, (0, 0, 1, 1, 0, 0, 1, 1), np.inf), C, C, (3, 3))
    folded = optimized(b.model(y, z), *SIZES)
    assert folded.ops == {"Pad": 2, "MaxPool": 1, "Conv": 1}


def test_refuses_pad_with_computed_value():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Pad", x, b.constant([0, 0, 1, 1] * 2), b.input(name="value"))
    model = b.model(b.conv(y, C, C, (3, 3)))
    values = np.random.default_rng(5).standard_normal((2, C, 5, 6)).astype(np.float32)
    folded = optimized(model, feeds=[{"x": values, "value": np.array(0.7, np.float32)}])
    assert folded.ops == {"Pad": 1, "Conv": 1}
    assert refusal(model, "Pad") == "its value is not constant"


@pytest.mark.parametrize("which", ["widths", "axes"])
def test_refuses_pad_with_computed_widths(which):
    b = Builder(18)
    x = b.input("n", C, "h", "w")
    given = {"widths": [1, 2, 0, 1], "axes": [2, 3]}
    names = {
        role: b.input(len(value), name=role, elem_type=TensorProto.INT64)
        if role == which
        else b.constant(value)
        for role, value in given.items()
    }
    y = b.op("Pad", x, names["widths"], b.constant(0.7), names["axes"], output="padded")
    y = b.conv(y, C, C, (3, 3), output="y")
    known = [helper.make_tensor_value_info("padded", TensorProto.FLOAT, ("n", C, "a", "b"))]
    known.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", C, "c", "d")))
    model = build(b.nodes, b.inputs, known[1:], b.initializers, known[:1], opset=18)
    values = np.random.default_rng(5).standard_normal((2, C, 5, 6)).astype(np.float32)
    folded = optimized(model, feeds=[{"x": values, which: np.array(given[which])}])
    assert folded.ops == {"Pad": 1, "Conv": 1}
    assert refusal(model, "Pad") == "its widths are not constant, or not two for each axis"


def test_refuses_pad_with_too_few_widths():
    b = Builder()
    y = b.op("Pad", b.input("n", C, "h", "w"), b.constant([0, 0, 1, 0, 0, 1]))
    model = b.model(b.conv(y, C, C, (3, 3)))
    left_alone(model)
    assert refusal(model, "Pad") == "its widths are not constant, or not two for each axis"


@pytest.mark.parametrize("value", [2345.0, -1e4])
def test_refuses_value_that_takes_digits(value):
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = pad(b, x, (0, 0, 1, 1, 0, 0, 1, 1), value)
    model = b.model(b.conv(y, C, C, (3, 3), bias=False))
    assert optimized(model, *SIZES).ops == {"Pad": 1, "Conv": 1}
    assert "would take digits from its input" in refusal(model, "Pad")
