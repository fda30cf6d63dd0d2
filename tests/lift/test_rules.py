"""The table of rules: each lifts by itself, in its operator's own view."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onnxfuse.affine import Refusal
from onnxfuse.graph import Graph
from onnxfuse.lift import RULES, Site, View, own_view
from onnxfuse.shapes import infer_types
from tests.lift.building import Builder
from tests.lift.comparing import optimized

C = 4
SIZES = ({"n": 1, "h": 6, "w": 6}, {"n": 2, "h": 7, "w": 9})
Layer = Callable[[Builder, str], str]


def pair(op: str) -> Layer:
    return lambda b, x: b.op(op, x, b.conv(x, C, C, (1, 1)))


def scaled(op: str) -> Layer:
    return lambda b, x: b.op(op, x, b.random(C, 1, 1))


LAYERS: dict[str, Layer] = {
    "Add": pair("Add"),
    "Concat": lambda b, x: b.op("Concat", b.conv(x, C, 1, (1, 1)), b.conv(x, C, 3, (1, 1)), axis=1),
    "Div": scaled("Div"),
    "Gather": lambda b, x: b.op("Gather", x, b.constant([3, 1, 0, 2]), axis=1),
    "Mean": pair("Mean"),
    "Mul": scaled("Mul"),
    "Neg": lambda b, x: b.op("Neg", x),
    "Pad": lambda b, x: b.op("Pad", x, b.constant([0, -1, 0, 0, 0, 1, 0, 0])),
    "Slice": lambda b, x: b.op("Slice", x, *(b.constant([v]) for v in (3, -9, 1, -1))),
    "Split": lambda b, x: b.op("Concat", *b.ops("Split", x, outputs=2, axis=1)[::-1], axis=1),
    "Sub": pair("Sub"),
    "Sum": pair("Sum"),
}


@pytest.mark.parametrize("op", LAYERS)
def test_folds_without_probing(op):
    b = Builder()
    x = b.conv(b.input("n", C, "h", "w"), C, C, (3, 3), bias=False)
    folded = optimized(b.model(b.batch_norm(LAYERS[op](b, x), C)), *SIZES)
    assert folded.ops == {"Conv": 1}, folded.reasons
    assert not any(fold.certificate.stretches for fold in folded.report.folds)


def site(b: Builder, *outputs: str, view: View) -> Site:
    model = b.model(*outputs)
    graph = Graph(model.graph, b.opset, model.ir_version, types=infer_types(model))
    (node,) = graph.nodes
    return Site(graph, node, node.output[0], view)


@pytest.mark.parametrize(("by_right", "axis"), [(True, 3), (False, 2)])
@pytest.mark.parametrize("read", [1, 2, 3])
def test_matmul_lifts_on_the_axis_that_it_mixes_alone(by_right, axis, read):
    b = Builder()
    x, weight = b.input(C, C, C, C), b.random(C, C)
    y = b.op("MatMul", *((x, weight) if by_right else (weight, x)))
    found = RULES["MatMul"](site(b, y, view=View(read, 4, ())))
    assert isinstance(found, Refusal) == (read != axis)


def test_a_product_of_computed_or_unknown_tensors_imposes_no_view():
    b = Builder()
    x, z = b.input(C, C, C), b.input(C, C, C, name="z")
    both = site(b, b.op("MatMul", x, z), view=View.image(3))
    assert own_view(both.graph, both.node) is None
    b = Builder()
    vector = site(b, b.op("MatMul", b.input(C), b.random(C, C)), view=View.image(2))
    assert own_view(vector.graph, vector.node) is None
    b = Builder()
    known = site(b, b.op("MatMul", b.input(C, C, C), b.random(C, C)), view=View.image(3))
    assert own_view(known.graph, known.node) == View.matrix(2, 3)
    known.graph.types = {}
    assert own_view(known.graph, known.node) is None
