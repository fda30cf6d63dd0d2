"""Conv and ConvTranspose against ONNX Runtime: exact, on small integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxfuse.reference import UnsupportedOperator, evaluate
from tests.reference.onnx_oracle import NEWEST_OF_ONNXRUNTIME, assert_agrees, integers

OPSETS = st.sampled_from([7, 9, 10, 11, 13, 18, 22, NEWEST_OF_ONNXRUNTIME])
SAME = ("SAME_UPPER", "SAME_LOWER")


@st.composite
def geometries(draw, min_stride=1):
    """Attributes of a window and an input size for it: (kernel, sizes, attributes)."""
    rank = draw(st.integers(1, 3))

    def each(low, high):
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel = each(1, 4 if rank < 3 else 3)
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", *SAME]))
    attributes = {"strides": each(min_stride, 3)}
    if auto_pad not in SAME:  # ONNX Runtime refuses SAME with dilations
        attributes["dilations"] = each(1, 3)
    if auto_pad == "NOTSET":
        attributes["pads"] = each(0, 3) + each(0, 3)
    else:
        attributes["auto_pad"] = auto_pad
    spans = [
        (k - 1) * d + 1 for k, d in zip(kernel, attributes.get("dilations", [1] * 3), strict=False)
    ]
    sizes = [span + extra for span, extra in zip(spans, each(0, 4), strict=True)]
    for name in ("strides", "dilations", "pads"):  # absent means the default
        if name in attributes and len(set(attributes[name])) == 1 and draw(st.booleans()):
            del attributes[name]
    return kernel, sizes, attributes


@st.composite
def convolutions(draw):
    kernel, sizes, attributes = draw(geometries())
    groups = draw(st.integers(1, 4))
    per_group_in, per_group_out = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels = groups * per_group_in
    if draw(st.booleans()) and channels >= max(kernel) and "dilations" not in attributes:
        sizes = [channels] * len(sizes)  # C == H == W
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    inputs = {
        "x": integers(rng, draw(st.integers(1, 2)), channels, *sizes),
        "w": integers(rng, groups * per_group_out, per_group_in, *kernel),
        "b": integers(rng, groups * per_group_out),
    }
    if draw(st.booleans()):
        del inputs["b"]
    if draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    return helper.make_node("Conv", list(inputs), ["y"], group=groups, **attributes), inputs


@settings(max_examples=150, deadline=None)
@given(convolutions(), OPSETS)
def test_conv(convolution, opset):
    node, inputs = convolution
    assert_agrees(node, inputs, opset)


@pytest.mark.parametrize(
    "kernel", [(64,), (65,), (8, 8), (31, 3), (9, 8), (4, 4, 4)], ids=lambda kernel: f"{kernel}"
)
@pytest.mark.parametrize("multiplier", [1, 2])
def test_large_depthwise_kernel(kernel, multiplier):
    rng = np.random.default_rng(0)
    inputs = {
        "x": integers(rng, 2, 3, *[k + i for i, k in enumerate(kernel)]),
        "w": integers(rng, 3 * multiplier, 1, *kernel),
        "b": integers(rng, 3 * multiplier),
    }
    pads = [k // 2 for k in kernel] + [(k - 1) // 2 for k in kernel]
    strides = [2, 1, 1][: len(kernel)]
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=3, pads=pads, strides=strides)
    assert_agrees(node, inputs, 13)


@pytest.mark.parametrize("auto_pad", SAME)
@pytest.mark.parametrize("size", [6, 7])
def test_conv_same_with_dilations_keeps_the_size(auto_pad, size):
    # ONNX Runtime refuses this; the specification's output size decides
    rng = np.random.default_rng(0)
    x, w = integers(rng, 1, 2, size), integers(rng, 3, 2, 4)
    same = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=auto_pad, dilations=[3])
    total = 9  # the span of 4 taps, dilation 3, less one
    begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
    pads = [begin, total - begin]
    explicit = helper.make_node("Conv", ["x", "w"], ["y"], pads=pads, dilations=[3])
    values = {"x": x, "w": w}
    y = evaluate([same], values, 13)["y"]
    assert y.shape == (1, 3, size)
    np.testing.assert_array_equal(y, evaluate([explicit], values, 13)["y"])


def test_conv_of_a_weight_that_is_not_contiguous():
    rng = np.random.default_rng(0)
    x, w = integers(rng, 1, 4, 5, 5), integers(rng, 3, 3, 4, 6)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    strided = {"x": x, "w": w.T[:, ::1].astype(np.float64)}
    packed = {"x": x, "w": np.ascontiguousarray(w.T)}
    actual = evaluate([node], strided, 13)["y"]
    np.testing.assert_array_equal(actual, evaluate([node], packed, 13)["y"])


def test_conv_rejects_channels_that_do_not_fit():
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4)
    values = {"x": np.ones((1, 1, 3)), "w": np.ones((4, 1, 1))}
    with pytest.raises(ValueError, match="x has 1 channels"):
        evaluate([node], values, 13)


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_refuses_negative_pads(op_type):
    node = helper.make_node(op_type, ["x", "w"], ["y"], pads=[-1, 0], name="crop")
    values = {"x": np.ones((1, 1, 5)), "w": np.ones((1, 1, 3))}
    with pytest.raises(UnsupportedOperator, match=r"'crop': negative pads \[-1, 0\]"):
        evaluate([node], values, 13)


@st.composite
def transposed_convolutions(draw):
    kernel, sizes, attributes = draw(geometries())
    rank = len(kernel)
    sizes = [min(size, 5) for size in sizes]
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    full = [(n - 1) * s + e for n, s, e in zip(sizes, strides, spans, strict=True)]
    if "pads" in attributes:  # an output of at least one pixel
        room = [min(f - 1, 6) for f in full]
        begins = [min(p, r) for p, r in zip(attributes["pads"][:rank], room, strict=True)]
        ends = [
            min(p, r - b) for p, r, b in zip(attributes["pads"][rank:], room, begins, strict=True)
        ]
        attributes["pads"] = begins + ends
    same = attributes.get("auto_pad") in SAME
    padding = [draw(st.integers(0, s - 1)) for s in strides]  # ONNX Runtime wants less than stride
    if same:  # ONNX Runtime and the specification part where SAME would have to add pixels
        padding = [max(p, s - e, 0) for p, s, e in zip(padding, strides, spans, strict=True)]
    if any(padding):
        attributes["output_padding"] = padding
    if draw(st.integers(0, 3)) == 0:
        attributes.pop("pads", None)
        attributes["output_shape"] = [
            draw(st.integers(max(1, f + p - 3), f + p)) for f, p in zip(full, padding, strict=True)
        ]
    groups = draw(st.integers(1, 4))
    per_group_in, per_group_out = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    inputs = {
        "x": integers(rng, draw(st.integers(1, 2)), groups * per_group_in, *sizes),
        "w": integers(rng, groups * per_group_in, per_group_out, *kernel),
        "b": integers(rng, groups * per_group_out),
    }
    if draw(st.booleans()):
        del inputs["b"]
    return helper.make_node(
        "ConvTranspose", list(inputs), ["y"], group=groups, **attributes
    ), inputs


@settings(max_examples=150, deadline=None)
@given(transposed_convolutions(), OPSETS)
def test_conv_transpose(convolution, opset):
    node, inputs = convolution
    assert_agrees(node, inputs, opset)


def test_conv_transpose_to_an_output_larger_than_natural():
    # ONNX's own example: output_shape adds zeros at the end, and the bias reaches them
    rng = np.random.default_rng(0)
    inputs = {"x": integers(rng, 1, 1, 3, 3), "w": integers(rng, 1, 2, 3, 3), "b": integers(rng, 2)}
    node = helper.make_node(
        "ConvTranspose", list(inputs), ["y"], strides=[3, 2], output_shape=[10, 8]
    )
    assert_agrees(node, inputs, 11)


def test_refuses_conv_transpose_same_where_pixels_would_be_added():
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2])
    with pytest.raises(UnsupportedOperator, match=r"auto_pad to \[6\] from \[5\]"):
        evaluate([node], {"x": np.ones((1, 1, 3)), "w": np.ones((1, 1, 1))}, 11)
