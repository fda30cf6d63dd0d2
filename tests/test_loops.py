"""What is declared of a Loop's state is believed where it holds in every iteration."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxfuse
from onnxfuse.shapes import infer_types
from tests.handmade import BOOL, FLOAT, INT64, build, value
from tests.lift.comparing import run

DOUBLED = helper.make_node("Concat", ["v", "v"], ["new"], axis=0)
KEPT = helper.make_node("Relu", ["v"], ["new"])


def looped(
    node: onnx.NodeProto, declared: list[int | str], made: list[int | str] | None = None
) -> onnx.ModelProto:
    """A Loop of three iterations over a state v, which the node changes; it notes v's sizes."""
    nodes = [
        node,
        helper.make_node("Shape", ["v"], ["sizes"]),
        helper.make_node("Cast", ["sizes"], ["row"], to=FLOAT),
        helper.make_node("Identity", ["go"], ["again"]),
    ]
    inputs = [value("i", [], INT64), value("go", [], BOOL), value("v", declared)]
    outputs = [value("again", [], BOOL), value("new", made), value("row", [2])]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    loop = helper.make_node("Loop", ["n", "", "x"], ["y", "rows"], body=body)
    times = numpy_helper.from_array(np.array(3, np.int64), "n")
    return build([loop], [value("x", [2, 3])], [value("y"), value("rows")], [times])


def certain(model: onnx.ModelProto, name: str) -> tuple[int | None, ...]:
    """The sizes of a tensor that are numbers."""
    shape = infer_types(model)[name].shape
    assert shape is not None
    return tuple(size if isinstance(size, int) else None for size in shape)


@pytest.mark.parametrize(
    ("declared", "made"),
    [([2, 3], None), ([2, 3], ["a", 3]), (["a", 3], None), (["a", 3], ["b", 3])],
)
def test_a_state_that_grows_has_no_certain_size(declared, made):
    model = looped(DOUBLED, declared, made)
    assert certain(model, "v") == (None, 3)
    x = {"x": np.ones((2, 3), np.float32)}
    y, rows = run(onnxfuse.optimize(model).model, x)
    assert y.shape == (16, 3)
    np.testing.assert_array_equal(rows, [[2, 3], [4, 3], [8, 3]])


@pytest.mark.parametrize("declared", [[2, 3], ["a", 3]])
def test_a_state_that_stays_as_large_keeps_its_size(declared):
    assert infer_types(looped(KEPT, declared))["v"].shape == tuple(declared)


def test_one_state_may_take_its_size_from_another():
    """v has the size of u in the next iteration, and u doubles: neither is certain."""
    nodes = [
        helper.make_node("Concat", ["u", "u"], ["more"], axis=0),
        helper.make_node("Relu", ["u"], ["next"]),
        helper.make_node("Identity", ["go"], ["again"]),
    ]
    inputs = [value("i", [], INT64), value("go", [], BOOL), value("u", [2]), value("v", [2])]
    outputs = [value("again", [], BOOL), value("more"), value("next")]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    loop = helper.make_node("Loop", ["n", "", "x", "x"], ["y", "z"], body=body)
    times = numpy_helper.from_array(np.array(3, np.int64), "n")
    model = build([loop], [value("x", [2])], [value("y"), value("z")], [times])
    assert certain(model, "u") == certain(model, "v") == (None,)


def test_a_loop_in_a_body_is_a_loop():
    inner = looped(DOUBLED, [2, 3]).graph.node[0]
    inner.input[2] = "w"
    del inner.output[1:]
    del inner.attribute[0].g.output[2:]
    nodes = [inner, helper.make_node("Identity", ["go"], ["again"])]
    nodes.append(helper.make_node("Relu", ["w"], ["kept"]))
    inputs = [value("j", [], INT64), value("go", [], BOOL), value("w", [2, 3])]
    inner.attribute[0].g.input[1].name = "go2"
    inner.attribute[0].g.node[3].input[0] = "go2"
    inner.attribute[0].g.node[3].output[0] = "again2"
    inner.attribute[0].g.output[0].name = "again2"
    outputs = [value("again", [], BOOL), value("kept"), value("y")]
    body = helper.make_graph(nodes, "outer", inputs, outputs)
    loop = helper.make_node("Loop", ["n", "", "x"], ["last", "all"], body=body)
    times = numpy_helper.from_array(np.array(3, np.int64), "n")
    model = build([loop], [value("x", [2, 3])], [value("last"), value("all")], [times])
    assert (certain(model, "w"), certain(model, "v")) == ((2, 3), (None, 3))
