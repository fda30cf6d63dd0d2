"""Inputs and dynamic axes as they are written on the command line."""

import pytest
import torch

from onnxfuse import ModelError
from onnxfuse.exporter.inputs import (
    InputSpec,
    dynamic_axes,
    example,
    parse_dynamic,
    parse_input,
)
from onnxfuse.exporter.sizes import extents, for_tracing, other_sizes, resized

IMAGE, TOKENS, VOLUME = (
    torch.zeros(1, 3, 8, 6),
    torch.zeros(1, 5).long(),
    torch.zeros(2, 1, 4, 5, 6),
)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1x3x224x224", InputSpec((1, 3, 224, 224))),
        ("7", InputSpec((7,))),
        ("1x16:int64", InputSpec((1, 16), "int64")),
        ("mask=1x16:bool", InputSpec((1, 16), "bool", "mask")),
        ("images.0=0x3", InputSpec((0, 3), "float32", "images.0")),
    ],
)
def test_an_input(text, spec):
    assert parse_input(text) == spec


@pytest.mark.parametrize("text", ["", "1x", "x3", "1,3,8", "1x3:", "=1x3", "1x-3", "axbxc", "1X3"])
def test_refuses_an_input_written_otherwise(text):
    with pytest.raises(ModelError, match=r"is not written as \[NAME=\]SHAPE"):
        parse_input(text)


def test_refuses_an_unknown_element_type():
    with pytest.raises(ModelError, match="no element type 'float8'"):
        parse_input("1x3:float8")


def test_examples_have_the_types_asked_for_and_suit_an_index():
    specs = [InputSpec((2, 3), kind) for kind in ("float16", "float64", "int32", "bool", "uint8")]
    tensors = example(specs, seed=3)
    assert [str(t.dtype) for t in tensors] == [f"torch.{spec.dtype}" for spec in specs]
    assert all(t.shape == (2, 3) for t in tensors)
    for tensor in tensors[2:]:
        assert set(tensor.flatten().tolist()) <= {0, 1}
    again, other = example(specs, seed=3), example(specs, seed=4)
    assert all(map(torch.equal, tensors, again))
    assert not torch.equal(tensors[1], other[1])


def test_dynamic_axes_by_name():
    assert parse_dynamic(["batch,height", "width"]) == ["batch", "height", "width"]
    named = dynamic_axes(["batch", "height", "width"], ["x", "y"], [IMAGE, TOKENS])
    assert named == ({0: "batch", 2: "height", 3: "width"}, {0: "batch"})
    assert dynamic_axes(["depth"], ["v"], [VOLUME]) == ({2: "depth"},)
    assert dynamic_axes(["length"], ["s"], [torch.zeros(1, 2, 9)]) == ({2: "length"},)
    assert dynamic_axes("batch", ["x"], [IMAGE]) == ({0: "batch"},)
    assert dynamic_axes([], ["x"], [IMAGE]) == ({},)


def test_dynamic_axes_by_input():
    parsed = parse_dynamic(["x=0:n,-1:columns", "y=1:tokens"])
    assert parsed == {"x": {0: "n", -1: "columns"}, "y": {1: "tokens"}}
    named = dynamic_axes(parsed, ["x", "y"], [IMAGE, TOKENS])
    assert named == ({0: "n", 3: "columns"}, {1: "tokens"})


@pytest.mark.parametrize(
    ("dynamic", "said"),
    [
        (["rows"], "no axis is named 'rows'"),
        (["depth"], "no input has an axis 'depth': the inputs are 1x3x8x6, 1x5"),
        ({"z": {0: "n"}}, "no input is named 'z'; there are x, y"),
        ({"y": {2: "n"}}, "input 'y' has no axis 2: it is 1x5"),
        ({"x": {2: "n", 3: "n"}}, "'n' is 8 in one input and 6 in another"),
    ],
)
def test_refuses_axes_that_are_not_there(dynamic, said):
    with pytest.raises(ModelError, match=said):
        dynamic_axes(dynamic, ["x", "y"], [IMAGE, TOKENS])


@pytest.mark.parametrize("texts", [["x=0"], ["x=a:n"], ["x=0:n,batch"], ["x="]])
def test_refuses_axes_written_otherwise(texts):
    with pytest.raises(ModelError, match="not written as INPUT=AXIS:NAME"):
        parse_dynamic(texts)


def test_refuses_both_ways_at_once():
    with pytest.raises(ModelError, match="not in both ways"):
        parse_dynamic(["batch", "x=2:rows"])


def test_short_axes_are_traced_as_two():
    axes = dynamic_axes(["batch", "height"], ["x"], [IMAGE])
    (traced,) = for_tracing(axes, [IMAGE])
    assert traced.shape == (2, 3, 8, 6)
    longer = torch.ones(4, 3, 8, 6)
    assert for_tracing(axes, [longer])[0] is longer


def test_each_dynamic_axis_gets_another_extent():
    axes = dynamic_axes(["batch", "height", "width"], ["x", "y"], [IMAGE, TOKENS])
    assert extents(axes, [IMAGE, TOKENS]) == {"batch": 1, "height": 8, "width": 6}
    changes = other_sizes(axes, [IMAGE, TOKENS])
    assert changes == [{"batch": 2}, {"height": 16}, {"width": 12}]
    image, tokens = resized(axes, [IMAGE, TOKENS], {"batch": 2})
    assert (image.shape, tokens.shape) == ((2, 3, 8, 6), (2, 5))
    image, tokens = resized(axes, [IMAGE, TOKENS], {"width": 12})
    assert image.shape == (1, 3, 8, 12)
    assert tokens is TOKENS
