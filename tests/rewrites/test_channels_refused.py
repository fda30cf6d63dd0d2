"""Channels that stay, named after what they lack."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxfuse
from onnxfuse.graph import Graph
from onnxfuse.rewrites.channels import remove_channels
from onnxfuse.shapes import infer_types
from tests.lift.building import Builder
from tests.lift.comparing import feeds_for, optimized, run
from tests.rewrites.idle import (
    DEAD,
    SIZES,
    C,
    behind,
    body,
    conv,
    dying,
    folds,
    folds_of,
    kept,
    matrix,
    start,
)


@pytest.mark.parametrize(
    "how", [{"pads": [0, 0, 1, 0]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}]
)
def test_refuses_constants_in_front_of_padding(how):
    b = Builder()
    kept(b.model(behind(b, b.op("Sigmoid", dying(b)), kernel=(2, 2), **how)))


def test_refuses_padding_around_a_pointwise_layer():
    b = Builder()
    kept(b.model(behind(b, b.op("Sigmoid", dying(b)), pads=[1] * 4)))


@pytest.mark.parametrize("how", [{"pads": [1, 1, 1, 1]}, {"auto_pad": "SAME_UPPER"}])
def test_refuses_constants_in_front_of_a_padded_depthwise_layer(how):
    b = Builder()
    x = conv(b, b.op("Sigmoid", dying(b)), C, C, (3, 3), group=C, **how)
    kept(b.model(behind(b, b.op("Tanh", x))))


def test_refuses_constants_in_front_of_a_transposed_layer():
    b = Builder()
    x = b.op("Sigmoid", dying(b))
    kept(b.model(b.op("ConvTranspose", x, b.random(C, 5, 3, 3), b.random(5))))


@pytest.mark.parametrize(
    ("count", "dead"), [(32, 15), (32, 0), (16, 16), (40, 7), (48, 15), (8, 8)]
)
def test_refuses_fewer_than_a_block(count, dead):
    b = Builder()
    x = b.op("Tanh", conv(b, start(b), 6, count, dead=range(dead)))
    kept(b.model(behind(b, x, count)))


def test_refuses_one_that_another_branch_needs():
    b = Builder()
    x = dying(b)
    y = b.op("Relu", conv(b, b.op("Relu", x), C, C))
    kept(b.model(behind(b, b.op("Tanh", b.op("Add", x, y)))))


def test_refuses_one_that_another_reader_needs():
    b = Builder()
    x = b.op("Sigmoid", dying(b))
    kept(b.model(behind(b, x), conv(b, x, C, 4, (3, 3), pads=[1] * 4)))


@pytest.mark.parametrize("group", [2, 16])
def test_refuses_groups(group):
    b = Builder()
    x = b.op("Sigmoid", dying(b))
    kept(b.model(behind(b, b.op("Tanh", conv(b, x, C, C, group=group)), unread=DEAD)))


def test_refuses_a_transposed_layer_of_groups():
    b = Builder()
    x = b.op("Relu", dying(b, bias=-1.0))
    kept(b.model(b.op("ConvTranspose", x, b.random(C, 5, 2, 2), group=2)))


@pytest.mark.parametrize("op", ["Softmax", "Transpose", "Split", "Slice", "CumSum"])
def test_refuses_other_readers(op):
    b = Builder()
    x = b.op("Relu", dying(b))
    settings = {"Softmax": {"axis": 1}, "Transpose": {"perm": [0, 1, 3, 2]}}
    more = {
        "Slice": [b.constant([0]), b.constant([C - 1]), b.constant([1])],
        "Split": [b.constant([C - 1, 1])],
        "CumSum": [b.constant(np.array(1))],
    }
    outputs = b.ops(op, x, *more.get(op, []), outputs=1 + (op == "Split"), **settings.get(op, {}))
    if op == "Split":
        b.nodes[-1].attribute.append(helper.make_attribute("axis", 1))
    channels = C - (op in ("Split", "Slice"))
    unread = range(3, 22)
    kept(b.model(behind(b, b.op("Tanh", outputs[0]), channels, unread=unread), *outputs[1:]))


def test_refuses_outputs():
    b = Builder()
    x = dying(b)
    kept(b.model(behind(b, b.op("Relu", x)), x))
    b = Builder()
    x = b.op("Relu", dying(b))
    kept(b.model(behind(b, x), x))


def test_refuses_kept_tensors():
    b = Builder()
    x = b.op("Relu", dying(b))
    kept(b.model(behind(b, x)), keep=[x])


def test_refuses_what_a_body_reads():
    b = Builder()
    x = b.op("Relu", dying(b))
    bodies = {name: body("Abs", x, name) for name in ("then_branch", "else_branch")}
    c = b.input(1, name="c", elem_type=TensorProto.BOOL)
    kept(b.model(behind(b, x), b.op("If", c, **bodies)), truth_runs=False)


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_refuses_weights_that_are_inputs(which):
    b = Builder()
    model = b.model(behind(b, b.op("Relu", dying(b))))
    given = model.graph.initializer[which]
    model.graph.input.append(helper.make_tensor_value_info(given.name, 1, given.dims))
    feeds = [feeds_for(model, sizes) for sizes in SIZES]
    assert folds(optimized(model, feeds=feeds)) == []


def test_refuses_a_bias_that_is_computed():
    b = Builder()
    x = b.op("Conv", start(b), dead_weight(b), b.op("Relu", b.input(C, name="z")))
    kept(b.model(behind(b, b.op("Tanh", x))))
    b = Builder()
    x = b.op("Tanh", dying(b))
    kept(b.model(b.op("Conv", x, b.random(5, C, 1, 1), b.op("Relu", b.input(5, name="z")))))


def dead_weight(b: Builder) -> str:
    weight = b.values(C, 6, 1, 1)
    weight[list(DEAD)] = 0
    return b.constant(weight)


@pytest.mark.parametrize("how", ["transA", "alpha", "beta", "rows", "computed"])
def test_refuses_a_gemm_that_is_more_than_a_layer(how):
    b = Builder()
    x = b.op("Tanh", b.op("Gemm", b.input(C, 6), b.constant(matrix(b, 6, C, DEAD))))
    bias = {"rows": b.random(C, 5), "computed": b.op("Relu", b.input(1, 5, name="z"))}
    settings = {"transA": {"transA": 1}, "alpha": {"alpha": 0.5}, "beta": {"beta": 0.5}}
    extra = bias.get(how) or b.random(5)
    kept(
        b.model(b.op("Gemm", x, b.random(C, 5), extra, **settings.get(how, {}))),
        {},
    )


@pytest.mark.parametrize("shape", [(2, C, 5), (C,)])
def test_refuses_products_with_more_than_a_matrix(shape):
    b = Builder()
    x = b.op("Tanh", b.op("MatMul", b.input(2, 3, 6), b.constant(matrix(b, 6, C, DEAD))))
    kept(b.model(b.op("MatMul", x, b.random(*shape))), {})


def test_refuses_a_product_with_the_channels_of_an_image():
    """It sums over the last axis."""
    b = Builder()
    x = b.op("Tanh", conv(b, b.input("n", 6, "h", C), 6, C, dead=DEAD))
    kept(b.model(b.op("MatMul", x, b.random(C, 5))), {"n": 2, "h": 3})
    b = Builder()
    x = b.op("Tanh", b.op("MatMul", b.input(2, C, 6), b.constant(matrix(b, 6, C, DEAD))))
    kept(b.model(b.op("Conv", x, b.random(5, C, 1))), {})


def test_refuses_what_is_no_number():
    """A logarithm of a bias below 0; a constant that float16 does not hold."""
    b = Builder()
    model = b.model(behind(b, b.op("Log", dying(b, bias=-1.0))))
    assert folds_of(model) == 0
    b = Builder(elem_type=TensorProto.FLOAT16)
    x = b.op("Exp", b.op("Mul", b.op("Relu", dying(b, bias=1.0)), b.constant(60.0)))
    assert folds_of(b.model(behind(b, x))) == 0


def test_refuses_a_bias_that_overflows():
    b = Builder(elem_type=TensorProto.FLOAT16)
    x = conv(b, start(b), 6, C, dead=DEAD, bias=30000.0)
    result = onnxfuse.optimize(b.model(behind(b, b.op("Relu", x))))
    reasons = {refused.reason for refused in result.report.refusals}
    assert "a bias that takes in constant channels overflows float16" in reasons
    assert all(fold.step != "channels" for fold in result.report.folds)


def test_refuses_what_cannot_be_evaluated():
    """Random numbers have no logarithm."""
    b = Builder()
    x = b.op("Log", b.op("Relu", dying(b, bias=1.0)))
    model = b.model(behind(b, x, unread=DEAD))
    result = onnxfuse.optimize(model)
    assert "it cannot be certified: it makes what is no number" in {
        refused.reason for refused in result.report.refusals
    }
    assert all(fold.step != "channels" for fold in result.report.folds)


def test_refuses_operators_of_others():
    b = Builder()
    x = b.op("Relu", dying(b))
    b.nodes[-1].domain = "somebody"
    b.op("Conv", x, b.random(5, C, 1, 1), output="y")
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, "h", "w"])
    graph = helper.make_graph(b.nodes, "graph", b.inputs, [out], b.initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("somebody", 1)]
    assert folds_of(helper.make_model(graph, opset_imports=opsets, ir_version=8)) == 0


def test_bodies_of_old_files_take_no_weights():
    b = Builder()
    model = b.model(behind(b, b.op("Relu", dying(b))))
    types = infer_types(model)
    outer = Graph(onnx.GraphProto(), 17, 3)
    graph = Graph(model.graph, 17, 3, outer=outer, types=types)
    assert remove_channels(graph, frozenset()).folds == []
    graph = Graph(model.graph, 17, 8, outer=outer, types=types)
    assert len(remove_channels(graph, frozenset()).folds) == 1


def test_what_nobody_reads_does_not_matter():
    """A reader of the channels, in front of the one that counts."""
    b = Builder()
    x = b.op("Relu", dying(b))
    behind(b, x, kernel=(3, 3), pads=[1] * 4, unread=DEAD)
    y = behind(b, x)
    model = b.model(y)
    expected = run(model, feeds_for(model, SIZES[0]))
    graph = Graph(model.graph, 17, 8, types=infer_types(model))
    assert len(remove_channels(graph, frozenset()).folds) == 1
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "Conv"]
    np.testing.assert_allclose(run(model, feeds_for(model, SIZES[0])), expected, rtol=1e-4)


def test_a_layer_that_does_not_fit_is_left_alone():
    """A Conv of 16 channels behind one of 32: no runtime takes it."""
    b = Builder()
    x = b.op("Relu", dying(b))
    b.op("Conv", x, b.random(5, 16, 1, 1), output="y")
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, "h", "w"])
    graph = helper.make_graph(b.nodes, "graph", b.inputs, [out], b.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert folds_of(model) == 0
