"""Weights and tensors with several readers, graph outputs, and the options."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import assert_agrees, feeds_for, optimized, run

C = 4
SIZES = ({"n": 1, "h": 4, "w": 4}, {"n": 2, "h": 5, "w": 7})
PADS = [1, 1, 1, 1]


def test_folds_norm_behind_one_of_two_convs_that_share_weight_and_bias():
    b = Builder()
    x = b.input("n", C, "h", "w")
    weight, bias = b.random(C, C, 3, 3, name="weight"), b.random(C, name="bias")
    first = b.op("Relu", b.batch_norm(b.op("Conv", x, weight, bias, pads=PADS), C))
    second = b.op("Conv", first, weight, bias, pads=PADS)
    folded = optimized(b.model(second), *SIZES)
    assert folded.ops == {"Conv": 2, "Relu": 1}
    assert {"weight", "bias"} <= {t.name for t in folded.model.graph.initializer}


def test_folds_shared_norm_statistics():
    b = Builder()
    x = b.input("n", C, "h", "w")
    names = [b.random(C), b.random(C), b.random(C), b.positive(C)]
    y = b.op("BatchNormalization", b.conv(x, C, C), *names)
    y = b.op("BatchNormalization", b.conv(b.op("Relu", y), C, C, (1, 1)), *names)
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 2, "Relu": 1}


def test_keeps_weight_that_is_an_output():
    b = Builder()
    x = b.input("n", C, "h", "w")
    weight = b.random(C, C, 3, 3, name="weight")
    y = b.batch_norm(b.op("Conv", x, weight), C)
    folded = optimized(b.model(y, weight), *SIZES)
    assert folded.ops == {"Conv": 1}


@pytest.mark.parametrize("shared", ["bias", "scale", "variance"])
def test_keeps_vector_that_is_an_output_and_that_two_paths_read(shared):
    """Of two Convs with one bias one has a norm behind it, of two norms one has a Conv before."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    bias, scale = b.random(C, name="bias"), b.random(C, name="scale")
    variance = b.constant(b.rng.uniform(0.3, 1.7, C), "variance")
    y = b.op("Conv", x, b.random(C, C, 3, 3), bias, pads=PADS)
    y = b.op("BatchNormalization", y, scale, b.random(C), b.random(C), variance)
    z = b.op("Conv", b.op("Relu", y), b.random(C, C, 3, 3), bias, pads=PADS)
    z = b.op("Relu", z)
    z = b.op("BatchNormalization", z, scale, b.random(C), b.random(C), variance)
    folded = optimized(b.model(z, shared), *SIZES)
    assert folded.ops == {"Conv": 2, "Relu": 2, "BatchNormalization": 1}
    assert {"bias", "scale", "variance"} <= {t.name for t in folded.model.graph.initializer}


@pytest.mark.parametrize("op", ["Mul", "Add", "Gemm", "MatMul", "Pad"])
def test_keeps_operand_that_a_caller_may_override(op):
    b = Builder()
    images = op in ("Mul", "Add", "Pad")
    shape = {"Mul": (C, 1, 1), "Add": (C, 1, 1), "Pad": ()}.get(op, (C, C))
    x = b.input("n", C, *(("h", "w") if images else ()))
    y = b.conv(x, C, C) if images else b.op("Gemm", x, b.random(C, C), b.random(C))
    widths = [b.constant([0, 0, 1, 1] * 2)] if op == "Pad" else []
    y = b.op(op, y, *widths, b.random(*shape, name="given"))
    y = b.batch_norm(b.conv(y, C, C) if images else y, C)
    model = b.model(y)
    model.graph.input.append(helper.make_tensor_value_info("given", TensorProto.FLOAT, shape))
    other = np.asarray(b.values(*shape), np.float32)
    sizes = ({"n": 1, "h": 6, "w": 6}, {"n": 2, "h": 5, "w": 7})
    folded = optimized(model, *sizes)
    assert folded.ops[op] >= 1
    for size in sizes:
        assert_agrees(model, folded.model, {**feeds_for(model, size), "given": other})


def test_keeps_weight_that_is_also_data():
    """One initializer is a Conv's weight and an operand of an Add elsewhere."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    weight = b.random(C, C, 1, 1, name="weight")
    y = b.batch_norm(b.op("Conv", x, weight), C)
    z = b.op("Add", b.input(C, C, 1, 1, name="z"), weight)
    folded = optimized(b.model(y, z), *SIZES)
    assert folded.ops == {"Conv": 1, "Add": 1}


def test_uses_one_constant_as_scale_and_as_bias():
    b = Builder()
    x = b.input("n", C, "h", "w")
    shared = b.random(C)
    y = b.op("Conv", x, b.random(C, C, 1, 1), shared)
    y = b.op("BatchNormalization", y, shared, shared, shared, b.positive(C))
    assert optimized(b.model(y), *SIZES).ops == {"Conv": 1}


@pytest.mark.parametrize("middle", ["conv", "norm", "sum"])
def test_keeps_intermediate_output_and_its_value(middle):
    b = Builder()
    x = b.input("n", C, "h", "w")
    conv = b.conv(x, C, C, pads=PADS, output="conv")
    norm = b.batch_norm(conv, C, output="norm")
    total = b.op("Add", norm, b.conv(x, C, C, (1, 1)), output="sum")
    y = b.op("Mul", b.op("Relu", total), b.constant(0.7), output="y")
    folded = optimized(b.model(y, middle), *SIZES)
    assert folded.ops["Conv"] <= 2
    assert folded.ops["Relu"] == 1


def test_keeps_every_tensor_when_every_tensor_is_an_output():
    b = Builder()
    x = b.input("n", C, "h", "w")
    conv = b.conv(x, C, C, (1, 1), output="conv")
    norm = b.batch_norm(conv, C, output="norm")
    same = b.op("Identity", norm, output="same")
    total = b.op("Add", norm, conv, output="sum")
    optimized(b.model(conv, norm, same, total), *SIZES)


def test_keeps_value_info_true():
    """value_info of tensors that are gone goes with them; nothing is declared falsely."""
    b = Builder()
    x = b.input("n", C, 5, 5)
    y = b.op("Relu", b.batch_norm(b.conv(x, C, 6, pads=PADS), 6))
    model = onnx.shape_inference.infer_shapes(b.model(b.conv(y, 6, 2, (1, 1))))
    folded = optimized(model, {"n": 2})
    made = {name for node in folded.model.graph.node for name in node.output}
    assert {info.name for info in folded.model.graph.value_info} <= made


# Options ----------------------------------------------------------------------------------------


def block(b: Builder) -> str:
    x = b.input("n", C, "h", "w")
    conv = b.conv(x, C, C, pads=PADS, output="conv")
    norm = b.batch_norm(conv, C, output="norm")
    pool = b.op("AveragePool", x, kernel_shape=[3, 3], pads=PADS, count_include_pad=1)
    return b.op("Sum", norm, pool, x, output="y")


@pytest.mark.parametrize("name", ["conv", "norm"])
def test_keeps_named_tensor(name):
    b = Builder()
    y = block(b)
    model = b.model(y)
    folded = optimized(model, *SIZES, keep=[name])
    assert name in {o for node in folded.model.graph.node for o in node.output}
    feeds = feeds_for(model, SIZES[0])
    values = []
    for proto in (model, folded.model):
        probe = onnx.ModelProto()
        probe.CopyFrom(proto)
        probe.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        values.append(run(probe, feeds)[1])
    np.testing.assert_allclose(values[1], values[0], atol=1e-5 * np.abs(values[0]).max(), rtol=0)


def test_keeps_named_tensor_that_nobody_reads():
    b = Builder()
    x = b.input("n", C, "h", "w")
    b.batch_norm(b.conv(x, C, C), C, output="aside")
    folded = optimized(b.model(b.op("Relu", x)), *SIZES, keep=["aside"])
    assert "aside" in {o for node in folded.model.graph.node for o in node.output}


def test_keeps_named_identity():
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = b.op("Identity", b.conv(x, C, C), output="named")
    folded = optimized(b.model(b.op("Relu", t)), *SIZES, keep=["named"])
    assert "named" in {o for node in folded.model.graph.node for o in node.output}


def test_refuses_unknown_names():
    b = Builder()
    model = b.model(block(b))
    with pytest.raises(onnxfuse.ModelError, match="nothing"):
        onnxfuse.optimize(model, keep=["nothing"])
    with pytest.raises(onnxfuse.ModelError, match="Nothing"):
        onnxfuse.optimize(model, skip=["Nothing"])


def test_skips_named_rules():
    b = Builder()
    folded = optimized(b.model(block(b)), *SIZES, skip=["AveragePool"])
    assert folded.ops["AveragePool"] == 1
    assert "BatchNormalization" not in folded.ops
    assert (
        optimized(b.model("y"), *SIZES, skip=["BatchNormalization"]).ops["BatchNormalization"] == 1
    )
