"""The interface of evaluate: what it returns, what it refuses, how it names things."""

import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxfuse.errors import OnnxfuseError
from onnxfuse.reference import SUPPORTED, UnsupportedOperator, evaluate

X = np.array([1.0, -2.0])


def test_returns_values_and_every_output():
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Add", ["a", "w"], ["b"]),
        helper.make_node("Split", ["b"], ["c", ""]),
    ]
    values = {"x": X.astype(np.float32), "w": np.ones(2)}
    known = evaluate(nodes, values, 13)
    assert set(known) == {"x", "w", "a", "b", "c"}
    np.testing.assert_array_equal(known["c"], [0.0])
    assert all(isinstance(value, np.ndarray) for value in known.values())
    assert values["x"].dtype == np.float32
    assert set(values) == {"x", "w"}


def test_returns_only_what_is_wanted():
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Split", ["a"], ["b", "c"]),
        helper.make_node("Add", ["b", "w"], ["d"]),
    ]
    values = {"x": X.astype(np.float32), "w": np.ones(1), "unread": np.ones(1)}
    known = evaluate(nodes, values, 13)
    for wanted in ([], ["d"], ("c", "x"), {"a", "b", "unread"}, known):
        kept = evaluate(nodes, values, 13, wanted)
        assert set(kept) == set(wanted)
        assert all(np.array_equal(kept[name], known[name]) for name in wanted)
    assert evaluate(nodes, values, 13, wanted=["x"])["x"].dtype == np.float64


def test_drops_what_no_later_node_reads():
    # a chain of 32 tensors of 8 MB, beside one that nobody reads and one that is read at the end
    size = 8 * 2**20
    nodes = [helper.make_node("Expand", ["zero", "shape"], ["wide"])]
    nodes.append(helper.make_node("Neg", ["wide"], ["x0"]))
    for i in range(32):
        nodes.append(helper.make_node("Neg", [f"x{i}"], [f"x{i + 1}"]))
        nodes.append(helper.make_node("Neg", [f"x{i}"], [f"unread{i}"]))
    nodes.append(helper.make_node("Add", ["x0", "x32"], ["late"]))
    nodes.append(helper.make_node("ReduceSum", ["late"], ["y"], keepdims=0))
    values = {"zero": np.zeros(()), "shape": np.array([size // 8])}
    tracemalloc.start()
    known = evaluate(nodes, values, 13, wanted=["y"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert known == {"y": 0.0}
    assert peak < 4.5 * size  # x0, x[i], x[i + 1] and an unread one


def test_wanted_tensor_that_is_never_made_is_a_key_error():
    with pytest.raises(KeyError, match="nowhere"):
        evaluate([helper.make_node("Neg", ["x"], ["y"])], {"x": X}, 13, wanted=["nowhere"])


def test_dropping_keeps_inputs_that_are_left_out():
    nodes = [
        helper.make_node("Split", ["x"], ["a", ""]),
        helper.make_node("Pad", ["a", "pads", "", "axes"], ["y"]),
    ]
    values = {"x": X, "pads": np.array([1, 0]), "axes": np.array([0])}
    known = evaluate(nodes, values, 18, wanted=["y"])
    np.testing.assert_array_equal(known["y"], [0.0, 1.0])


def test_outputs_of_rank_0_are_arrays():
    nodes = [
        helper.make_node("Add", ["a", "a"], ["sum"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("MatMul", ["x", "x"], ["dot"]),
        helper.make_node("Einsum", ["x", "x"], ["inner"], equation="i,i->"),
        helper.make_node("Div", ["i", "i"], ["one"]),
        helper.make_node("Gather", ["x", "i"], ["element"]),
    ]
    known = evaluate(nodes, {"a": np.array(1.5), "x": X, "i": np.array(1)}, 13)
    assert all(isinstance(value, np.ndarray) for value in known.values())
    assert known["total"].shape == known["dot"].shape == known["one"].shape == ()


def test_no_nodes():
    assert evaluate([], {"x": X}, 13)["x"] is X


def test_arithmetic_follows_ieee_754_without_warnings():
    nodes = [
        helper.make_node("Div", ["x", "z"], ["infinite"]),
        helper.make_node("Sub", ["infinite", "infinite"], ["nan"]),
        helper.make_node("Mul", ["huge", "huge"], ["overflow"]),
    ]
    known = evaluate(nodes, {"x": X, "z": np.zeros(2), "huge": np.full(1, 1e300)}, 13)
    np.testing.assert_array_equal(known["infinite"], [np.inf, -np.inf])
    assert np.isnan(known["nan"]).all()
    assert np.isinf(known["overflow"]).all()


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_default_domain_by_either_name(domain):
    node = helper.make_node("Neg", ["x"], ["y"], domain=domain)
    np.testing.assert_array_equal(evaluate([node], {"x": X}, 13)["y"], -X)


@pytest.mark.parametrize(
    ("node", "opset", "message"),
    [
        (
            helper.make_node("Celu", ["x"], ["y"], name="act"),
            13,
            "cannot evaluate Celu node 'act': the operator is not covered",
        ),
        (
            helper.make_node("Add", ["x", "x"], ["y", "z"]),
            13,
            "cannot evaluate Add node 'y, z': the outputs ['z'] are not covered",
        ),
        (
            helper.make_node("Add", ["x", "x"], ["y"], domain="com.microsoft"),
            13,
            "cannot evaluate Add node 'y': domain 'com.microsoft' is not covered",
        ),
        (
            helper.make_node("Add", ["x", "x"], ["y"]),
            6,
            "cannot evaluate Add node 'y': opset 6 is older than 7",
        ),
    ],
)
def test_refusal_names_the_node_and_the_reason(node, opset, message):
    with pytest.raises(UnsupportedOperator) as caught:
        evaluate([node], {"x": X}, opset)
    assert str(caught.value) == message
    assert isinstance(caught.value, OnnxfuseError)
    assert caught.value.node is node
    assert message.endswith(caught.value.reason)


def test_refuses_an_attribute_that_a_function_would_bind():
    node = helper.make_node("Concat", ["x"], ["y"])
    attribute = onnx.AttributeProto(
        name="axis", type=onnx.AttributeProto.INT, ref_attr_name="function_axis"
    )
    node.attribute.append(attribute)
    with pytest.raises(UnsupportedOperator, match="attribute 'axis' is not covered"):
        evaluate([node], {"x": X}, 13)


def test_refuses_a_subgraph_attribute():
    body = helper.make_graph([], "body", [], [])
    node = helper.make_node("Identity", ["x"], ["y"], body=body)
    with pytest.raises(UnsupportedOperator, match="attribute 'body' is not covered"):
        evaluate([node], {"x": X}, 13)


def test_unknown_input_is_a_key_error():
    with pytest.raises(KeyError, match="nowhere"):
        evaluate([helper.make_node("Neg", ["nowhere"], ["y"])], {}, 13)


def test_supported_operators_are_in_the_default_domain():
    assert all(onnx.defs.has(op_type) for op_type in SUPPORTED)
