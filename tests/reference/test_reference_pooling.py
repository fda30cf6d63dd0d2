"""Pooling against ONNX Runtime, averages up to the rounding of one division."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxfuse.reference import UnsupportedOperator, evaluate
from tests.reference.onnx_oracle import DIVISION, NEWEST_OF_ONNXRUNTIME, assert_agrees, integers

OPSETS = st.sampled_from([7, 9, 10, 11, 13, 18, 19, 22, NEWEST_OF_ONNXRUNTIME])
SAME = ("SAME_UPPER", "SAME_LOWER")


@st.composite
def pools(draw):
    """(node, inputs, opset)."""
    opset = draw(OPSETS)
    rank = draw(st.integers(1, 3))

    def each(low, high):
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel = each(1, 4 if rank < 3 else 3)
    attributes = {
        "kernel_shape": kernel,
        "strides": each(1, 3),
        "count_include_pad": draw(st.integers(0, 1)),
    }
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", *SAME]))
    dilations = [1] * rank
    if opset >= 10:
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    if opset >= 19 and auto_pad not in SAME:
        dilations = attributes["dilations"] = each(1, 2)
    if auto_pad == "NOTSET":  # ONNX Runtime wants pads smaller than the kernel
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    else:
        attributes["auto_pad"] = auto_pad
    if auto_pad in SAME:
        attributes["strides"] = [
            min(k, s) for k, s in zip(kernel, attributes["strides"], strict=True)
        ]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [span + extra for span, extra in zip(spans, each(0, 4), strict=True)]
    channels = draw(st.integers(1, 5))
    if draw(st.booleans()) and channels >= max(spans):
        sizes = [channels] * rank  # C == H == W
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = integers(rng, draw(st.integers(1, 2)), channels, *sizes)
    return helper.make_node("AveragePool", ["x"], ["y"], **attributes), {"x": x}, opset


@settings(max_examples=250, deadline=None)
@given(pools())
def test_average_pool(pool):
    node, inputs, opset = pool
    # a window that holds nothing but padding is 0 / 0
    assume(np.isfinite(evaluate([node], inputs, opset)["y"]).all())
    assert_agrees(node, inputs, opset, rtol=DIVISION)


@settings(max_examples=250, deadline=None)
@given(pools())
def test_max_pool(pool):
    average, inputs, opset = pool
    node = helper.make_node("MaxPool", ["x"], ["y"])
    node.attribute.extend(a for a in average.attribute if a.name != "count_include_pad")
    if opset < 10:
        assume(not any(a.name == "dilations" for a in node.attribute))
    assume(np.isfinite(evaluate([node], inputs, opset)["y"]).all())  # nothing but padding
    assert_agrees(node, inputs, opset)


def test_ceil_mode_drops_a_window_that_starts_in_the_padding():
    # ceil((4 + 2 - 2) / 3) + 1 = 3 windows, of which the third would start at pixel 5 = 4 + begin
    node = helper.make_node(
        "AveragePool", ["x"], ["y"], kernel_shape=[2], strides=[5], pads=[1, 1], ceil_mode=1
    )
    x = np.arange(1.0, 5.0).reshape(1, 1, 4)
    np.testing.assert_array_equal(evaluate([node], {"x": x}, 11)["y"], [[[1.0]]])


def test_ceil_mode_never_counts_what_lies_beyond_the_padding():
    node = helper.make_node(
        "AveragePool",
        ["x"],
        ["y"],
        kernel_shape=[3],
        strides=[2],
        pads=[1, 1],
        ceil_mode=1,
        count_include_pad=1,
    )
    x = np.array([[[3.0, 6.0, 9.0, 12.0]]])
    # [0 3 6] [6 9 12] [12 0 | beyond]
    np.testing.assert_array_equal(evaluate([node], {"x": x}, 11)["y"], [[[3.0, 9.0, 6.0]]])


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"dilations": [2]}, r"auto_pad with dilations \[2\]"),
        ({"strides": [3]}, r"auto_pad with kernel \[2\] and strides \[3\]"),
    ],
)
@pytest.mark.parametrize("auto_pad", SAME)
def test_refuses_same_where_onnxruntime_departs_from_the_specification(
    attributes, reason, auto_pad
):
    node = helper.make_node(
        "AveragePool", ["x"], ["y"], kernel_shape=[2], auto_pad=auto_pad, **attributes
    )
    with pytest.raises(UnsupportedOperator, match=reason):
        evaluate([node], {"x": np.ones((1, 1, 6))}, 22)


def test_refuses_negative_pads():
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2], pads=[0, -1])
    with pytest.raises(UnsupportedOperator, match="negative pads"):
        evaluate([node], {"x": np.ones((1, 1, 6))}, 22)


@pytest.mark.parametrize("sizes", [(5,), (3, 3), (2, 3, 4)])
@pytest.mark.parametrize("opset", [7, 22])
def test_global_average_pool(sizes, opset):
    x = integers(np.random.default_rng(0), 2, 3, *sizes)
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    assert_agrees(node, {"x": x}, opset, rtol=DIVISION)
