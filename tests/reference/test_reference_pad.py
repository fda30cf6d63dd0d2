"""Pad in every mode against ONNX Runtime: always exact."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxfuse.reference import UnsupportedOperator, evaluate
from tests.reference.onnx_oracle import NEWEST_OF_ONNXRUNTIME, assert_agrees
from tests.reference.strategies import axes_of, int64, tensors

OPSETS = st.sampled_from([7, 9, 10, 11, 13, 18, 21, NEWEST_OF_ONNXRUNTIME])


@settings(max_examples=60, deadline=None)
@given(st.data(), tensors(), OPSETS)
def test_pad(data, x, opset):
    assume(opset >= 11 or x.dtype == np.float32)
    axes = list(range(x.ndim))
    with_axes = opset >= 18 and data.draw(st.booleans())
    if with_axes:
        axes = data.draw(st.lists(axes_of(x), min_size=1, unique=True))
    begins = [data.draw(st.integers(-x.shape[a] + 1, 3)) for a in axes]
    ends = [
        data.draw(st.integers(1 - x.shape[a] - min(b, 0), 3))
        for a, b in zip(axes, begins, strict=True)
    ]
    if opset < 11:
        attributes = {"pads": begins + ends}
        if data.draw(st.booleans()):
            attributes["value"] = 2.5
        node = helper.make_node("Pad", ["x"], ["y"], **attributes)
        assert_agrees(node, {"x": x}, opset)
        return
    inputs = {"x": x, "pads": int64(begins + ends)}
    if data.draw(st.booleans()):
        inputs["value"] = np.array(3, x.dtype)
    names = list(inputs)
    if with_axes:
        signed = [axis - x.ndim * data.draw(st.integers(0, 1)) for axis in axes]
        inputs["axes"] = int64(signed)
        names = ["x", "pads", "value" if "value" in inputs else "", "axes"]
    assert_agrees(helper.make_node("Pad", names, ["y"], mode="constant"), inputs, opset)


def test_pad_that_crops_more_than_it_pads():
    x = np.arange(1.0, 7.0)
    node = helper.make_node("Pad", ["x", "pads"], ["y"])
    y = evaluate([node], {"x": x, "pads": int64([-2, 3])}, 13)["y"]
    np.testing.assert_array_equal(y, [3, 4, 5, 6, 0, 0, 0])
    y = evaluate([node], {"x": x, "pads": int64([2, -3])}, 13)["y"]
    np.testing.assert_array_equal(y, [0, 0, 1, 2, 3])
    y = evaluate([node], {"x": x, "pads": int64([-8, 4])}, 13)["y"]
    np.testing.assert_array_equal(y, [0, 0])


@st.composite
def own_pads(draw, mode, size):
    """What mode may add around an axis, with what it may crop from it as negative numbers."""
    begin = draw(st.integers(1 - size, size - 1 if mode == "reflect" else 2 * size))
    kept = size + min(begin, 0)
    low, high = {
        "edge": (1 - kept, 2 * size),
        "reflect": (1 - kept + max(begin, 0), kept - 1),
        "wrap": (1 - kept if begin <= 0 else 0, 2 * size if begin >= 0 else 0),
    }[mode]
    return begin, draw(st.integers(low, high))


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["reflect", "edge", "wrap"]), tensors(), OPSETS)
def test_pad_with_itself(data, mode, x, opset):
    opset = max(opset, 19) if mode == "wrap" else opset
    assume(opset >= 11 or x.dtype == np.float32)
    pairs = [data.draw(own_pads(mode, size)) for size in x.shape]
    pads = [begin for begin, _ in pairs] + [end for _, end in pairs]
    if opset < 11:
        node = helper.make_node("Pad", ["x"], ["y"], mode=mode, pads=pads)
        assert_agrees(node, {"x": x}, opset)
        return
    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    assert_agrees(node, {"x": x, "pads": int64(pads)}, opset)


def test_pad_with_itself_on_some_axes():
    x = np.arange(6.0).reshape(1, 2, 3)
    node = helper.make_node("Pad", ["x", "pads", "", "axes"], ["y"], mode="reflect")
    values = {"x": x, "pads": int64([2, 1, 1, 0]), "axes": int64([-1, 1])}
    y = evaluate([node], values, 18)["y"]
    np.testing.assert_array_equal(y, [[[5, 4, 3, 4, 5, 4], [2, 1, 0, 1, 2, 1], [5, 4, 3, 4, 5, 4]]])


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32])
def test_pad_with_itself_keeps_the_type(dtype):
    x = np.array([0, 1], dtype)
    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode="edge")
    y = evaluate([node], {"x": x, "pads": int64([1, 2])}, 13)["y"]
    np.testing.assert_array_equal(y, np.array([0, 0, 1, 1, 1], dtype), strict=True)


@pytest.mark.parametrize(
    ("mode", "size", "begin", "end"),
    [
        ("reflect", 4, 4, 0),
        ("reflect", 1, 0, 1),
        ("reflect", 4, -1, 3),  # three are left
        ("wrap", 4, -1, 2),  # the torus of x, or of what is left of it
        ("edge", 4, -4, 1),  # nothing is left
        ("wrap", 0, 1, 1),
        ("edge", 0, 1, 0),
        ("reflect", 2, -3, -3),
        ("mirror", 4, 1, 1),
    ],
)
def test_refuses_to_pad_with_itself(mode, size, begin, end):
    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    values = {"x": np.ones(size), "pads": int64([begin, end])}
    reason = f"mode '{mode}' with pads {begin} and {end} around {size} elements"
    with pytest.raises(UnsupportedOperator, match=reason):
        evaluate([node], values, 19)
