"""Scales and shifts between layers become layers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import onnxfuse
from tests.lift.building import Builder, same
from tests.lift.comparing import optimized
from tests.rewrites.checking import refused

SIZES = ({"n": 1, "h": 5, "w": 6}, {"n": 2, "h": 3, "w": 4})
C = 16
PADS = same((3, 3))


def layer(b: Builder, x: str, channels: int = C) -> str:
    return b.op("HardSwish", b.conv(x, channels, channels))


def padded(b: Builder, x: str, channels: int = C, **settings) -> str:
    return b.op("Relu", b.conv(x, channels, channels, pads=PADS, group=channels, **settings))


def shift(b: Builder, channels: int = C) -> str:
    return b.random(channels, 1, 1)


@pytest.mark.parametrize("opset", [14, 18, 22])
def test_a_shift_in_front_of_padding(opset):
    b = Builder(opset)
    y = b.op("Add", layer(b, b.input("n", C, "h", "w")), b.constant(0.3))
    folded = optimized(b.model(padded(b, y)), {"n": 1, "h": 7, "w": 8}, {"n": 2, "h": 4, "w": 3})
    assert folded.ops == {"Conv": 3, "HardSwish": 1, "Relu": 1}
    (fold,) = folded.report.folds
    assert (fold.step, fold.nodes, fold.replaced[0][1]) == ("shifts", ("Conv",), "Add")
    assert fold.formula == "y = scale * x + shift, as a depthwise Conv of 16 channels"
    assert fold.certificate.error < 1e-15


def test_a_shift_by_channel_behind_the_shift():
    b = Builder()
    y = b.op("Sub", shift(b), layer(b, b.input("n", C, "h", "w")))
    y = b.op("MaxPool", y, kernel_shape=[1, 1])
    folded = optimized(b.model(y), {"n": 1, "h": 7, "w": 8}, {"n": 2, "h": 4, "w": 3})
    assert folded.ops == {"Conv": 2, "HardSwish": 1, "MaxPool": 1}


def test_an_activation_in_two_steps():
    b = Builder()
    x = b.conv(b.input("n", C, "h", "w"), C, C)
    y = b.op("Add", b.op("Mul", x, b.op("Sigmoid", x)), shift(b))
    folded = optimized(b.model(padded(b, y)), {"n": 1, "h": 7, "w": 8})
    assert folded.ops == {"Conv": 3, "Sigmoid": 1, "Mul": 1, "Relu": 1}


def test_a_second_time_nothing_changes():
    b = Builder()
    y = b.op("Add", layer(b, b.input("n", C, "h", "w")), b.constant(0.3))
    once = onnxfuse.optimize(b.model(padded(b, y)))
    assert not onnxfuse.optimize(once.model).report.folds


def test_a_layer_behind_that_takes_the_shift():
    b = Builder()
    y = b.op("Add", layer(b, b.input("n", C, "h", "w")), b.constant(0.3))
    folded = optimized(b.model(b.op("Relu", b.conv(y, C, C, (1, 1)))), {"n": 1, "h": 7, "w": 8})
    assert folded.ops == {"Conv": 2, "HardSwish": 1, "Relu": 1}
    assert {fold.step for fold in folded.report.folds} == {"folds"}


@pytest.mark.parametrize("skip", ["shifts", "Add"])
def test_what_is_to_be_left_out(skip):
    b = Builder()
    y = b.op("Add", layer(b, b.input("n", C, "h", "w")), b.constant(0.3))
    refused(b, padded(b, y), skip=[skip])


def test_channels_that_fill_no_blocks():
    b = Builder()
    y = b.op("Add", layer(b, b.input("n", 24, "h", "w"), 24), b.constant(0.3))
    refused(b, padded(b, y, 24))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_types(kind):
    b = Builder(elem_type=kind)
    y = b.op("Add", layer(b, b.input("n", C, "h", "w")), b.constant(0.3))
    refused(b, padded(b, y))


def test_images_of_one_dimension():
    b = Builder()
    y = b.op("HardSwish", b.conv(b.input("n", C, "w"), C, C, (3,)))
    y = b.conv(b.op("Add", y, b.constant(0.3)), C, C, (3,), pads=[1, 1], group=C)
    refused(b, b.op("Relu", y))


def test_along_the_width():
    b = Builder()
    y = b.op("Add", layer(b, b.input("n", C, 18, 18)), b.random(16))
    refused(b, padded(b, y))


def test_what_is_read_is_no_layers():
    b = Builder()
    refused(b, padded(b, b.op("Add", b.op("Relu", b.input("n", C, "h", "w")), b.constant(0.3))))
    b = Builder()
    y = b.op("Transpose", layer(b, b.input("n", C, "h", C + 2)), perm=[0, 3, 2, 1])
    refused(b, padded(b, b.op("Add", b.op("Relu", y), b.constant(0.3))))


def test_one_of_two_is_no_layers():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Mul", layer(b, b.op("MaxPool", x, kernel_shape=[1, 1], pads=PADS)), b.op("Sin", x))
    refused(b, padded(b, b.op("Add", y, b.constant(0.3))))


@pytest.mark.parametrize("other", ["Sin", "output", "keep"])
def test_others_read_it(other):
    b = Builder()
    y = b.op("Add", layer(b, b.input("n", C, "h", "w")), b.constant(0.3), output="shifted")
    outputs = [padded(b, y)]
    if other != "keep":
        outputs.append(y if other == "output" else b.op("Sin", y))
    options = {"keep": ["shifted"]} if other == "keep" else {}
    report = onnxfuse.optimize(b.model(*outputs), **options).report
    assert not [fold for fold in report.folds if fold.step == "shifts"]


def test_it_is_computed_from_two_tensors():
    b = Builder()
    x = b.input("n", C, "h", "w")
    first, second = layer(b, x), layer(b, x)
    refused(b, padded(b, b.op("Add", first, second)))


def test_weights_may_be_given():
    b = Builder()
    y = b.op("Add", layer(b, b.input("n", C, "h", "w")), b.constant(0.3, "given"))
    model = b.model(padded(b, y))
    info = helper.make_tensor_value_info("given", TensorProto.FLOAT, [])
    model.graph.input.append(info)
    assert not onnxfuse.optimize(model).report.folds


def test_long_ways_to_a_layer():
    for length, made in ((5, True), (14, False)):
        b = Builder()
        y = layer(b, b.input("n", C, "h", "w"))
        for op_type in (["Sigmoid", "Tanh"] * 7)[:length]:
            y = b.op(op_type, y)
        model = b.model(padded(b, b.op("Add", y, b.constant(np.float32(0.3)))))
        steps = [fold.step for fold in onnxfuse.optimize(model).report.folds]
        assert (steps == ["shifts"]) == made
