"""Resize and Upsample by whole factors against ONNX Runtime: always exact."""

import itertools

import numpy as np
import pytest
from onnx import helper

from onnxfuse.reference import UnsupportedOperator, evaluate
from onnxfuse.reference.limits import MOST_ELEMENTS
from tests.reference.onnx_oracle import assert_agrees, integers
from tests.reference.strategies import int64

FACTORS = [(2, 2), (1, 3), (4, 2), (6, 5)]
WAYS = ["half_pixel", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn"]
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
NEWEST = 24  # the newest Resize that ONNX Runtime has


def floats(*values):
    return np.array(values, np.float32)


def image(*shape):
    return integers(np.random.default_rng(3), *shape)


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 1, 1, 1)])
def test_upsample(shape, factors):
    x, scales = image(*shape), floats(1, 1, *factors)
    assert_agrees(helper.make_node("Upsample", ["x"], ["y"], scales=scales.tolist()), {"x": x}, 7)
    node = helper.make_node("Upsample", ["x", "s"], ["y"], mode="nearest")
    assert_agrees(node, {"x": x, "s": scales}, 9)


@pytest.mark.parametrize("factors", FACTORS)
def test_resize_of_opset_10(factors):
    node = helper.make_node("Resize", ["x", "s"], ["y"])
    assert_agrees(node, {"x": image(1, 2, 3, 4), "s": floats(1, 1, *factors)}, 10)


@pytest.mark.parametrize(("way", "rounding"), list(itertools.product(WAYS, ROUNDINGS)))
@pytest.mark.parametrize("opset", [11, 13, 18, 19, NEWEST])
def test_resize_by_scales(opset, way, rounding):
    if way.startswith("tf_") and opset > 11:
        pytest.skip("opset 11 alone has it")
    inputs = {"x": image(2, 2, 3, 5), "roi": floats(), "s": floats(1, 1, 4, 3)}
    settings = {"coordinate_transformation_mode": way, "nearest_mode": rounding}
    assert_agrees(helper.make_node("Resize", list(inputs), ["y"], **settings), inputs, opset)


def test_resize_is_centred_and_prefers_the_floor():
    node = helper.make_node("Resize", ["x", "", "s"], ["y"])
    assert_agrees(node, {"x": image(1, 1, 3, 3), "s": floats(1, 1, 2, 4)}, 13)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_resize_centred_at_both_ends(rounding):
    settings = {
        "coordinate_transformation_mode": "half_pixel_symmetric",
        "nearest_mode": rounding,
        "keep_aspect_ratio_policy": "stretch",
        "antialias": 0,
    }
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], **settings)
    assert_agrees(node, {"x": image(1, 2, 3, 4), "s": floats(1, 1, 3, 2)}, 19)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_resize_to_sizes(opset):
    inputs = {"x": image(1, 2, 3, 4), "roi": floats(), "s": floats(), "to": int64([1, 2, 6, 12])}
    settings = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if opset > 11:
        del inputs["roi"], inputs["s"]
    names = [name if name in inputs else "" for name in ("x", "roi", "s", "to")]
    assert_agrees(helper.make_node("Resize", names, ["y"], **settings), inputs, opset)


def test_nothing_is_made_of_nothing():
    node = helper.make_node("Resize", ["x", "", "s"], ["y"])
    made = evaluate([node], {"x": np.zeros((1, 2, 0, 3)), "s": floats(1, 1, 2, 2)}, 13)["y"]
    assert made.shape == (1, 2, 0, 6)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mode": "linear"}, "mode 'linear'"),
        ({"antialias": 1}, "antialias 1"),
        ({"axes": [2, 3]}, "axes"),
        ({"keep_aspect_ratio_policy": "not_larger"}, "'not_larger'"),
        ({"coordinate_transformation_mode": "align_corners"}, "'align_corners'"),
    ],
)
def test_refuses_what_hangs_on_rounding(settings, reason):
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], **settings)
    with pytest.raises(UnsupportedOperator, match=reason):
        evaluate([node], {"x": image(1, 1, 2, 2), "s": floats(1, 1, 2, 2)}, 18)


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0000002])
def test_refuses_factors_that_are_not_whole(scale):
    node = helper.make_node("Resize", ["x", "", "s"], ["y"])
    with pytest.raises(UnsupportedOperator, match="not by whole factors"):
        evaluate([node], {"x": image(1, 1, 4, 4), "s": floats(1, 1, 2, scale)}, 13)


def test_refuses_neither_scales_nor_sizes():
    node = helper.make_node("Resize", ["x"], ["y"])
    with pytest.raises(UnsupportedOperator, match="neither scales nor sizes"):
        evaluate([node], {"x": image(1, 1, 4, 4)}, 13)


def test_rejects_scales_of_another_length():
    node = helper.make_node("Resize", ["x", "", "s"], ["y"])
    with pytest.raises(ValueError, match="x has 4 axes, but there are 2 scales"):
        evaluate([node], {"x": image(1, 1, 4, 4), "s": floats(2, 2)}, 13)


@pytest.mark.parametrize(("op", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_refuses_more_elements_than_any(op, opset):
    node = helper.make_node(op, ["x", "s"], ["y"])
    with pytest.raises(UnsupportedOperator, match="more than"):
        evaluate([node], {"x": image(1, 1, 2, 2), "s": floats(1, 1, 1, MOST_ELEMENTS)}, opset)
