import numpy as np
from onnx import helper, numpy_helper

from onnxfuse.constants import fold_constants
from onnxfuse.graph import Graph
from onnxfuse.io import read
from onnxfuse.shapes import default_opset, infer_types
from tests.constants.building import (
    BOOL,
    RNG,
    ROW,
    build,
    check,
    node,
    run,
    value,
)


def branching(then, otherwise, weights=None, before=(), ir_version=8):
    nodes = [*before, node("If", "c", "y", then_branch=then, else_branch=otherwise)]
    inputs = [value("x", ("N", 4)), value("c", (), BOOL)]
    return build(nodes, weights, inputs, ir_version=ir_version)


def body(nodes, output, weights=None):
    tensors = [numpy_helper.from_array(w, name) for name, w in (weights or {}).items()]
    return helper.make_graph(nodes, "body", [], [value(output)], tensors)


def fold_bodies(model):
    source = read(model)
    types = infer_types(source.model)
    opset = default_opset(source.model)
    outer = Graph(source.model.graph, opset, source.model.ir_version, types=types)
    fold_constants(outer, source.model)
    outer.commit()
    bodies = {a.name: a.g for n in outer.nodes for a in n.attribute}
    for proto in bodies.values():
        inner = Graph(proto, opset, source.model.ir_version, outer=outer, types=types)
        fold_constants(inner, source.model)
        inner.commit()
    check(source.model)
    for choice in (True, False):
        feeds = {"x": RNG.standard_normal((3, 4)).astype(np.float32), "c": np.array(choice)}
        for expected, got in zip(run(model, feeds), run(source.model, feeds), strict=True):
            np.testing.assert_array_equal(got, expected)
    names = ("then_branch", "else_branch")
    return [n.op_type for n in outer.nodes], [[n.op_type for n in bodies[b].node] for b in names]


def test_a_constant_that_only_a_body_reads_is_evaluated():
    then = body([node("Add", "x k", "p")], "p")
    otherwise = body([node("Mul", "x k", "q")], "q")
    model = branching(then, otherwise, {"w": ROW}, [node("Neg", "w", "k")])
    assert fold_bodies(model) == (["If"], [["Add"], ["Mul"]])


def test_constants_in_bodies_are_folded_and_their_outputs_left_alone():
    nodes = [node("Neg", "w", "a"), node("Constant", "", "b", value_float=2.5)]
    nodes += [node("Mul", "a b", "d"), node("Add", "x d", "p")]
    otherwise = body([node("Constant", "", "q", value=numpy_helper.from_array(ROW))], "q")
    model = branching(body(nodes, "p"), otherwise, {"w": ROW})
    assert fold_bodies(model) == (["If"], [["Add"], ["Constant"]])


def test_bodies_before_ir_version_4_are_left_alone():
    then = body([node("Constant", "", "a", value=numpy_helper.from_array(ROW))], "p")
    then.node.append(node("Add", "x a", "p"))
    otherwise = body([node("Relu", "x", "q")], "q")
    model = branching(then, otherwise, ir_version=3)
    assert fold_bodies(model) == (["If"], [["Constant", "Add"], ["Relu"]])
