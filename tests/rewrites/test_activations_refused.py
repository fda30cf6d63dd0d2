"""What is no activation, or would be a worse one, stays as it is."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxfuse
from onnxfuse.graph import Graph
from onnxfuse.rewrites.pointwise import Functions
from onnxfuse.rewrites.proving import NOT_EXACT_ENOUGH
from onnxfuse.rewrites.rewriting import recognise_activations
from onnxfuse.shapes import infer_types
from tests.lift.building import Builder
from tests.lift.comparing import optimized, run, truth
from tests.rewrites.checking import SIZES, C, body_of_relu, refused
from tests.rewrites.ways import (
    clip,
    gelu_by_tanh,
    gelu_halved_first,
    gelu_halved_last,
    hard_sigmoid_divided,
    hard_swish_divided,
    scaled,
    shifted,
)

# Refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_refuses_types_that_the_runtime_has_no_such_operators_in(kind):
    b = Builder(22, kind)
    refused(b, hard_swish_divided(b, b.input("n", C, "h", "w")))


@pytest.mark.parametrize("shape", [(C, 1, 1), (1, 1, 1, 1, 1), (4,)])
def test_refuses_numbers_that_differ_from_channel_to_channel_or_add_dimensions(shape):
    b = Builder()
    x = b.input("n", C, "h", 4)
    gate = clip(b, b.op("Add", x, b.constant(np.full(shape, 3.0))), 0, 6)
    refused(b, b.op("Div", b.op("Mul", x, gate), b.constant(6.0)))


def test_refuses_a_gate_of_another_tensor():
    b = Builder()
    x, z = b.input("n", C, "h", "w"), b.input("n", C, "h", "w", name="z")
    gate = clip(b, shifted(b, b.op("Neg", b.op("Abs", z)), 3), 0, 6)
    y = b.op("Mul", b.op("Abs", x), gate)
    model = b.model(b.op("Div", y, b.constant(6.0)))
    assert "HardSwish" not in {n.op_type for n in onnxfuse.optimize(model).model.graph.node}
    optimized(model, *SIZES)


@pytest.mark.parametrize("root", [1.5, 1.4141])
def test_refuses_a_gelu_with_another_root(root):
    b = Builder(20)
    x = b.input("n", C, "h", "w")
    gate = shifted(b, b.op("Erf", b.op("Div", x, b.constant(root))), 1)
    refused(b, scaled(b, b.op("Mul", x, gate), 0.5))


@pytest.mark.parametrize("cubic", [0.0447, 0.05])
def test_refuses_a_gelu_with_another_cubic_term(cubic):
    b = Builder(20)
    x = b.input("n", C, "h", "w")
    inner = b.op("Add", x, scaled(b, b.op("Pow", x, b.constant(3.0)), cubic))
    gate = shifted(b, b.op("Tanh", scaled(b, inner, math.sqrt(2 / math.pi))), 1)
    refused(b, b.op("Mul", scaled(b, x, 0.5), gate))


@pytest.mark.parametrize("way", [gelu_halved_first, gelu_halved_last, gelu_by_tanh])
def test_an_expanded_gelu_stays_as_the_runtime_fuses_it_before_there_was_one(way):
    b = Builder(19)
    refused(b, way(b, b.input("n", C, "h", "w")))


def test_refuses_a_gelu_with_something_added():
    b = Builder(20)
    x = b.input("n", C, "h", "w")
    gate = shifted(b, b.op("Erf", scaled(b, x, math.sqrt(0.5))), 1)
    y = scaled(b, b.op("Mul", x, gate), 0.5)
    folded = optimized(
        b.model(b.op("Add", b.op("Add", y, b.op("Erf", x)), b.op("Tanh", x))), *SIZES
    )
    assert folded.ops["Gelu"] == 1  # itself, and no more


def test_refuses_products_that_only_look_alike():
    b = Builder(20)
    x = b.input("n", C, "h", "w")
    refused(b, b.op("Mul", b.op("Sigmoid", x), b.op("Tanh", x)))  # no SiLU
    b = Builder(20)
    x = b.input("n", C, "h", "w")
    gate = shifted(b, b.op("Tanh", scaled(b, x, math.sqrt(0.5))), 1)  # no GELU
    refused(b, scaled(b, b.op("Mul", x, gate), 0.5))


def test_a_function_that_is_always_the_same_is_left_alone():
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    refused(b, shifted(b, b.op("Sub", x, x), 1))


def test_refuses_bounds_that_are_computed():
    for given in range(2):
        b = Builder()
        x = b.op("Relu", b.input())
        bounds = [b.constant(-1.0), b.constant(9.0)]
        bounds[given] = b.op("Neg", x)
        refused(b, b.op("Clip", shifted(b, x, 3), *bounds))


def test_refuses_a_gate_whose_bounds_do_not_fit_its_shift():
    """x * (clip(x + 3, 0, 6) + 1) / 6 is no hard-swish."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    gate = shifted(b, clip(b, shifted(b, x, 3), 0, 6), 1)
    folded = optimized(b.model(scaled(b, b.op("Mul", x, gate), 1 / 6)), *SIZES)
    assert "HardSigmoid" not in folded.ops


def test_refuses_numbers_that_may_be_overridden():
    b = Builder()
    x = b.input("n", C, "h", "w")
    three = b.constant(3.0, "three")
    y = b.op("Div", b.op("Mul", x, clip(b, b.op("Add", x, three), 0, 6)), b.constant(6.0))
    model = b.model(y)
    model.graph.input.append(helper.make_tensor_value_info("three", TensorProto.FLOAT, []))
    ops = [node.op_type for node in onnxfuse.optimize(model).model.graph.node]
    assert sorted(ops) == ["Add", "Clip", "Div", "Mul"]


def test_refuses_operators_that_are_skipped():
    b = Builder()
    refused(b, hard_swish_divided(b, b.input("n", C, "h", "w")), skip=["Mul"])


def test_refuses_operators_of_another_domain():
    b = Builder()
    x = b.input("n", C, "h", "w")
    model = b.model(hard_swish_divided(b, x))
    for node in model.graph.node:
        node.domain = "custom" if node.op_type == "Clip" else ""
        if node.domain:
            shape = ["n", C, "h", "w"]
            info = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape)
            model.graph.value_info.append(info)
    model.opset_import.append(helper.make_opsetid("custom", 1))
    ops = [node.op_type for node in onnxfuse.optimize(model).model.graph.node]
    assert sorted(ops) == ["Add", "Clip", "Div", "Mul"]


def test_what_is_not_a_number_stays_one():
    b = Builder()
    y = hard_swish_divided(b, b.input("n", C, "h", "w"))
    model = b.model(y)
    x = np.zeros((1, C, 1, 3), np.float32)
    x[0, :3, 0, 1] = np.nan, np.inf, -np.inf
    fused = onnxfuse.optimize(model).model
    np.testing.assert_array_equal(run(fused, {"x": x})[0], truth(model, {"x": x})[0])


@pytest.mark.parametrize("bound", [math.inf, 3.4028234663852886e38])
def test_a_bound_that_is_none_is_left_alone(bound):
    b = Builder()
    x = b.input("n", C, "h", "w")
    optimized(b.model(b.op("Clip", b.op("Relu", x), b.constant(0.0), b.constant(bound))), *SIZES)
    b = Builder()
    y = b.op("Clip", shifted(b, b.input("n", C, "h", "w"), 3), b.constant(0.0), b.constant(bound))
    optimized(b.model(scaled(b, y, 0.25)), *SIZES)


@pytest.mark.parametrize("factor", [300.0, 1e-6])
def test_refuses_numbers_that_do_not_fit_into_the_type(factor):
    """Twice 300 is more than float16 holds, and twice 1e-6 less."""
    b = Builder(17, TensorProto.FLOAT16)
    y = scaled(b, b.op("Relu", scaled(b, b.input("n", C, "h", "w"), factor)), factor)
    refused(b, y)


def test_a_sigmoid_that_falls_is_no_difference():
    """1 - sigmoid(x) has no digits where 1 / (1 + exp(x)) has all of them."""
    b = Builder()
    x = b.conv(b.input("n", 3, "h", "w"), 3, C)
    y = b.op("Reciprocal", shifted(b, b.op("Exp", x), 1))
    folded = optimized(b.model(b.op("MaxPool", y, kernel_shape=[1, 1])), *SIZES)
    assert folded.ops == {"Conv": 1, "Sigmoid": 1, "MaxPool": 1}


@pytest.mark.parametrize(
    ("kind", "scale"), [(TensorProto.FLOAT16, 1.001), (TensorProto.FLOAT, 1 + 2.0**-23)]
)
def test_a_number_next_to_one_is_a_number(kind, scale):
    b = Builder(17, kind)
    y = scaled(b, hard_swish_divided(b, b.input("n", C, "h", "w")), scale)
    folded = optimized(b.model(b.op("MaxPool", y, kernel_shape=[1, 1])), *SIZES)
    assert folded.ops == {"HardSigmoid": 1, "Mul": 2, "MaxPool": 1}


@pytest.mark.parametrize(
    ("kind", "shift"), [(TensorProto.FLOAT16, 1e-3), (TensorProto.FLOAT, 1e-6)]
)
def test_a_small_number_that_is_added_is_a_number(kind, shift):
    b = Builder(17, kind)
    x = b.op("Abs", b.input("n", C, "h", "w"))
    y = shifted(b, hard_sigmoid_divided(b, x), shift)
    folded = optimized(b.model(b.op("MaxPool", y, kernel_shape=[1, 1])), *SIZES)
    assert folded.ops == {"Abs": 1, "HardSigmoid": 1, "Add": 1, "MaxPool": 1}


def test_refuses_bodies_that_take_no_initializers():
    inner = Builder(8, prefix="inner_")
    y = hard_swish_divided(inner, "x")
    out = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
    then = helper.make_graph(inner.nodes, "then", [], [out])
    b = Builder(8)
    b.initializers += inner.initializers
    b.input("n", C, "h", "w")
    b.input(name="c", elem_type=TensorProto.BOOL)
    model = b.model(b.op("If", "c", then_branch=then, else_branch=body_of_relu()))
    model.ir_version = 3
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    fused = onnxfuse.optimize(model).model
    onnx.checker.check_model(fused)
    assert fused.graph.node[0].attribute[0].g == model.graph.node[0].attribute[0].g


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Max", ["a", ""], ["y"]),
        helper.make_node("Max", ["", "a"], ["y"]),
        helper.make_node("Max", ["a"] * 2000, ["y"]),
        helper.make_node("Max", ["a", *["x"] * 2000], ["y"]),
        helper.make_node("Add", ["a"], ["y"]),
        helper.make_node("Relu", ["a", "a"], ["y"]),
        helper.make_node("Clip", ["a", "a", "a", "a"], ["y"]),
        helper.make_node("Clip", [], ["y"]),
        helper.make_node("Clip", ["", "a"], ["y"]),
        helper.make_node("Relu", ["a"], ["y", "more"]),
        helper.make_node("Relu", [], ["y"]),
    ],
)
def test_ill_formed_nodes_and_long_ones_are_left_alone(node):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Neg", ["r"], ["a"]),
        node,
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xz"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert recognise_activations(Graph(graph, 17, 8, types=infer_types(model)), frozenset())


@pytest.mark.parametrize(
    ("kind", "value"), [(TensorProto.STRING, [b"a"]), (TensorProto.COMPLEX64, [1 + 2j])]
)
def test_text_and_complex_numbers_are_no_numbers(kind, value):
    constant = helper.make_tensor("k", kind, [], value)
    nodes = [helper.make_node("Add", ["x", "k"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert list(onnxfuse.optimize(model).model.graph.node) == nodes


def test_refuses_what_overflows_where_the_steps_do_not():
    """relu(x) - 1.3 * x is -0.3 times a LeakyReLU whose slope is above 4."""
    b = Builder()
    x = b.op("Abs", b.input("n", C, "h", "w"))
    report = refused(b, b.op("Sub", b.op("Relu", x), scaled(b, x, 1.3)))
    assert NOT_EXACT_ENOUGH in {refusal.reason for refusal in report.refusals}


@pytest.mark.parametrize("least", [1e-12, 1e-20, 1e-30])
def test_refuses_to_lose_a_bound_that_keeps_from_zero(least):
    b = Builder()
    x = b.op("Abs", b.input("n", C, "h", "w"))
    y = b.op("Div", clip(b, shifted(b, b.op("Neg", x), 3), least, 6), b.constant(6.0))
    folded = optimized(b.model(b.op("Log", y)), *SIZES)
    assert "HardSigmoid" not in folded.ops
    b = Builder()
    y = clip(b, b.op("HardSigmoid", b.input("n", C, "h", "w")), least, 1)
    assert optimized(b.model(b.op("Log", y)), *SIZES).ops["Clip"] == 1


@pytest.mark.parametrize("low", [20.0, 100.0])
def test_refuses_a_hard_sigmoid_far_from_zero(low):
    """x - 100 has all digits that are left of x; x / 6 - 100 / 6 has not."""
    b = Builder()
    y = clip(b, b.op("Sub", b.input("n", C, "h", "w"), b.constant(low)), 0, 6)
    folded = optimized(b.model(b.op("Div", y, b.constant(6.0))), *SIZES)
    assert folded.ops == {"Sub": 1, "HardSigmoid": 1}


def test_refuses_powers_that_are_computed():
    b = Builder()
    x = b.op("Relu", b.input("n", C, "h", "w"))
    refused(b, b.op("Relu", b.op("Pow", x, b.input(name="k", elem_type=TensorProto.INT64))))


@pytest.mark.parametrize("layer", ["Add", "Concat", "GlobalAveragePool"])
def test_refuses_a_shift_that_no_layer_takes(layer):
    """1 + hard_sigmoid(x) is no clipped sum, which would take a node more."""
    b = Builder()
    names = "x" if layer == "GlobalAveragePool" else "xz"
    operands = [b.op("Abs", b.input("n", C, "h", "w", name=name)) for name in names]
    y = b.op(layer, *operands, **({"axis": 0} if layer == "Concat" else {}))
    refused(b, shifted(b, b.op("HardSigmoid", y, alpha=0.2, beta=0.5), 1))


def test_refuses_a_shift_for_a_layer_that_is_skipped():
    b = Builder()
    x = b.conv(b.input("n", 3, "h", "w"), 3, C)
    y = shifted(b, b.op("HardSigmoid", x, alpha=0.2, beta=0.5), 1)
    refused(b, b.op("MaxPool", y, kernel_shape=[1, 1]), skip=["Conv"])


@pytest.mark.parametrize("alone", [True, False])
def test_a_shift_in_front_counts_where_others_read_what_is_shifted(alone):
    b = Builder()
    x = b.conv(b.input("n", 3, "h", "w"), 3, C)
    y = shifted(b, clip(b, x, 0.5, None), -0.5)
    model = b.model(y) if alone else b.model(y, b.op("Tanh", x))
    operators = [node.op_type for node in onnxfuse.optimize(model).model.graph.node]
    assert operators == (["Conv", "Relu"] if alone else ["Conv", "Clip", "Add", "Tanh"])


def test_refuses_bounds_that_are_too_deep_a_function():
    b = Builder()
    x = b.op("Abs", b.input("n", C, "h", "w"))
    tower = x
    for _ in range(3):
        tower = b.op("Relu", b.op("Tanh", tower))
    model = b.model(b.op("Clip", shifted(b, x, 3), tower))
    functions = Functions(Graph(model.graph, 17, 8, types=infer_types(model)), x)
    assert functions.of(tower) is None
    assert functions.of(b.nodes[-1].output[0]) is None


def test_many_dimensions():
    b = Builder()
    x = b.input(2, 3, *[1] * 40)
    model = b.model(hard_swish_divided(b, x))
    operators = [node.op_type for node in onnxfuse.optimize(model).model.graph.node]
    assert operators == ["HardSigmoid", "Mul"]
