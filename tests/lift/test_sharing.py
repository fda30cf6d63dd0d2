"""Weights and tensors with several readers, graph outputs, nested bodies, and the options."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxfuse
from tests.lift.building import Builder
from tests.lift.comparing import feeds_for, optimized, run

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


# Bodies -----------------------------------------------------------------------------------------


def body(nodes, outputs, initializers=(), inputs=()):
    return helper.make_graph(
        nodes,
        "body",
        list(inputs),
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        list(initializers),
    )


def shaped(graph: onnx.GraphProto, *shape) -> onnx.GraphProto:
    for output in graph.output:
        output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, shape))
    return graph


def branch(b: Builder, x: str, role: str, shared: str = "") -> onnx.GraphProto:
    """Conv -> BatchNormalization -> Relu in a body of its own; names begin with `role`."""
    inner = Builder(b.opset, seed=len(role), prefix=f"{role}_")
    weight = shared or inner.random(C, C, 3, 3)
    y = inner.op("Conv", x, weight, inner.random(C), pads=PADS)
    y = inner.op("Relu", inner.batch_norm(y, C), output=f"{role}_y")
    return shaped(body(inner.nodes, [y], inner.initializers), "n", C, "h", "w")


def conditional(b: Builder, then: onnx.GraphProto, other: onnx.GraphProto) -> str:
    flag = b.input(name="flag", elem_type=TensorProto.BOOL)
    return b.op("If", flag, then_branch=then, else_branch=other, output="y")


def both_flags(model):
    feeds = []
    for size in SIZES:
        for flag in (True, False):
            feeds.append({**feeds_for(model, size), "flag": np.asarray(flag)})
    return feeds


def test_folds_inside_both_branches_of_if():
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    y = conditional(b, branch(b, x, "then"), branch(b, x, "other"))
    model = b.model(y)
    folded = optimized(model, feeds=both_flags(model))
    assert folded.ops == {"Relu": 3, "If": 1, "Conv": 2}


def test_folds_inside_body_with_weights_from_outside():
    b = Builder()
    x = b.input("n", C, "h", "w")
    weight = b.random(C, C, 3, 3, name="shared")
    y = conditional(b, branch(b, x, "then", weight), branch(b, x, "other", weight))
    model = b.model(y)
    folded = optimized(model, feeds=both_flags(model))
    assert folded.ops == {"Relu": 2, "If": 1, "Conv": 2}


def test_folds_inside_sibling_bodies_with_equal_names():
    b = Builder()
    x = b.input("n", C, "h", "w")
    then, other = branch(b, x, "same"), branch(b, x, "same")
    for tensor in other.initializer:
        value = numpy_helper.to_array(tensor) * np.float32(0.7)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    model = b.model(conditional(b, then, other))
    folded = optimized(model, feeds=both_flags(model))
    assert folded.ops == {"Relu": 2, "If": 1, "Conv": 2}


def test_matches_for_sibling_bodies_with_equal_names_and_other_shapes():
    b = Builder()
    x = b.input("n", C, "h", "w")
    then = branch(b, x, "same")
    other = branch(b, x, "same")
    for tensor in other.initializer:
        if len(tensor.dims) == 4:
            value = numpy_helper.to_array(tensor)[:, :, 1:2, 1:2]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    conv = other.node[0]
    del conv.attribute[:]
    model = b.model(conditional(b, then, other))
    optimized(model, feeds=both_flags(model))


def test_keeps_tensor_that_a_body_captures():
    """The body reads the Conv's own output, and the graph around it goes on with the norm."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = b.conv(x, C, C, pads=PADS, output="captured")
    norm = b.batch_norm(t, C)
    then = shaped(body([helper.make_node("Neg", [t], ["then_y"])], ["then_y"]), "n", C, "h", "w")
    other = shaped(body([helper.make_node("Abs", [t], ["other_y"])], ["other_y"]), "n", C, "h", "w")
    y = b.op("Add", conditional(b, then, other), norm, output="z")
    model = b.model(y)
    folded = optimized(model, feeds=both_flags(model))
    assert "captured" in {o for node in folded.model.graph.node for o in node.output}


def test_keeps_identity_that_a_body_captures():
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = b.op("Identity", b.conv(x, C, C, pads=PADS), output="captured")
    then = shaped(body([helper.make_node("Neg", [t], ["then_y"])], ["then_y"]), "n", C, "h", "w")
    other = shaped(body([helper.make_node("Abs", [t], ["other_y"])], ["other_y"]), "n", C, "h", "w")
    model = b.model(conditional(b, then, other))
    optimized(model, feeds=both_flags(model))


def test_keeps_constant_output_of_a_body():
    b = Builder()
    x = b.input(1, C, 5, 5)
    fixed = numpy_helper.from_array(b.values(1, C, 5, 5).astype(np.float32), "fixed")
    then = shaped(body([], ["fixed"], [fixed]), 1, C, 5, 5)
    node = helper.make_node("Constant", [], ["made"], value=fixed)
    other = shaped(body([node], ["made"]), 1, C, 5, 5)
    y = b.batch_norm(b.conv(x, C, C, pads=PADS), C)
    model = b.model(b.op("Add", conditional(b, then, other), y, output="z"))
    feeds = [{**feeds_for(model), "flag": np.asarray(flag)} for flag in (True, False)]
    folded = optimized(model, feeds=feeds)
    assert folded.ops["Conv"] == 1
    assert "BatchNormalization" not in folded.ops


def test_keeps_identity_of_a_captured_tensor_in_a_body():
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = b.batch_norm(b.conv(x, C, C, pads=PADS), C, output="captured")
    then = shaped(
        body([helper.make_node("Identity", [t], ["then_y"])], ["then_y"]), "n", C, "h", "w"
    )
    model = b.model(conditional(b, then, branch(b, t, "other")))
    folded = optimized(model, feeds=both_flags(model))
    assert folded.ops["Conv"] == 2


def test_folds_inside_nested_bodies():
    b = Builder()
    x = b.input("n", C, "h", "w")
    inner = helper.make_node(
        "If",
        ["flag"],
        ["inner_y"],
        then_branch=branch(b, x, "deep"),
        else_branch=branch(b, x, "deeper"),
    )
    then = shaped(body([inner], ["inner_y"]), "n", C, "h", "w")
    model = b.model(conditional(b, then, branch(b, x, "other")))
    folded = optimized(model, feeds=both_flags(model))
    assert folded.ops == {"If": 2, "Conv": 3, "Relu": 3}


def test_folds_inside_loop():
    """Three rounds of Conv -> BatchNormalization -> Add, the weight from the graph around it."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    weight = b.random(C, C, 3, 3, name="shared")
    inner = Builder(seed=9, prefix="in_")
    y = inner.batch_norm(inner.op("Conv", "state", weight, pads=PADS), C)
    y = inner.op("Add", y, "state", output="next")
    keep = inner.op("Identity", "go", output="go_on")
    graph = helper.make_graph(
        inner.nodes,
        "round",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", C, "h", "w"]),
        ],
        [
            helper.make_tensor_value_info(keep, TensorProto.BOOL, []),
            helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", C, "h", "w"]),
        ],
        inner.initializers,
    )
    count = b.constant(np.int64(3))
    go = b.constant(np.asarray(True), elem_type=TensorProto.BOOL)
    model = b.model(b.op("Loop", count, go, x, body=graph, output="y"))
    shaped(model.graph, "n", C, "h", "w")
    folded = optimized(model, *SIZES)
    assert folded.ops["Conv"] == 1
    assert "BatchNormalization" not in folded.ops
    assert "Add" not in folded.ops


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
