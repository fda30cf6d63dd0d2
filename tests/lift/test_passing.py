"""Identity and Dropout."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.lift.building import Builder
from tests.lift.comparing import optimized, refusal

C = 4
SIZES = ({"n": 1, "h": 6, "w": 6}, {"n": 2, "h": 7, "w": 9})


@pytest.mark.parametrize("opset", [7, 10, 12, 13, 22])
def test_folds_identity_and_dropout(opset):
    b = Builder(opset)
    x = b.input("n", C, "h", "w")
    y = b.op("Identity", b.conv(x, C, C, (3, 3)))
    y = b.batch_norm(b.op("Dropout", y), C)
    assert optimized(b.model(b.op("Identity", y, output="y")), *SIZES).ops == {"Conv": 1}


def test_keeps_names_of_outputs_behind_identities():
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = b.op("Relu", b.conv(x, C, C, (3, 3)), output="relu")
    outputs = ["relu", b.op("Identity", t, output="a"), b.op("Dropout", t, output="b")]
    folded = optimized(b.model(*outputs), *SIZES)
    assert folded.ops["Relu"] == 1


def test_keeps_identity_between_input_and_output():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Identity", x, output="y")
    folded = optimized(b.model(y, b.batch_norm(b.conv(x, C, C, (1, 1)), C, output="z")), *SIZES)
    assert folded.ops == {"Identity": 1, "Conv": 1}


def test_keeps_identity_of_a_weight_that_is_an_output():
    b = Builder()
    x = b.input("n", C, "h", "w")
    weight = b.random(C, C, 1, 1, name="weight")
    y = b.op("Relu", b.op("Conv", x, b.op("Identity", weight), output="t"), output="y")
    folded = optimized(b.model(y, b.op("Identity", weight, output="copy")), *SIZES)
    assert folded.ops["Conv"] == 1


@pytest.mark.parametrize("used", [True, False])
def test_refuses_dropout_in_training_mode(used):
    b = Builder(13)
    x = b.input("n", C, "h", "w")
    y = b.conv(x, C, C, (1, 1))
    flag = b.constant(np.asarray(True), elem_type=onnx.TensorProto.BOOL)
    ratio = b.constant(np.asarray(0.0))
    y = b.op("Dropout", y, ratio, flag, output="dropped")
    folded = optimized(b.model(b.batch_norm(y, C)), *SIZES)
    assert folded.ops["Dropout"] == 1
    assert "model.eval()" in folded.reasons


@pytest.mark.parametrize("opset", [10, 13])
def test_keeps_dropout_whose_mask_is_read(opset):
    b = Builder(opset)
    x = b.input("n", C, "h", "w")
    t = b.op("Relu", x)
    y, mask = b.ops("Dropout", t, outputs=["dropped", "mask"])
    y = b.op("Add", b.conv(y, C, C, (3, 3), pads=[1] * 4), y, output="y")
    model = b.model(y, mask, types={"mask": onnx.TensorProto.BOOL})
    folded = optimized(model, *SIZES)
    assert folded.ops["Dropout"] == 1
    assert folded.ops["Conv"] == 1


@pytest.mark.parametrize("opset", [10, 13])
def test_keeps_dropout_whose_mask_is_read_and_whose_value_goes_on(opset):
    b = Builder(opset)
    x = b.input("n", C, "h", "w")
    t = b.conv(x, C, C, (1, 1))
    y, mask = b.ops("Dropout", t, outputs=["dropped", "mask"])
    y = b.op("Add", b.op("Sigmoid", y), b.op("Relu", t), output="y")
    model = b.model(y, mask, types={"mask": onnx.TensorProto.BOOL})
    assert optimized(model, *SIZES).ops["Conv"] == 1


def test_refuses_dropout_whose_mode_is_computed():
    b = Builder(13)
    x = b.input("n", C, "h", "w")
    flag = b.input(name="training", elem_type=onnx.TensorProto.BOOL)
    y = b.op("Dropout", b.conv(x, C, C, (1, 1)), b.constant(np.asarray(0.0)), flag)
    values = np.random.default_rng(5).standard_normal((2, C, 5, 6)).astype(np.float32)
    feeds = [{"x": values, "training": np.array(mode)} for mode in (True, False)]
    folded = optimized(b.model(b.batch_norm(y, C)), feeds=feeds)
    assert folded.ops == {"Conv": 1, "Dropout": 1, "BatchNormalization": 1}
    assert "model.eval()" in folded.reasons


@pytest.mark.parametrize("which", ["ratio", "training"])
def test_refuses_dropout_whose_operand_a_caller_may_override(which):
    b = Builder(13)
    x = b.input("n", C, "h", "w")
    b.constant(np.asarray(0.4), "ratio")
    b.constant(np.asarray(False), "training", elem_type=onnx.TensorProto.BOOL)
    y = b.op("Dropout", b.conv(x, C, C, (1, 1)), "ratio", "training")
    model = b.model(b.batch_norm(y, C))
    kind = onnx.TensorProto.FLOAT if which == "ratio" else onnx.TensorProto.BOOL
    model.graph.input.append(onnx.helper.make_tensor_value_info(which, kind, ()))
    folded = optimized(model, *SIZES)
    assert folded.ops == {"Conv": 1, "Dropout": 1, "BatchNormalization": 1}


def test_folds_named_identity_into_what_it_passes_without_probing():
    b = Builder()
    x = b.input("n", C, "h", "w")
    y = b.op("Identity", b.conv(x, C, C, (3, 3)), output="named")
    folded = optimized(b.model(b.op("Relu", y)), *SIZES, keep=["named"])
    assert folded.ops == {"Conv": 1, "Relu": 1}
    assert not any(fold.certificate.stretches for fold in folded.report.folds)


def test_refuses_dropout_whose_ratio_is_computed():
    b = Builder(13)
    x = b.input("n", C, "h", "w")
    y = b.op("Dropout", b.conv(x, C, C, (1, 1)), b.input(name="ratio"))
    model = b.model(b.batch_norm(y, C))
    values = np.random.default_rng(5).standard_normal((2, C, 5, 6)).astype(np.float32)
    folded = optimized(model, feeds=[{"x": values, "ratio": np.array(0.4, np.float32)}])
    assert folded.ops == {"Conv": 1, "Dropout": 1, "BatchNormalization": 1}
    assert refusal(model, "Dropout") == "its ratio is not constant"
