"""Folds inside the bodies of If and Loop, and around them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.lift.building import Builder
from tests.lift.comparing import feeds_for, optimized

C = 4
SIZES = ({"n": 1, "h": 4, "w": 4}, {"n": 2, "h": 5, "w": 7})
PADS = [1, 1, 1, 1]


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


def test_keeps_constant_outputs_of_a_loop():
    """One initializer of the body and one of the graph around it are carried and collected."""
    b = Builder()
    x = b.input(1, C, 5, 5)
    outer = b.random(1, C, 5, 5, name="outer")
    inner = Builder(seed=9, prefix="in_")
    y = inner.batch_norm(inner.conv("state", C, C, pads=PADS), C, output="next")
    keep = inner.op("Identity", "go", output="go_on")
    fixed = inner.random(1, C, 5, 5, name="fixed")
    captured = inner.op("Identity", outer, output="captured")
    folded_away = inner.op("Mul", fixed, inner.constant(0.7), output="made")
    image = [1, C, 5, 5]
    graph = helper.make_graph(
        inner.nodes,
        "round",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, image),
        ],
        [
            helper.make_tensor_value_info(keep, TensorProto.BOOL, []),
            *(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, image)
                for name in (y, fixed, captured, folded_away)
            ),
        ],
        inner.initializers,
    )
    count = b.constant(np.int64(3))
    go = b.constant(np.asarray(True), elem_type=TensorProto.BOOL)
    outputs = b.ops("Loop", count, go, x, body=graph, outputs=["last", "a", "b", "c"])
    model = b.model(*outputs)
    for output, shape in zip(model.graph.output, (image, *[[3, *image]] * 3), strict=True):
        output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, shape))
    folded = optimized(model)
    assert folded.ops["Conv"] == 1
    assert "BatchNormalization" not in folded.ops


def test_keeps_outer_tensors_that_a_body_alone_reads():
    """A layer around the bodies whose output, and an initializer, nobody else reads."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    t = b.batch_norm(b.conv(x, C, C, pads=PADS), C, output="captured")
    b.random(C, 1, 1, name="outer")
    node = helper.make_node("Mul", [t, "outer"], ["then_y"])
    then = shaped(body([node], ["then_y"]), "n", C, "h", "w")
    node = helper.make_node("Add", [t, "outer"], ["other_y"])
    other = shaped(body([node], ["other_y"]), "n", C, "h", "w")
    model = b.model(conditional(b, then, other))
    folded = optimized(model, feeds=both_flags(model))
    assert folded.ops == {"Conv": 1, "If": 1, "Mul": 1, "Add": 1}


@pytest.mark.parametrize(
    ("kind", "shape", "scale"),
    [
        (TensorProto.FLOAT, (3,), (1, 1)),
        (TensorProto.DOUBLE, (2, 3), ()),
        (TensorProto.FLOAT16, (2, 3), ()),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_bodies_with_the_same_names_for_other_types_do_not_mix(kind, shape, scale, swapped):
    sides = [("x", TensorProto.FLOAT), ("w", kind)]
    b = Builder()
    bodies = []
    for number, (source, elem_type) in enumerate(sides):
        inner = Builder(elem_type=elem_type, prefix="same_")
        bias = b.constant([1.0, 2.0, 3.0], f"bias{number}", elem_type)
        y = inner.op("Mul", source, b.constant(np.full(scale, 0.5), f"k{number}", elem_type))
        y = inner.op("Mul", inner.op("Add", y, bias), y)
        inner.op("Cast", y, output=f"out{number}", to=TensorProto.FLOAT)
        bodies.append(body(inner.nodes, [f"out{number}"]))
        b.input(*((2, 3) if source == "x" else shape), name=source, elem_type=elem_type)
    b.input(name="c", elem_type=TensorProto.BOOL)
    first, second = bodies[::-1] if swapped else bodies
    model = b.model(b.op("If", "c", then_branch=first, else_branch=second))
    output = model.graph.output[0].name
    info = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, None])
    model.graph.output[0].CopyFrom(info)
    x = np.ones((2, 3), np.float32)
    w = np.ones(shape, helper.tensor_dtype_to_np_dtype(kind))
    feeds = [{"x": x, "w": w, "c": np.asarray(choice)} for choice in (True, False)]
    optimized(model, feeds=feeds)


def test_a_body_takes_no_new_weights_before_ir_version_4():
    b = Builder(8)
    inner = Builder(8, prefix="inner_")
    x = b.op("Relu", b.input(1, 3, 5, 6))
    y = inner.op("Mul", inner.conv(x, 3, 3, (1, 1)), inner.random(3, 1, 1))
    b.initializers += inner.initializers
    other = Builder(8, prefix="other_")
    bodies = [body(inner.nodes, [y]), body(other.nodes, [other.op("Relu", x)])]
    b.input(name="c", elem_type=TensorProto.BOOL)
    model = b.model(b.op("If", "c", then_branch=bodies[0], else_branch=bodies[1]))
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    image = np.ones((1, 3, 5, 6), np.float32)
    feeds = [{"x": image, "c": np.asarray(choice)} for choice in (True, False)]
    folded = optimized(model, feeds=feeds)
    assert folded.ops == {"Relu": 2, "If": 1, "Conv": 1, "Mul": 1}
    assert "a body takes no new weights before IR version 4" in {
        refusal.reason for refusal in folded.report.refusals
    }
