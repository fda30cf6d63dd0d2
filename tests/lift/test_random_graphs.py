"""Random graphs: the optimized model is as near to the float64 result as the original."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from onnx import TensorProto, helper

from onnxfuse.lift import RULES
from onnxfuse.messages import bodies
from tests.lift.building import Builder
from tests.lift.comparing import feeds_for, optimized
from tests.lift.random_checking import check
from tests.lift.random_graphs import models
from tests.lift.random_settings import OPSETS, settings_of_every_kind

CALM = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@given(models())
@settings(max_examples=40, derandomize=True, **CALM)
def test_matches_on_random_graphs(model):
    check(model)


@pytest.mark.slow
@given(models(most=16))
@settings(max_examples=100, **CALM)
def test_matches_on_many_random_graphs(model):
    check(model)


@pytest.mark.nightly
@given(models(most=16))
@settings(max_examples=int(os.environ.get("ONNXFUSE_EXAMPLES", "2000")), **CALM)
def test_matches_on_very_many_random_graphs(model):
    check(model)


# What is drawn ----------------------------------------------------------------------------------


def examples(strategy, count):
    """Draws, the same each time."""
    found = []

    @given(strategy)
    @settings(max_examples=count, derandomize=True, database=None, phases=[Phase.generate], **CALM)
    def draw(one):
        found.append(one)

    draw()
    return found


@pytest.fixture(scope="module")
def drawn():
    return examples(models(most=16), 400)


def nodes_of(nodes):
    """Nodes, and those in their bodies."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from nodes_of(body.node)


def all_nodes(model):
    yield from nodes_of(model.proto.graph.node)
    for function in model.proto.functions:
        yield from nodes_of(function.node)


@pytest.mark.slow
def test_every_operator_that_lifts_is_drawn(drawn):
    operators = {node.op_type for model in drawn for node in all_nodes(model)}
    assert RULES.keys() - operators == set()


def test_every_opset_is_drawn_with_every_type():
    found = {(s.opset, s.elem_type) for s in examples(settings_of_every_kind(), 1000)}
    anywhere = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    wanted = {(opset, kind) for opset in OPSETS for kind in anywhere}
    assert found == wanted | {(opset, TensorProto.BFLOAT16) for opset in OPSETS if opset >= 22}


def pools(drawn):
    nodes = [node for model in drawn for node in nodes_of(model.plain.graph.node)]
    return [
        {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for node in nodes
        if node.op_type == "AveragePool"
    ]


@pytest.mark.slow
def test_pools_of_every_rank_are_drawn(drawn):
    assert {len(given["kernel_shape"]) for given in pools(drawn)} == {1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("counts", [0, 1])
@pytest.mark.parametrize("setting", ["ceil_mode", "dilations", "auto_pad", "strides"])
def test_pools_of_every_kind_are_drawn(drawn, setting, counts):
    found = [given for given in pools(drawn) if given["count_include_pad"] == counts]
    plain = (None, 0, [1], [1, 1], [1, 1, 1])
    assert any(given.get(setting) not in plain for given in found)


def levels_of_reads(nodes, around=()):
    """For each tensor that a node reads, how many bodies out it was made."""
    scopes = [{name for node in nodes for name in node.output}, *around]
    for node in nodes:
        for name in node.input:
            yield next((level for level, scope in enumerate(scopes) if name in scope), None)
        for body in bodies(node):
            yield from levels_of_reads(body.node, scopes)


@pytest.mark.slow
def test_tensors_of_every_level_are_captured(drawn):
    levels = {found for model in drawn for found in levels_of_reads(model.proto.graph.node)}
    assert {0, 1, 2} <= levels


@pytest.mark.slow
@pytest.mark.parametrize(("outer", "inner"), [("If", "Loop"), ("Loop", "If"), ("If", "If")])
def test_bodies_in_bodies_are_drawn(drawn, outer, inner):
    assert any(
        node.op_type == inner
        for model in drawn
        for around in model.proto.graph.node
        if around.op_type == outer
        for body in bodies(around)
        for node in body.node
    )


@pytest.mark.slow
def test_scan_outputs_are_drawn(drawn):
    loops = [n for model in drawn for n in all_nodes(model) if n.op_type == "Loop"]
    assert {len(node.output) for node in loops} == {1, 2}


@pytest.mark.slow
def test_functions_of_every_kind_are_drawn(drawn):
    """With constants and convolutions of their own, and attributes from calls and from defaults."""
    functions = [function for model in drawn for function in model.proto.functions]
    assert any(function.attribute for function in functions)
    assert any(function.attribute_proto for function in functions)
    held = [{node.op_type for node in function.node} for function in functions]
    assert any({"Constant", "Conv"} <= found for found in held)
    assert any(node.domain for function in functions for node in function.node), "no nested call"


# What random graphs found --------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 2])
def test_a_slice_that_is_empty_at_larger_sizes_is_not_the_identity(axis):
    """x[-3:4] is x up to three pixels, and nothing from seven on."""
    b = Builder()
    x = b.input("n", 4, "h", "w")
    bounds = [b.constant(value) for value in ([-3], [4], [axis])]
    model = b.model(b.op("Relu", b.op("Slice", x, *bounds)))
    folded = optimized(model, *({"n": n, "h": n, "w": 5} for n in (2, 3, 4, 5)))
    assert folded.ops == {"Slice": 1, "Relu": 1}


@pytest.mark.parametrize("end", [1, 2, 4])
def test_a_slice_up_to_the_size_holds_at_that_size_alone(end):
    b = Builder()
    x = b.input(1, 4, 1, 1)
    y = b.op("Slice", b.conv(x, 4, 4, pads=[1, 1, 1, 1]), *map(b.constant, ([0], [end], [2])))
    assert optimized(b.model(b.op("Relu", y))).ops == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize("op", ["Slice", "Split", "Gather"])
def test_tensors_without_channels_are_left_alone(op):
    b = Builder()
    y = b.conv(b.input(1, 4, 5, 5), 4, 4, (1, 1))
    if op == "Split":
        y = b.ops("Split", y, b.constant([4, 0]), outputs=2, axis=1)[1]
    elif op == "Slice":
        y = b.op("Slice", y, *map(b.constant, ([3], [2], [1])))
    else:
        y = b.op("Gather", y, b.constant(np.zeros(0, np.int64)), axis=1)
    assert optimized(b.model(b.op("Neg", y))).ops == {"Conv": 1, op: 1, "Neg": 1}


def test_a_dropout_with_a_ratio_that_is_an_input_is_left_alone():
    b = Builder()
    y = b.conv(b.input(1, 4, 5, 5), 4, 4, (1, 1))
    y = b.op("Dropout", y, b.input(name="ratio"))
    model = b.model(b.batch_norm(y, 4))
    feeds = [{**feeds_for(model), "ratio": np.asarray(0.5, np.float32)}]
    assert optimized(model, feeds=feeds).ops["Dropout"] == 1
