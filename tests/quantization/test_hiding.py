"""Nodes out of the library's sight, and back."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxfuse.quantization.hiding import hidden, shown
from tests.lift.building import Builder
from tests.quantization.test_quantize import run, with_body


def few_operators():
    """Inputs and outputs left open, one given twice, attributes, a tensor that is an output."""
    b = Builder()
    x = b.input("n", 6)
    t = b.op("Clip", x, "", b.constant(np.float32(0.5)), output="clipped")
    t = b.op("Mul", t, t)
    scale = b.positive(6)
    t, _, _ = b.ops("LayerNormalization", t, scale, outputs=[t + "n", "", "deviation"], axis=-1)
    b.op("Add", t, "clipped", output="y")
    return b.model("y", "clipped", "deviation")


def copied(model):
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def test_hidden_nodes_do_what_they_did():
    model = few_operators()
    model.ir_version = 4
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)}
    made = copied(model)
    held = hidden(made, [node.name for node in model.graph.node])
    assert len(held) == len(model.graph.node) == len(made.functions)
    assert not {node.op_type for node in made.graph.node} & {"Clip", "Mul", "Add"}
    onnx.checker.check_model(made, full_check=True)
    for before, after in zip(run(model, feeds), run(made, feeds), strict=True):
        np.testing.assert_array_equal(before, after)
    shown(made, held)
    made.ir_version = model.ir_version
    assert made == model


def test_nodes_come_back_with_what_they_read_by_then():
    model = few_operators()
    held = hidden(model, [model.graph.node[1].name])
    call = model.graph.node[1]
    call.input[:] = ["other" for _ in call.input]
    shown(model, held)
    assert list(model.graph.node[1].input) == ["other", "other"]


def test_functions_of_the_model_stay():
    model = few_operators()
    opset = helper.make_opsetid("float", 1)
    node = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(helper.make_function("float", "Own", ["a"], ["b"], [node], [opset]))
    model.opset_import.append(opset)
    made = copied(model)
    shown(made, hidden(made, [model.graph.node[0].name]))
    made.ir_version = model.ir_version
    assert made == model


@pytest.mark.parametrize("weight_too", [False, True])
def test_nodes_with_bodies_stay(weight_too):
    model = with_body(weight_too)
    branch = next(node for node in model.graph.node if node.op_type == "If")
    assert hidden(model, [branch.name]) == {}
    assert not model.functions
