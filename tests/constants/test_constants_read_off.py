import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.constants.building import (
    ADD,
    FLOAT,
    INT64,
    ROW,
    Folded,
    build,
    fold,
    node,
    value,
)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value": numpy_helper.from_array(ROW)}, ROW),
        ({"value_float": 2.5}, np.array(2.5, np.float32)),
        ({"value_floats": [1.0, 2.0, 3.0, 5.0]}, np.array([1, 2, 3, 5], np.float32)),
    ],
    ids=lambda a: next(iter(a)) if isinstance(a, dict) else "",
)
def test_constant_nodes_of_floats(attributes, expected):
    folded = fold(build([node("Constant", "", "k", **attributes), ADD]))
    assert folded.operators == ["Add"]
    assert folded.weights["k"].dtype == np.float32
    assert folded.weights["k"].shape == expected.shape
    np.testing.assert_array_equal(folded.weights["k"], expected)


@pytest.mark.parametrize(
    ("attributes", "shape"), [({"value_int": 3}, ()), ({"value_ints": [3, 1, 2, 3]}, (4,))]
)
def test_constant_nodes_of_integers(attributes, shape):
    inputs = [value("x", ("N", 4), INT64)]
    model = build([node("Constant", "", "k", **attributes), ADD], inputs=inputs)
    model.graph.output[0].type.tensor_type.elem_type = INT64
    folded = fold(model, {"x": np.ones((3, 4), np.int64)})
    assert folded.operators == ["Add"]
    assert folded.weights["k"].dtype == np.int64
    assert folded.weights["k"].shape == shape


@pytest.mark.parametrize(
    "dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4, np.float16, np.complex64]
)
def test_constant_nodes_keep_their_element_type(dtype):
    tensor = numpy_helper.from_array(np.arange(4).astype(dtype), "t")
    model = build([node("Constant", "", "k", value=tensor), node("Shape", "k", "y")], opset=21)
    model.graph.output[0].type.tensor_type.elem_type = INT64
    nodes = [node("Constant", "", "k", value=tensor), node("Foo", "k", "y")]
    nodes[1].domain = "org.example"
    folded = Folded(build(nodes, opset=21, ir_version=10))
    (weight,) = folded.model.graph.initializer
    assert (weight.name, weight.data_type) == ("k", tensor.data_type)
    assert weight.raw_data == tensor.raw_data


@pytest.mark.parametrize(
    "attributes",
    [
        {"value_string": "a"},
        {"value_strings": ["a", "b"]},
        {"value": helper.make_tensor("", TensorProto.STRING, [1], [b"a"])},
        {
            "sparse_value": helper.make_sparse_tensor(
                helper.make_tensor("v", FLOAT, [1], [2.0]),
                helper.make_tensor("i", INT64, [1], [3]),
                [4],
            )
        },
    ],
    ids=lambda a: next(iter(a)),
)
def test_strings_and_sparse_tensors_are_left_alone(attributes):
    nodes = [node("Constant", "", "k", **attributes), node("Identity", "k", "y")]
    model = build(nodes)
    model.graph.output[0].ClearField("type")
    folded = Folded(model)
    assert folded.operators == ["Constant", "Identity"]
    assert not folded.weights


def test_a_constant_node_without_a_value_is_left_alone():
    assert Folded(build([node("Constant", "", "k"), ADD])).operators == ["Constant", "Add"]


def test_identity_of_a_constant():
    folded = fold(build([node("Identity", "w", "a"), node("Identity", "a", "k"), ADD], {"w": ROW}))
    assert folded.operators == ["Add"]
    assert folded.weights.keys() == {"k"}


@pytest.mark.parametrize(
    ("attributes", "opset", "expected"),
    [
        ({}, 13, [2, 3, 5, 7]),
        ({"start": 1}, 15, [3, 5, 7]),
        ({"start": -2}, 15, [5, 7]),
        ({"end": -1}, 15, [2, 3, 5]),
        ({"start": -9, "end": 9}, 19, [2, 3, 5, 7]),
        ({"start": 3, "end": 1}, 15, []),
    ],
    ids=str,
)
def test_shapes_that_are_known(attributes, opset, expected):
    nodes = [node("Shape", "x", "s", **attributes), node("ReduceMax", "s", "y", keepdims=0)]
    if not expected:
        nodes[1] = node("Size", "s", "y")
    model = build(nodes, inputs=[value("x", (2, 3, 5, 7))], opset=opset)
    model.graph.output[0].type.tensor_type.elem_type = INT64
    folded = fold(model, {"x": np.zeros((2, 3, 5, 7), np.float32)})
    assert not folded.operators
    assert folded.weights["y"] == (max(expected) if expected else 0)


def test_the_size_of_a_known_shape():
    nodes = [node("Relu", "x", "r"), node("Size", "r", "s"), node("Cast", "s", "k", to=FLOAT)]
    nodes.append(node("Add", "r k", "y"))
    model = build(nodes, inputs=[value("x", (2, 4))])
    folded = fold(model, {"x": np.ones((2, 4), np.float32)})
    assert folded.operators == ["Relu", "Add"]
    assert folded.weights["k"] == 8


def test_shapes_that_are_not_known_are_left_alone():
    nodes = [node("Shape", "x", "s"), node("Size", "x", "n"), node("Cast", "s", "y", to=FLOAT)]
    nodes.append(node("Cast", "n", "z", to=FLOAT))
    assert fold(build(nodes, outputs=["y", "z"])).operators == ["Shape", "Size", "Cast", "Cast"]


@pytest.mark.parametrize(
    ("indices", "opset", "folds"),
    [(1, 13, True), (-1, 13, True), ([1, -1], 13, True), (0, 13, False), ([0, 1], 13, False)],
)
def test_known_sizes_among_unknown_ones_are_read(indices, opset, folds):
    """x.shape[1] is known although the batch size x.shape[0] is not."""
    nodes = [node("Shape", "x", "s"), node("Gather", "s i", "g"), node("Cast", "g", "k", to=FLOAT)]
    nodes.append(node("ReduceSum", "k", "t", keepdims=0))
    nodes.append(node("Add", "x t", "y"))
    folded = fold(build(nodes, {"i": np.array(indices)}, opset=opset))
    assert (folded.operators == ["Add"]) == folds


def test_stale_shapes_are_not_folded():
    """Somebody made the batch size symbolic at the input and left the rest as it was."""
    nodes = [node("Relu", "x", "r"), node("Shape", "r", "s"), node("Cast", "s", "y", to=FLOAT)]
    model = build(nodes)
    model.graph.value_info.append(value("r", (1, 4)))
    assert fold(model).operators == ["Relu", "Shape", "Cast"]
